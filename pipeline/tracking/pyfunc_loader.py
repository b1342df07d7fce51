"""The loader of a logged network. It is logged with the network and the package `models`, and needs nothing else here.

Invalid inputs raise an MlflowException, for which MLflow's server responds with status 400.
"""

from pathlib import Path

import keras
import numpy as np
from mlflow.exceptions import MlflowException

import models.pooling  # noqa: F401  registers the layers that Keras needs to load a network
from models import inference
from models.own_code import FOLDER, OwnCode


class ServedNetwork:
    """A network with the method that MLflow calls."""

    def __init__(self, model: keras.Model) -> None:
        self._model = model
        for count in (1, 2):  # traces the graph for any number of images before the first request
            self.predict(np.zeros((count, *model.input_shape[1:]), np.float32))

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Predict probabilities (n, classes) for images (n, height, width, channels), float32 in [0, 1].

        Raises:
            MlflowException: there are no images, their shape is wrong, or a value is not in [0, 1].
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


def _load_pyfunc(path: str) -> ServedNetwork:
    for file in sorted((Path(__file__).parent / FOLDER).glob("*.py")):  # the layers of the user's own code
        OwnCode(file.name, file.read_bytes()).load()
    return ServedNetwork(keras.saving.load_model(path, compile=False, safe_mode=True))
