"""What MLflow loads a logged network with. It travels with the network, beside `models`, and needs no project.

Requests that a network cannot answer are refused with a message, which MLflow's server answers with the status 400.
"""

import keras
import numpy as np
from mlflow.exceptions import MlflowException

import models.pooling  # noqa: F401  a network with layers of its own loads where these are known
from models import inference


class Served:
    """A network behind MLflow's `predict`."""

    def __init__(self, model: keras.Model) -> None:
        self._model = model
        for count in (1, 2):  # compiles the graph for any number of images, before the first request has to wait for it
            self.predict(np.zeros((count, *model.input_shape[1:]), np.float32))

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Images of shape (n, height, width, channels), float32 in [0, 1] -> probabilities of shape (n, classes).

        Raises:
            MlflowException: there are none, their shape is another one, or a value is not in [0, 1].
        """
        expected = self._model.input_shape[1:]
        if images.ndim != 1 + len(expected) or images.shape[1:] != expected:
            raise _refusal(f"the images have the shape {images.shape}; allowed: (n, {', '.join(map(str, expected))})")
        if not len(images):
            raise _refusal("there are no images")
        if np.isnan(images).any():
            raise _refusal("some values of the images are not numbers")
        low, high = float(images.min()), float(images.max())
        if low < 0 or high > 1:
            raise _refusal(f"the values of the images range from {low:g} to {high:g}; allowed: 0 to 1")
        return inference.probabilities(self._model, images).astype(np.float32)


def _refusal(message: str) -> MlflowException:
    return MlflowException.invalid_parameter_value(message)


def _load_pyfunc(path: str) -> Served:
    return Served(keras.saving.load_model(path, compile=False, safe_mode=True))
