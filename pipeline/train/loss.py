"""The configured loss: cross-entropy or focal loss, weights of the classes, and the L2 penalty."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from pipeline.core.config import AnyNetwork
from pipeline.core.sections import Fit
from pipeline.train.optimizer import is_kernel

LIKELIHOOD = "likelihood"  # the name of the metric that Likelihood reports as val_loss


def loss(network: AnyNetwork) -> keras.losses.Loss:
    """The loss to minimise, of one-hot labels."""
    settings = network.fit
    options: Any = {"from_logits": network.output == "logits", "label_smoothing": settings.label_smoothing}
    if settings.loss == "focal":
        return keras.losses.CategoricalFocalCrossentropy(alpha=1.0, gamma=settings.focal_gamma, **options)
    return keras.losses.CategoricalCrossentropy(**options)


def metrics(network: AnyNetwork) -> list[keras.metrics.Metric]:
    """The metrics of each epoch, beside the loss."""
    found: list[keras.metrics.Metric] = [keras.metrics.CategoricalAccuracy(name="accuracy")]
    if is_modified(network.fit):
        logits = network.output == "logits"
        found.append(keras.metrics.CategoricalCrossentropy(LIKELIHOOD, from_logits=logits))
    return found


def is_modified(settings: Fit) -> bool:
    """Return whether the loss on validation images would differ from their mean negative log-likelihood."""
    return bool(settings.label_smoothing or settings.l2 or settings.loss != "cross_entropy")


class Likelihood(keras.callbacks.Callback):
    """Makes val_loss the mean negative log-likelihood; to be called before the callbacks that read it.

    So networks that are trained with different losses compare, in early stopping, searches and reports.
    """

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        if logs and logs.pop(LIKELIHOOD, None) is not None:
            logs["val_loss"] = logs.pop(f"val_{LIKELIHOOD}")


def penalize(model: keras.Model, l2: float) -> None:
    """Add `l2` times the sum of squares of all kernels to the loss of training."""
    if l2:
        for variable in filter(is_kernel, model.trainable_variables):
            variable.regularizer = keras.regularizers.L2(l2)


def class_weights(settings: Fit, classes: Sequence[str], labels: np.ndarray) -> np.ndarray | None:
    """The weight of each class in the loss; None: all are 1.

    Balanced weights are inverse to the number of training images, with a mean of 1 over the images.
    """
    if settings.class_weight is None:
        return None
    if isinstance(settings.class_weight, dict):
        return np.array([settings.class_weight.get(name, 1.0) for name in classes], np.float32)
    counts = np.bincount(labels, minlength=len(classes))
    return (len(labels) / (np.count_nonzero(counts) * np.maximum(counts, 1))).astype(np.float32)


def weighted(batches: tf.data.Dataset, weights: np.ndarray | None) -> tf.data.Dataset:
    """Batches with the weight of each image: that of its class, or the mean of those that it is mixed from."""
    if weights is None:
        return batches
    return batches.map(lambda images, labels: (images, labels, tf.linalg.matvec(labels, weights)))
