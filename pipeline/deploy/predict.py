"""Predictions for pictures, by a registered network or a .keras file."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from models import inference
from pipeline.core import config
from pipeline.core.config import Runtime
from pipeline.core.errors import DataError
from pipeline.core.paths import Paths
from pipeline.deploy import pictures
from pipeline.deploy.model_source import SavedNetwork
from pipeline.runtime import device, saved_model
from pipeline.tracking import registry
from pipeline.tracking.registry import Loaded


@dataclass(frozen=True)
class Prediction:
    """The two most probable classes of one picture."""

    file: str
    label: str
    probability: float
    runner_up: str
    runner_up_probability: float


def predict(files: list[Path], source: SavedNetwork | str, runtime: Runtime, paths: Paths) -> list[Prediction]:
    """Classify pictures; those that cannot be used are reported on stderr and left out.

    Raises:
        DataError: the network does not exist, may not be loaded, or does not fit its dataset.
    """
    device.start(runtime)
    network = registry.load(paths, source) if isinstance(source, str) else _load(source, paths)
    entry = config.load_catalog(paths).get(network.dataset)
    predictions = []
    for file in files:
        with pictures.reporting():
            image = pictures.read(file, network.image, entry.ink if entry else None)
            [probabilities] = network.predict(image[None])
            best, second = probabilities.argsort()[::-1][:2]
            predictions.append(
                Prediction(
                    file=str(file),
                    label=network.classes[best],
                    probability=float(probabilities[best]),
                    runner_up=network.classes[second],
                    runner_up_probability=float(probabilities[second]),
                )
            )
    return predictions


def _load(source: SavedNetwork, paths: Paths) -> Loaded:
    entry = config.load_catalog(paths).get(source.dataset)
    model = saved_model.load(source.file, source.sha256)
    inputs, outputs = model.input_shape[1:], model.output_shape[1:]
    if entry is None or inputs != entry.image or outputs != (len(entry.classes),):
        raise DataError(f"{source.file}: maps {inputs} to {outputs}: not a network for the dataset {source.dataset}")
    return Loaded(partial(inference.probabilities, model), entry.image, source.dataset, entry.classes)
