"""Images in, probabilities out, through a function that is compiled once for each network."""

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf
from scipy.special import softmax

BATCH = 500  # images

Predict = Callable[[np.ndarray], np.ndarray]


def predictor(model: keras.Model, batch_size: int = BATCH) -> Predict:
    """A function from uint8 images (n, height, width, channels) to float64 probabilities (n, classes).

    It takes softmax of logits, where the network ends in them. No number of images, and no ragged last batch, traces
    the network a second time.
    """
    ends_in_softmax = model.layers[-1].get_config()["activation"] == "softmax"

    @tf.function(input_signature=[tf.TensorSpec(model.input_shape, tf.uint8)])
    def outputs(images: tf.Tensor) -> tf.Tensor:
        return model(tf.cast(images, tf.float32) / 255.0, training=False)

    def predict(images: np.ndarray) -> np.ndarray:
        batches = [
            outputs(tf.constant(images[start : start + batch_size])).numpy()
            for start in range(0, len(images), batch_size)
        ]
        found = np.concatenate(batches).astype(np.float64)
        return found / found.sum(axis=1, keepdims=True) if ends_in_softmax else softmax(found, axis=1)

    return predict
