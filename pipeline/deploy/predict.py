"""Predictions for pictures, by a registered network or a .keras file."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.core.paths import Paths
from pipeline.core.sections import Runtime
from pipeline.deploy import network, pictures
from pipeline.deploy.classifier import Classifier
from pipeline.deploy.model_source import SavedNetwork
from pipeline.deploy.network import Identity
from pipeline.runtime import device


@dataclass(frozen=True)
class Prediction:
    """The two most probable classes of one picture, and warnings about it."""

    file: str
    label: str
    probability: float
    runner_up: str
    runner_up_probability: float
    warnings: list[str]


@dataclass(frozen=True)
class Predictions:
    """The network that answered, and its predictions."""

    network: Identity
    predictions: list[Prediction]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def predict(files: list[Path], source: SavedNetwork | str, runtime: Runtime, paths: Paths) -> Predictions:
    """Classify pictures; those that cannot be used are reported on stderr and left out.

    Raises:
        DataError: the network does not exist, may not be loaded, or does not fit its dataset.
    """
    device.start(runtime)
    loaded = network.load(source, paths)
    classifier, classes = Classifier(loaded), loaded.entry.classes
    predictions = []
    for file in files:
        with pictures.reporting():
            found = classifier.classify(pictures.read(file, loaded.entry.image, loaded.entry.ink))
            best, second = found.probabilities.argsort()[::-1][:2]
            predictions.append(
                Prediction(
                    file=str(file),
                    label=classes[best],
                    probability=float(found.probabilities[best]),
                    runner_up=classes[second],
                    runner_up_probability=float(found.probabilities[second]),
                    warnings=found.warnings,
                )
            )
    return Predictions(loaded.identity, predictions)
