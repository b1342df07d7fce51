"""Batches and augmentation: content, order, and the transforms of an image."""

import os
import pickle
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework import config as tf_config  # the public module can only turn determinism on

from pipeline.core import dataset
from pipeline.core.dataset import Split
from pipeline.core.sections import Augmentation
from pipeline.train import batches as module
from pipeline.train.augmentation import augmented, places, random_affine, random_field, sampled, transformed
from pipeline.train.batches import TrainingBatches, scoring_batches

NONE = Augmentation()
SIZE = (28, 28, 1)


def numbered(count: int) -> Split:
    """Images that carry their own number in their pixels."""
    labels = np.arange(count, dtype=np.int64)
    return Split(np.broadcast_to(labels.astype(np.uint8)[:, None, None, None], (count, *SIZE)).copy(), labels % 10)


def epoch(batches: TrainingBatches, number: int) -> list[int]:
    """The numbers of the images of one epoch, in order."""
    batches.epoch.assign(number)
    return [round(float(image[0, 0, 0]) * 255) for images, _ in batches.dataset for image in images]


def test_epoch_has_every_image_once_except_an_incomplete_last_batch():
    batches = TrainingBatches(numbered(100), 10, 32, seed=1, augmentation=NONE)
    seen = epoch(batches, 0)
    assert (batches.steps, len(seen), len(set(seen))) == (3, 96, 96)


def test_order_depends_on_seed_and_epoch_alone():
    batches = TrainingBatches(numbered(100), 10, 32, seed=1, augmentation=NONE)
    first, second = epoch(batches, 0), epoch(batches, 1)
    assert first != second
    fresh = TrainingBatches(numbered(100), 10, 32, seed=1, augmentation=NONE)
    assert epoch(fresh, 1) == second  # without the epoch before it
    assert epoch(fresh, 0) == first
    assert epoch(TrainingBatches(numbered(100), 10, 32, seed=2, augmentation=NONE), 0) != first


def test_fewer_images_than_a_batch_make_one_batch():
    batches = TrainingBatches(numbered(5), 10, 32, seed=1, augmentation=NONE)
    assert sorted(epoch(batches, 0)) == [0, 1, 2, 3, 4]


def test_labels_stay_with_their_images_and_pixels_are_scaled():
    batches = TrainingBatches(numbered(64), 10, 16, seed=1, augmentation=NONE)
    for images, labels in batches.dataset:
        assert images.dtype == tf.float32
        numbers = np.rint(images.numpy()[:, 0, 0, 0] * 255).astype(int)
        np.testing.assert_array_equal(labels.numpy().argmax(axis=1), numbers % 10)
        np.testing.assert_array_equal(labels.numpy().sum(axis=1), 1)


def test_scoring_batches_have_every_image_in_order():
    split = numbered(105)
    parts = list(scoring_batches(split, 10, 20))
    np.testing.assert_array_equal(np.concatenate([labels.numpy().argmax(1) for _, labels in parts]), split.labels)
    np.testing.assert_allclose(np.concatenate([images for images, _ in parts]), split.images / np.float32(255))


def test_images_that_are_read_from_a_file_give_the_same_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    np.save(tmp_path / "images.npy", np.random.default_rng(0).integers(0, 256, (100, *SIZE), np.uint8))
    split = Split(np.load(tmp_path / "images.npy", mmap_mode="r"), np.arange(100) % 10)

    def pixels(split: Split) -> list[np.ndarray]:
        batches = TrainingBatches(split, 10, 32, 1, Augmentation(shift=0.1))
        batches.epoch.assign(3)
        return [
            part.numpy() for both in (batches.dataset, scoring_batches(split, 10, 30)) for pair in both for part in pair
        ]

    expected = pixels(split)
    monkeypatch.setattr(module, "IN_MEMORY", 0)
    for found, image in zip(pixels(split), expected, strict=True):
        np.testing.assert_array_equal(found, image)

    monkeypatch.setattr(dataset, "SENT", 0)
    stored = pickle.dumps(split)
    assert len(stored) < 2000  # the path, not the pixels
    np.testing.assert_array_equal(pickle.loads(stored).images, split.images)
    part = Split(split.images[10:20], split.labels[10:20])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(part)).images, part.images)


@pytest.fixture
def op_determinism() -> Iterator[None]:
    """Operations as in every stage, and afterwards as other tests expect them."""
    tf.config.experimental.enable_op_determinism()
    yield
    tf_config.disable_op_determinism()


@pytest.mark.usefixtures("op_determinism")
def test_batches_are_prepared_ahead_of_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "IN_MEMORY", 0)
    read, preadv = threading.Semaphore(0), os.preadv
    monkeypatch.setattr(module.os, "preadv", lambda *arguments: read.release() or preadv(*arguments))
    np.save(tmp_path / "images.npy", numbered(96).images)
    split = Split(np.load(tmp_path / "images.npy", mmap_mode="r"), numbered(96).labels)
    iterator = iter(TrainingBatches(split, 10, 16, seed=1, augmentation=NONE).dataset)
    next(iterator)
    assert all(read.acquire(timeout=30) for _ in range(4 * 16))  # four batches, before the next one is asked for


@pytest.mark.parametrize(
    "augmentation",
    [
        Augmentation(shift=0.1, rotation=20.0, scale=0.1, shear=10.0),
        Augmentation(elastic=0.05),
        Augmentation(erase=1.0),
        Augmentation(mixup=0.4, cutmix=1.0, brightness=0.1),
    ],
)
def test_augmentation_depends_on_seed_and_epoch_alone(augmentation: Augmentation):
    split = Split(np.random.default_rng(0).integers(0, 256, (32, *SIZE), np.uint8), np.zeros(32, np.int64))

    def pixels(seed: int, number: int) -> np.ndarray:
        batches = TrainingBatches(split, 10, 32, seed, augmentation)
        batches.epoch.assign(number)
        return next(iter(batches.dataset))[0].numpy()

    np.testing.assert_array_equal(pixels(1, 0), pixels(1, 0))
    # An epoch has the same images, so their sorted means would be equal without new draws.
    assert not np.allclose(np.sort(pixels(1, 0).mean((1, 2, 3))), np.sort(pixels(1, 1).mean((1, 2, 3))), atol=1e-4)


def drawn(augmentation: Augmentation, count: int = 500) -> np.ndarray:
    return random_affine(augmentation, (count, 28, 28, 1), tf.constant([1, 2])).numpy()


def test_no_augmentation_is_the_identity():
    np.testing.assert_allclose(drawn(NONE), np.tile([1, 0, 0, 0, 1, 0, 0, 0], (500, 1)), atol=1e-5)


@pytest.mark.parametrize(
    ("augmentation", "column", "bound"),
    [(Augmentation(shift=0.25), 2, 7.0), (Augmentation(shift=0.25), 5, 7.0), (Augmentation(rotation=30.0), 3, 0.5)],
)
def test_augmentation_covers_the_configured_range(augmentation, column, bound):
    values = drawn(augmentation)[:, column]
    assert -bound <= values.min() < -0.95 * bound
    assert 0.95 * bound < values.max() <= bound


def test_scale_changes_the_size_and_shear_keeps_areas():
    determinant = np.linalg.det(drawn(Augmentation(scale=0.1))[:, [0, 1, 3, 4]].reshape(-1, 2, 2))
    size = 1 / np.sqrt(determinant)
    assert 0.9 <= size.min() < 0.91
    assert 1.09 < size.max() <= 1.1
    sheared = drawn(Augmentation(shear=20.0, rotation=30.0))[:, [0, 1, 3, 4]].reshape(-1, 2, 2)
    np.testing.assert_allclose(np.linalg.det(sheared), 1, atol=1e-5)


def test_rotation_is_about_the_centre():
    image = np.zeros((1, 28, 28, 1), np.float32)
    image[0, 4:24, 12:16] = 1  # an upright bar
    quarter = random_affine(Augmentation(rotation=0.0), (1, 28, 28, 1), tf.constant([0, 0])).numpy()
    angle = np.pi / 2
    quarter[0, :6] = [np.cos(angle), -np.sin(angle), 27, np.sin(angle), np.cos(angle), 0]
    turned = transformed(tf.constant(image), tf.constant(quarter, tf.float32)).numpy()
    np.testing.assert_allclose(turned[0, :, :, 0], np.rot90(image[0, :, :, 0]), atol=1e-4)
    for _ in range(3):
        turned = transformed(tf.constant(turned), tf.constant(quarter, tf.float32)).numpy()
    np.testing.assert_allclose(turned, image, atol=1e-4)


def test_random_affine_keeps_the_centre():
    """The centre of the image is a fixed point for every angle."""
    a, b, c, d, e, f = drawn(Augmentation(rotation=180.0, shear=20.0, scale=0.3))[:, :6].T
    np.testing.assert_allclose(a * 13.5 + b * 13.5 + c, 13.5, atol=1e-4)
    np.testing.assert_allclose(d * 13.5 + e * 13.5 + f, 13.5, atol=1e-4)


def noise(shape: tuple[int, ...]) -> tf.Tensor:
    return tf.constant(np.random.default_rng(0).random(shape, np.float32))


def test_sampling_at_mapped_places_equals_the_transform():
    shape, strong = (50, 20, 28, 2), Augmentation(shift=0.3, rotation=90.0, scale=0.5, shear=20.0)
    transforms = random_affine(strong, shape, tf.constant([1, 2]))
    found = sampled(noise(shape), shape, *places(transforms, shape)).numpy()
    np.testing.assert_allclose(found, transformed(noise(shape), transforms).numpy(), atol=1e-4)
    for elastic in (0.0, 1e-9):  # the two ways to sample
        nearest = Augmentation(shift=0.3, rotation=90.0, elastic=elastic, fill_mode="nearest")
        assert augmented(noise(shape) + 1, shape, nearest, tf.constant([1, 2])).numpy().min() >= 0.999


def test_sampling_is_bilinear_and_zero_outside():
    shape = (1, 4, 5, 1)
    rows = tf.constant([[1.0, 1.25, -0.5, 3.75, -9.0, 1.0]])
    columns = tf.constant([[2.0, 3.0, 0.0, 4.0, 2.0, 99.0]])
    pixels = noise(shape).numpy()[0, :, :, 0]
    between = 0.75 * pixels[1, 3] + 0.25 * pixels[2, 3]
    expected = [pixels[1, 2], between, 0.5 * pixels[0, 0], 0.25 * pixels[3, 4], 0, 0]
    np.testing.assert_allclose(sampled(noise(shape), shape, rows, columns).numpy().ravel(), expected, atol=1e-6)


def test_elastic_field_is_smooth_and_has_the_configured_std():
    down, across = (field.numpy() for field in random_field(0.05, (2000, 28, 42, 1), tf.constant([1, 2])))
    np.testing.assert_allclose([down.std(), across.std()], [0.05 * 28, 0.05 * 42], rtol=0.02)
    np.testing.assert_allclose(down.std(axis=0), 0.05 * 28, rtol=0.1)  # at the borders as well
    assert abs(np.corrcoef(down.ravel(), across.ravel())[0, 1]) < 0.02
    # Correlation of a Gaussian filter's result, four pixels of 28 apart: exp(-(4 * 7 / 28)^2 / 4).
    np.testing.assert_allclose(np.corrcoef(down[:, 12, 20], down[:, 16, 20])[0, 1], np.exp(-0.25), atol=0.05)
