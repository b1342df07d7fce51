"""Predictions through a function that is compiled once for each network."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import tensorflow as tf

from models import inference

BATCH = 500  # images

Predict = Callable[[np.ndarray], np.ndarray]


def predictor(model: keras.Model, batch_size: int = BATCH) -> Predict:
    """Compile a function from uint8 images (n, height, width, channels) to float64 probabilities (n, classes).

    Logits are turned into probabilities. The network is traced once, whatever the number of images.
    """

    @tf.function(input_signature=[tf.TensorSpec(model.input_shape, tf.uint8)])
    def outputs(images: tf.Tensor) -> tf.Tensor:
        return model(tf.cast(images, tf.float32) / 255.0, training=False)

    def predict(images: np.ndarray) -> np.ndarray:
        def batch(start: int) -> np.ndarray:
            return outputs(tf.constant(images[start : start + batch_size])).numpy()

        starts = range(0, len(images), batch_size)
        if len(starts) == 1:
            return inference.normalised(model, batch(0))
        # Side by side: within an operation, TensorFlow may have been given one thread (`runtime.threads`).
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return inference.normalised(model, np.concatenate(list(pool.map(batch, starts))))

    return predict
