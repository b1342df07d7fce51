"""Registration: moved and blurred copies are found, other images are not."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from pipeline.formats.images import Images
from pipeline.validate import measurements, registration
from tests.digits import digits

NEAR = 0.004


def picture(image: np.ndarray) -> Image.Image:
    return Image.fromarray(image[..., 0])


CHANGES = {
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


def test_no_two_digits_are_near_duplicates():
    assert np.isinf(compared(digits().images)["distance"]).all()


@pytest.mark.parametrize("change", CHANGES)
def test_changed_copies_are_found_among_the_digits(change: str):
    images = digits().images
    sources = np.arange(0, 5000, 25)
    copies = np.stack([np.asarray(CHANGES[change](images[source]))[..., np.newaxis] for source in sources])
    found = compared(np.concatenate([images, copies]))["near_to"].to_numpy()
    assert (found[:5000] == measurements.NONE).all()
    assert np.mean(found[5000:] == sources) > 0.85
    assert np.isin(found[5000:], np.append(sources, measurements.NONE)).mean() > 0.99


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
