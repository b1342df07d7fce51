"""Registration: moved and blurred copies are found, other images are not."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from pipeline.formats.images import Images
from pipeline.validate import measurements, near_duplicates, registration
from tests.digits import digits

NEAR = 0.004


def picture(image: np.ndarray) -> Image.Image:
    return Image.fromarray(image[..., 0])


def noisy(image: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(int(image.sum())).normal(0, 8, image.shape)
    return np.clip(np.rint(image + noise), 0, 255).astype(np.uint8)


CHANGES = {
    "noisy": noisy,
    "blurred": lambda image: picture(image).filter(ImageFilter.GaussianBlur(1)),
    "turned": lambda image: picture(image).rotate(3, Image.Resampling.BICUBIC),
    "cropped": lambda image: picture(image).crop((1, 1, 27, 27)).resize((28, 28), Image.Resampling.BICUBIC),
    "shifted": lambda image: Image.fromarray(np.roll(image[..., 0], 1, axis=1)),
    "shifted diagonally": lambda image: Image.fromarray(np.roll(image[..., 0], (1, -1), axis=(0, 1))),
}


def compared(images: np.ndarray):
    published = {"train": Images(images, np.zeros(len(images), np.int64))}
    rows, spectrum = measurements.measure(published)
    return measurements.compare(rows.assign(split="train"), spectrum, published, 2, NEAR, 1)


def stroke(left: tuple[int, int], right: tuple[int, int]) -> np.ndarray:
    """An upright stroke; the brightness of its edges, from its upper to its lower end, gives its slant and width."""
    image = np.zeros((28, 28, 1), np.uint8)
    image[4:24, 13:15] = 255
    image[4:24, 12, 0], image[4:24, 15, 0] = np.linspace(*left, 20), np.linspace(*right, 20)
    return image


def test_strokes_of_two_slants_are_not_near_duplicates():
    """They differ by no more than noise, but in the coarse frequencies, where noise is weak."""
    strokes = np.stack([stroke((165, 105), (240, 45)), stroke((75, 150), (210, 75))])
    fine = near_duplicates.frequencies(strokes, near_duplicates.FINE)
    assert near_duplicates.distances(fine[:1], fine[1:]) < NEAR
    assert np.isinf(compared(strokes)["distance"]).all()


def test_changed_copies_are_found_among_the_digits():
    images = digits().images
    sources = {change: np.arange(number, 5000, 25) for number, change in enumerate(CHANGES)}
    copies = [CHANGES[change](images[source]) for change in CHANGES for source in sources[change]]
    content = np.concatenate([images, np.stack([np.asarray(copy).reshape(images.shape[1:]) for copy in copies])])
    found = compared(content)["near_to"].to_numpy()
    assert (found[:5000] == measurements.NONE).all()
    for change, near_to in zip(CHANGES, found[5000:].reshape(len(CHANGES), -1), strict=True):
        assert np.mean(near_to == sources[change]) > 0.85, change
        assert np.isin(near_to, np.append(sources[change], measurements.NONE)).mean() > 0.99, change


@settings(max_examples=10, deadline=None, derandomize=True)
@given(st.integers(0, 60), st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 3]), st.integers(0, 2**32 - 1))
def test_every_size_number_and_content_of_images_is_accepted(
    count: int, height: int, width: int, channels: int, seed: int
):
    draws = np.random.default_rng(seed)
    images = draws.integers(0, 256, (count + 1, height, width, channels), np.uint8)
    images[draws.random(count + 1) < 0.3] = draws.integers(0, 256)
    assert not compared(images)["distance"].isna().any()


def test_neighbours_are_pairs_of_lower_and_higher_numbers():
    vectors = np.random.default_rng(1).normal(0, 0.01, (3000, 4)).astype(np.float32)
    lower, higher = registration.neighbours(vectors, 1)
    assert (lower < higher).all()
    assert len(set(zip(lower.tolist(), higher.tolist(), strict=True))) == len(lower)
    assert len(lower) <= registration.MOST_PAIRS * 3000
    squares = np.square(vectors[:, np.newaxis] - vectors[:300]).sum(axis=2)
    squares[np.arange(300), np.arange(300)] = np.inf
    nearest = squares.argmin(axis=0)
    pairs = set(zip(lower.tolist(), higher.tolist(), strict=True))
    assert np.mean([tuple(sorted((row, int(other)))) in pairs for row, other in enumerate(nearest)]) > 0.9


def test_equal_vectors_take_bounded_time():
    """All fall into one cell."""
    lower, _ = registration.neighbours(np.zeros((20_000, 4), np.float32), 1)
    assert len(lower) <= registration.MOST_PAIRS * 20_000
