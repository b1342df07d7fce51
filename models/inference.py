"""Images -> probabilities, by a trained network."""

import keras
import numpy as np
from scipy.special import softmax

BATCH = 500  # images computed at a time: bounds the memory, whatever is asked for at once


def probabilities(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """Probabilities of shape (n, classes), float64; images of shape (n, height, width, channels), float32 in [0, 1]."""
    parts = [images[start : start + BATCH] for start in range(0, len(images), BATCH)]
    # Not predict(): what it sets up for a whole data set takes longer than the network does for one image.
    return normalised(model, np.concatenate([model.predict_on_batch(part) for part in parts]))


def normalised(model: keras.Model, outputs: np.ndarray) -> np.ndarray:
    """Outputs of shape (n, classes) as probabilities in float64, whether the network ends in softmax or in logits."""
    outputs = outputs.astype(np.float64)
    if model.layers[-1].get_config()["activation"] == "softmax":
        return outputs / outputs.sum(axis=1, keepdims=True)
    return softmax(outputs, axis=1)
