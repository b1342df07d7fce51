"""Scores of one network on the test images."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from pipeline.core.dataset import DatasetInfo, Split
from pipeline.evaluate import cost
from pipeline.evaluate.calibration import calibrate
from pipeline.evaluate.metrics import classification
from pipeline.runtime.predictor import Predict


@dataclass(frozen=True)
class EvaluationData:
    """The images that networks are measured on; `other` are images of another dataset, if there is one."""

    info: DatasetInfo
    test: Split
    validation: Split
    other: np.ndarray | None


@dataclass(frozen=True)
class NetworkScores:
    """Probabilities of the test and validation images, (n, classes), and metrics and tables of the test images.

    `per_class` and `confusion` are described in metrics.py, `reliability` in calibration.py, `cost` in cost.py.
    """

    probabilities: np.ndarray
    validation: np.ndarray
    metrics: dict[str, float]
    per_class: pd.DataFrame
    confusion: pd.DataFrame
    reliability: pd.DataFrame
    cost: dict[str, float]


def score(predict: Predict, data: EvaluationData, device: str) -> NetworkScores:
    """Score the test images; the validation images serve to fit a temperature. `device` is cpu or gpu."""
    test, labels = data.test, data.validation.labels
    probabilities, validation = predict(test.images), predict(data.validation.images)
    metrics, per_class, confusion = classification(probabilities, test.labels, data.info.classes)
    calibration, reliability = calibrate(probabilities, test.labels, validation, labels)
    return NetworkScores(
        probabilities,
        validation,
        metrics | calibration,
        per_class,
        confusion,
        reliability,
        cost.measure(predict, test.images, device),
    )
