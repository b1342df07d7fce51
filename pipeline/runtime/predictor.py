"""Predictions through a function that is compiled once for each network."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import tensorflow as tf

from models import inference

Predict = Callable[[np.ndarray], np.ndarray]


def predictor(model: keras.Model, batch_size: int = inference.BATCH) -> Predict:
    """Compile a function from uint8 images (n, height, width, channels) to float64 probabilities (n, classes).

    Logits are turned into probabilities. The network is traced once, whatever the number of images. Images in a mapped
    file are read batch by batch; batches of large images are smaller.
    """
    size = inference.batch_size(model.input_shape[1:], batch_size)

    @tf.function(input_signature=[tf.TensorSpec(model.input_shape, tf.uint8)])
    def outputs(images: tf.Tensor) -> tf.Tensor:
        return model(tf.cast(images, tf.float32) / 255.0, training=False)

    def predict(images: np.ndarray) -> np.ndarray:
        def batch(start: int) -> np.ndarray:
            return outputs(tf.constant(images[start : start + size])).numpy()

        starts = range(0, len(images), size)
        if len(starts) == 1:
            return inference.normalised(model, batch(0))
        # Side by side: within an operation, TensorFlow may have been given one thread (`runtime.threads`).
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return inference.normalised(model, np.concatenate(list(pool.map(batch, starts))))

    return predict
