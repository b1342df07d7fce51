"""A trained network, loaded for use. Code that a model in the registry brings with it is never run."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from models import inference
from pipeline.core import config
from pipeline.core.catalog import Entry
from pipeline.core.errors import DataError
from pipeline.core.paths import Paths
from pipeline.deploy.model_source import SavedNetwork
from pipeline.runtime import saved_model
from pipeline.tracking import registered


@dataclass(frozen=True)
class LoadedNetwork:
    """A network, and the catalogue's entry of the dataset that it classifies."""

    model: keras.Model
    entry: Entry

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Predict float64 probabilities (n, classes) for images (n, height, width, channels), float32 in [0, 1]."""
        return inference.probabilities(self.model, images)


def load(source: SavedNetwork | str, paths: Paths) -> LoadedNetwork:
    """Load a saved network, or that of a registered version, if its SHA-256 is the known one.

    Raises:
        DataError: the network does not exist, may not be loaded, or does not fit its dataset.
    """
    if isinstance(source, SavedNetwork):
        return _load(source.file, source.sha256, source.dataset, paths)
    with tempfile.TemporaryDirectory() as folder:
        found = registered.download(paths, source, Path(folder))
        return _load(found.file, found.sha256, found.dataset, paths)


def _load(file: Path, sha256: str, dataset: str, paths: Paths) -> LoadedNetwork:
    entry = config.load_catalog(paths).get(dataset)
    model = saved_model.load(file, sha256)
    inputs, outputs = model.input_shape[1:], model.output_shape[1:]
    if entry is None or inputs != entry.image or outputs != (len(entry.classes),):
        raise DataError(f"{file}: maps {inputs} to {outputs}: not a network for the dataset {dataset}")
    return LoadedNetwork(model, entry)
