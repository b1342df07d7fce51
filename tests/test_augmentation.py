"""Flips, erased rectangles, colours, mixup and CutMix, against their definitions."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from pipeline.core.sections import Augmentation
from pipeline.train.augmentation import augmented
from pipeline.train.mixing import beta, cutmix_share, mixed

COUNT, SIZE = 400, 20
SEED = tf.constant([3, 14], tf.int64)


def images(channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).random((COUNT, SIZE, SIZE, channels), np.float32)


MIXES: list[tuple[dict[str, Any], float]] = [
    ({"mixup": 0.4}, 0),
    ({"cutmix": 1.0}, 1),
    ({"mixup": 0.4, "cutmix": 1.0}, 0.5),
]


def changed(pixels: np.ndarray, **settings: Any) -> np.ndarray:
    return augmented(tf.constant(pixels), pixels.shape, Augmentation(**settings), SEED).numpy()


def test_half_of_the_images_are_mirrored():
    pixels = images()
    found = changed(pixels, flip=True)
    mirrored = np.all(found == pixels[:, :, ::-1], axis=(1, 2, 3))
    np.testing.assert_array_equal(found[~mirrored], pixels[~mirrored])
    assert 0.4 < mirrored.mean() < 0.6


def test_erasing_replaces_a_rectangle_by_noise_in_a_share_of_the_images():
    pixels = np.full((COUNT, 30, 20, 1), 2.0, np.float32)
    found = changed(pixels, erase=0.25)
    erased = found[..., 0] != 2
    hit = erased.any(axis=(1, 2))
    assert 0.18 < hit.mean() < 0.32
    rows, columns = erased.any(axis=2)[hit], erased.any(axis=1)[hit]
    np.testing.assert_array_equal(erased[hit], rows[:, :, None] & columns[:, None, :])  # no gaps: see the sides
    height, width = rows.sum(axis=1), columns.sum(axis=1)
    for marked, length in ((rows, height), (columns, width)):
        np.testing.assert_array_equal(marked.shape[1] - marked[:, ::-1].argmax(1) - marked.argmax(1), length)
    area, ratio = height * width / 600, height / width
    assert 0.01 < area.min() < 0.1 < 0.25 < area.max() < 0.36
    assert 0.2 < ratio.min() < 0.5 < 2 < ratio.max() < 4.6
    noise = found[..., 0][erased]
    assert noise.min() < 0.01
    assert noise.max() > 0.99
    assert np.all(changed(pixels, erase=1.0) != pixels, axis=(1, 2, 3)).sum() == 0
    assert np.any(changed(pixels, erase=1.0) != pixels, axis=(1, 2, 3)).all()


@pytest.mark.parametrize(
    ("name", "adjust", "centre"),
    [
        ("brightness", tf.image.adjust_brightness, 0.0),
        ("contrast", tf.image.adjust_contrast, 1.0),
        ("saturation", tf.image.adjust_saturation, 1.0),
        ("hue", tf.image.adjust_hue, 0.0),
    ],
)
def test_colours_change_as_those_of_tensorflow(name: str, adjust: Any, centre: float):
    pixels, amount = images(), 0.4
    place = ["brightness", "contrast", "saturation", "hue"].index(name)
    of_colours: Any = tf.random.fold_in(SEED, 5)
    draws = tf.random.stateless_uniform((4, COUNT, 1, 1, 1), of_colours, minval=-1.0, maxval=1.0)
    drawn = draws.numpy()[place].ravel()
    assert stats.kstest(drawn, "uniform", (-1, 2)).pvalue > 0.001
    found = changed(pixels, **{name: amount})
    expected = [adjust(image, centre + amount * value) for image, value in zip(pixels[:20], drawn, strict=False)]
    np.testing.assert_allclose(found[:20], np.clip(expected, 0, 1), atol=1e-5)


def test_mixing_gives_labels_the_shares_of_the_pixels():
    """Image i has the value of its label everywhere, so that a mixed image tells the shares."""
    labels = np.eye(COUNT, dtype=np.float32)
    pixels = np.zeros((COUNT, SIZE, SIZE, 1), np.float32)
    pixels[1::2] = 1
    for settings, share in MIXES:
        found, targets = (part.numpy() for part in mixed(tf.constant(pixels), labels, Augmentation(**settings), SEED))
        np.testing.assert_allclose(targets.sum(axis=1), 1, rtol=1e-5)
        own = targets.diagonal()
        np.testing.assert_allclose(targets[np.arange(COUNT), np.arange(COUNT) - 1], 1 - own, atol=1e-5)
        ones = found.mean(axis=(1, 2, 3))
        np.testing.assert_allclose(np.where(np.arange(COUNT) % 2, own, 1 - own), ones, atol=1e-5)
        whole = np.isin(found, (0, 1)).all(axis=(1, 2, 3)).mean()  # not blended
        assert whole == pytest.approx(share, abs=0.15)


def test_shares_follow_the_beta_distribution_and_boxes_their_area():
    for alpha in (0.2, 1.0, 4.0):
        assert stats.kstest(beta(alpha, 3000, SEED).numpy(), "beta", (alpha, alpha)).pvalue > 0.001
    assert np.isfinite(beta(1e-3, 3000, SEED).numpy()).all()
    boxes = cutmix_share(1.0, (COUNT, 40, 60, 1), SEED).numpy()[..., 0]
    rows, columns = (boxes.max(axis=axis) > 0 for axis in (2, 1))
    np.testing.assert_array_equal(boxes, rows[:, :, None] & columns[:, None, :])
    side = np.sqrt(beta(1.0, COUNT, SEED).numpy())
    inside = ~(rows[:, 0] | rows[:, -1] | columns[:, 0] | columns[:, -1])  # nothing lost outside of the image
    np.testing.assert_allclose(rows.sum(axis=1)[inside], 40 * side[inside], atol=1)
    np.testing.assert_allclose(columns.sum(axis=1)[inside], 60 * side[inside], atol=1)
