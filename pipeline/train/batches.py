"""Batches of images: shuffled and augmented for training, in order for scoring."""

import tensorflow as tf

from pipeline.core.dataset import Split
from pipeline.core.sections import Augmentation
from pipeline.train.augmentation import augmented


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
        images, labels = tf.constant(split.images), tf.constant(split.labels)
        count = len(split.labels)

        def order(_: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            """The number of every step since the first epoch, and the indices of its batch."""
            draws = tf.random.stateless_uniform((count,), tf.stack([seed, self.epoch]))
            shuffled = tf.argsort(draws, stable=True)
            steps = self.epoch * self.steps + tf.range(self.steps, dtype=tf.int64)
            return steps, tf.reshape(shuffled[: self.steps * size], (self.steps, size))

        def batch(step: tf.Tensor, index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            pixels = _scaled(tf.gather(images, index))
            if augmentation.active:
                pixels = augmented(pixels, (size, *split.images.shape[1:]), augmentation, tf.stack([seed, step]))
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
    """Batches of all images in order, with one-hot labels."""
    return (
        tf.data.Dataset.from_tensor_slices((split.images, split.labels))
        .batch(batch_size)
        .map(lambda images, labels: (_scaled(images), tf.one_hot(labels, classes)))
        .cache()
        .prefetch(tf.data.AUTOTUNE)
    )


def _scaled(images: tf.Tensor) -> tf.Tensor:
    return tf.cast(images, tf.float32) / 255.0
