"""Validated arrays, and the batches that networks are trained on and scored with."""

import json
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from pipeline.config import Augmentation
from pipeline.errors import DataError
from pipeline.paths import Paths


@dataclass(frozen=True)
class Card:
    """What data/validated holds: image is (height, width, channels), `images` counts by split."""

    dataset: str
    image: tuple[int, int, int]
    classes: tuple[str, ...]
    images: dict[str, int]
    digest: str


@dataclass(frozen=True)
class Split:
    """uint8 images of shape (n, height, width, channels), int64 labels of shape (n,)."""

    images: np.ndarray
    labels: np.ndarray


def load_card(paths: Paths) -> Card:
    """Read data/validated/dataset.json.

    Raises:
        DataError: there is none.
    """
    try:
        card = json.loads((paths.validated / "dataset.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{paths.validated}: no validated data; run `dvc repro validate` first") from None
    return Card(**card | {"image": tuple(card["image"]), "classes": tuple(card["classes"])})


def load(paths: Paths, name: str) -> Split:
    """Read one split. Only evaluation reads the test split."""
    folder = paths.split(name)
    return Split(np.load(folder / "images.npy"), np.load(folder / "labels.npy"))


class TrainingBatches:
    """The training images, in an order and with an augmentation that depend on the seed and the epoch alone.

    So any epoch can be repeated by itself: training that was interrupted goes on with the very batches that it would
    have had. `epoch` is the variable to set before an epoch is iterated; `steps` is the number of its batches. Images
    that do not fill a last batch are left out of the epoch; the shuffle leaves out others the next time.
    """

    def __init__(self, split: Split, classes: int, batch_size: int, seed: int, augmentation: Augmentation) -> None:
        size = min(batch_size, len(split.labels))
        self.steps = len(split.labels) // size
        self.epoch = tf.Variable(tf.constant(0, tf.int64), trainable=False)
        images, labels = tf.constant(split.images), tf.constant(split.labels)
        count = len(split.labels)

        def order(_: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            """The number of every step since the first epoch, and the images of its batch."""
            draws = tf.random.stateless_uniform((count,), tf.stack([seed, self.epoch]))
            shuffled = tf.argsort(draws, stable=True)
            steps = self.epoch * self.steps + tf.range(self.steps, dtype=tf.int64)
            return steps, tf.reshape(shuffled[: self.steps * size], (self.steps, size))

        def batch(step: tf.Tensor, index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            pixels = _scaled(tf.gather(images, index))
            if augmentation.active:
                pixels = transformed(
                    pixels, random_affine(augmentation, (size, *split.images.shape[1:]), tf.stack([seed, step]))
                )
            return pixels, tf.one_hot(tf.gather(labels, index), classes)

        self.dataset = (
            tf.data.Dataset.range(1)
            .map(order)
            .unbatch()
            .map(batch)
            .apply(tf.data.experimental.assert_cardinality(self.steps))
            .prefetch(tf.data.AUTOTUNE)
        )


def scoring_batches(split: Split, classes: int, batch_size: int) -> tf.data.Dataset:
    """Every image, in order, with its label as one-hot vector."""
    return (
        tf.data.Dataset.from_tensor_slices((split.images, split.labels))
        .batch(batch_size)
        .map(lambda images, labels: (_scaled(images), tf.one_hot(labels, classes)))
        .cache()
        .prefetch(tf.data.AUTOTUNE)
    )


def random_affine(augmentation: Augmentation, shape: tuple[int, ...], seed: tf.Tensor) -> tf.Tensor:
    """One random affine transform per image, as the eight numbers of a projective one: (n, 8).

    Each maps a place in the result to a place in the image, about the image's centre: rotation, shear and scale first,
    then the shift. All four are uniform between minus and plus the configured bound.
    """
    count, height, width = shape[:3]
    draws = tf.random.stateless_uniform((5, count), seed, minval=-1.0, maxval=1.0)
    angle = draws[0] * float(np.deg2rad(augmentation.rotation))
    slant = tf.tan(draws[1] * float(np.deg2rad(augmentation.shear)))
    size = 1.0 / (1.0 + draws[2] * augmentation.scale)
    across, down = draws[3] * augmentation.shift * width, draws[4] * augmentation.shift * height
    cosine, sine = tf.cos(angle), tf.sin(angle)
    a, b = size * cosine, size * (slant * cosine - sine)
    c, d = size * sine, size * (slant * sine + cosine)
    x, y = (width - 1) / 2, (height - 1) / 2
    zero = tf.zeros_like(a)
    return tf.stack([a, b, x - a * x - b * y + across, c, d, y - c * x - d * y + down, zero, zero], axis=1)


def transformed(pixels: tf.Tensor, transforms: tf.Tensor) -> tf.Tensor:
    """Images under projective transforms, bilinear, zero outside."""
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=pixels,
        transforms=transforms,
        output_shape=pixels.shape[1:3],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
    )


def _scaled(images: tf.Tensor) -> tf.Tensor:
    return tf.cast(images, tf.float32) / 255.0
