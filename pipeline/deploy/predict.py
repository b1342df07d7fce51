"""Predictions for pictures, by a registered network or a .keras file."""

from dataclasses import dataclass
from pathlib import Path

from pipeline.core.config import Runtime
from pipeline.core.paths import Paths
from pipeline.deploy import network, pictures
from pipeline.deploy.model_source import SavedNetwork
from pipeline.runtime import device


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
    loaded = network.load(source, paths)
    predictions = []
    for file in files:
        with pictures.reporting():
            image = pictures.read(file, loaded.entry.image, loaded.entry.ink)
            [probabilities] = loaded.predict(image[None])
            best, second = probabilities.argsort()[::-1][:2]
            predictions.append(
                Prediction(
                    file=str(file),
                    label=loaded.entry.classes[best],
                    probability=float(probabilities[best]),
                    runner_up=loaded.entry.classes[second],
                    runner_up_probability=float(probabilities[second]),
                )
            )
    return predictions
