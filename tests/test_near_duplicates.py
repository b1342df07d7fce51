"""Near duplicates: the frequencies, hashes and distances of images."""

import numpy as np
from scipy.fft import dctn

from pipeline.validate import near_duplicates
from tests.digits import digits


def test_distances_ignore_brightness_contrast_and_fine_noise():
    images = digits().images[::50]
    noise = np.random.default_rng(1).normal(0, 8, images.shape)
    spectrum = near_duplicates.frequencies(images, near_duplicates.FINE)
    for changed in (images // 2, images // 2 + 100, np.clip(images + noise, 0, 255)):
        other = near_duplicates.frequencies(changed, near_duplicates.FINE)
        assert near_duplicates.distances(spectrum, other).max() < 0.01
    assert np.median(near_duplicates.distances(spectrum, spectrum[::-1])) > 0.3


def test_frequencies_equal_the_cosine_transform():
    image = digits().images[0, ..., 0].astype(float)
    expected = dctn(image, type=2)[:8, :8] / 4 / 28**2
    found = near_duplicates.frequencies(digits().images[:1])[0, 0].reshape(8, 8)
    assert np.allclose(found, expected.T, atol=1e-4)


def test_few_images_are_compared_in_all_pairs():
    codes = np.array([0, 1, 2**63, 2**64 - 1], np.uint64)
    pairs = {
        pair
        for one, other in near_duplicates.candidates(codes)
        for pair in zip(one.tolist(), other.tolist(), strict=True)
    }
    assert pairs == {(0, 1), (0, 2), (1, 2)}
    assert list(near_duplicates.candidates(codes[:1])) == []


def test_constant_images_have_finite_distances():
    spectrum = near_duplicates.frequencies(np.zeros((4, 8, 8, 1), np.uint8))
    assert np.isfinite(near_duplicates.distances(spectrum, spectrum)).all()
