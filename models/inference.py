"""Probabilities predicted by a trained model."""

import math

import keras
import numpy as np
from scipy.special import softmax

BATCH = 500  # images per batch: bounds the memory
PROBABILITIES = "probabilities"  # the name of the last layer of a network of the user's own code
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


def returns_probabilities(model: keras.Model) -> bool:
    """Return whether the outputs of a network are probabilities rather than logits."""
    last = model.layers[-1]
    return last.name == PROBABILITIES or last.get_config()["activation"] == "softmax"


def classifier(model: keras.Model) -> keras.layers.Dense | None:
    """The dense layer that ends a network, before activations; None if it ends otherwise."""
    for layer in reversed(model.layers):
        if isinstance(layer, keras.layers.Dense):
            return layer
        if not isinstance(layer, keras.layers.Activation | keras.layers.Softmax):
            break
    return None


def normalised(model: keras.Model, outputs: np.ndarray) -> np.ndarray:
    """Convert outputs of shape (n, classes), of softmax or logits, to float64 probabilities."""
    outputs = outputs.astype(np.float64)
    if returns_probabilities(model):
        return outputs / outputs.sum(axis=1, keepdims=True)
    return softmax(outputs, axis=1)
