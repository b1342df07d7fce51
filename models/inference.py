"""Probabilities predicted by a trained model."""

import math

import keras
import numpy as np
from scipy.special import softmax

BATCH = 500  # images per batch: bounds the memory
VALUES = 2**22  # pixels times channels in a batch, at most: large images come in smaller batches


def batch_size(image: tuple[int, ...], most: int = BATCH) -> int:
    """Images of the shape (height, width, channels) in a batch."""
    return max(1, min(most, VALUES // math.prod(image)))


def probabilities(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """Predict float64 probabilities (n, classes) for images (n, height, width, channels), float32 in [0, 1]."""
    size = batch_size(images.shape[1:])
    parts = [images[start : start + size] for start in range(0, len(images), size)]
    # The set-up of predict() takes longer than the network needs for one image.
    return normalised(model, np.concatenate([model.predict_on_batch(part) for part in parts]))


def normalised(model: keras.Model, outputs: np.ndarray) -> np.ndarray:
    """Convert outputs of shape (n, classes), of softmax or logits, to float64 probabilities."""
    outputs = outputs.astype(np.float64)
    if model.layers[-1].get_config()["activation"] == "softmax":
        return outputs / outputs.sum(axis=1, keepdims=True)
    return softmax(outputs, axis=1)
