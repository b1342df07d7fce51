"""Batches of images: shuffled and augmented for training, in order for scoring."""

import os
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from models import inference
from pipeline.core.dataset import Split
from pipeline.core.sections import Augmentation
from pipeline.train.augmentation import augmented
from pipeline.train.mixing import mixed

IN_MEMORY = 2**27  # bytes of the images of a split; those of a larger one are read from its file, batch by batch
READERS = 4  # batches that are read side by side
AHEAD = 4  # batches that are ready before they are needed


class TrainingBatches:
    """Training batches, whose order and augmentation depend on the seed and the epoch alone.

    Each epoch can be repeated by itself, so resumed training has the batches of uninterrupted training. `epoch` is the
    variable to set before an epoch is iterated; `steps` is the number of its batches. Images that do not fill a last
    batch are left out of the epoch; the shuffle leaves out others in the next one.
    """

    def __init__(self, split: Split, classes: int, batch_size: int, seed: int, augmentation: Augmentation) -> None:
        size = min(batch_size, len(split.labels))
        self.steps = len(split.labels) // size
        self.epoch = tf.Variable(tf.constant(0, tf.int64), trainable=False)
        labels, count = tf.constant(split.labels), len(split.labels)

        def order(zero: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            """The number of every step since the first epoch, and the indices of its batch."""
            # By Python: under op determinism, TensorFlow prepares no batch ahead in a dataset that reads a variable.
            read: Any = tf.numpy_function(lambda _: self.epoch.numpy(), [zero], tf.int64, stateful=False)
            epoch = tf.ensure_shape(read, ())
            draws = tf.random.stateless_uniform((count,), tf.stack([seed, epoch]))
            shuffled = tf.argsort(draws, stable=True)
            steps = epoch * self.steps + tf.range(self.steps, dtype=tf.int64)
            return steps, tf.reshape(shuffled[: self.steps * size], (self.steps, size))

        def batch(step: tf.Tensor, index: tf.Tensor, images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            pixels = _scaled(images)
            if augmentation.active:
                pixels = augmented(pixels, (size, *split.images.shape[1:]), augmentation, tf.stack([seed, step]))
            targets = tf.one_hot(tf.gather(labels, index), classes)
            if augmentation.mixes:
                pixels, targets = mixed(pixels, targets, augmentation, tf.stack([seed, step]))
            return pixels, targets

        read = _reader(split, size)
        self.dataset = (
            tf.data.Dataset.range(1)
            .map(order)
            .unbatch()
            .map(lambda step, index: (step, index, read(index)), READERS, deterministic=True)
            .map(batch)
            .apply(tf.data.experimental.assert_cardinality(self.steps))
            .prefetch(AHEAD)
        )


def scoring_batches(split: Split, classes: int, batch_size: int) -> tf.data.Dataset:
    """Batches of all images in order, with one-hot labels; those of large images are smaller."""
    labels, read = tf.constant(split.labels), _reader(split, None)

    def batch(index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return _scaled(read(index)), tf.one_hot(tf.gather(labels, index), classes)

    indices = tf.data.Dataset.range(len(split.labels)).batch(inference.batch_size(split.images.shape[1:], batch_size))
    batches = indices.map(batch, READERS, deterministic=True)
    return (batches if _file(split) is not None else batches.cache()).prefetch(AHEAD)


def _file(split: Split) -> np.memmap | None:
    """The mapped file to read the images of a split from; None: they are held in memory."""
    return split.mapped if split.images.nbytes > IN_MEMORY else None


def _reader(split: Split, size: int | None) -> Callable[[tf.Tensor], tf.Tensor]:
    """A function from the indices of a batch to its images."""
    images = _file(split)
    if images is None:
        held = tf.constant(split.images)
        return lambda index: tf.gather(held, index)
    shape, offset, file = images.shape[1:], images.offset, os.open(str(images.filename), os.O_RDONLY)

    def read(index: np.ndarray) -> np.ndarray:
        batch = np.empty((len(index), *shape), np.uint8)
        for place in np.argsort(index):  # in the order of the file
            image = batch[place]
            # Not through the map: where memory is short, each of its pages costs a fault, twenty times the CPU time.
            if os.preadv(file, [image.data], offset + int(index[place]) * image.nbytes) < image.nbytes:
                raise EOFError(f"{images.filename}: ends early")
        return batch

    def batch(index: tf.Tensor) -> tf.Tensor:
        found: Any = tf.numpy_function(read, [index], tf.uint8, stateful=False)
        return tf.ensure_shape(found, (size, *shape))

    weakref.finalize(read, os.close, file)
    return batch


def _scaled(images: tf.Tensor) -> tf.Tensor:
    return tf.cast(images, tf.float32) / 255.0
