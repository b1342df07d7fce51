"""One network on the test images: all that is found out about it by itself."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from pipeline import calibration, cost, metrics
from pipeline.dataset import Split
from pipeline.metrics import Evaluation
from pipeline.prediction import Predict


@dataclass(frozen=True)
class Scored:
    """Test images: `probabilities` of shape (n, classes), what they are worth, and what they cost.

    `figures` are those of the evaluation and of the calibration; `reliability` is as calibration has it, `cost` as cost
    has it.
    """

    probabilities: np.ndarray
    figures: dict[str, float]
    evaluation: Evaluation
    reliability: pd.DataFrame
    cost: dict[str, float]


def score(predict: Predict, test: Split, validation: Split, classes: tuple[str, ...], device: str) -> Scored:
    """Score the test images; the validation images serve to fit a temperature."""
    probabilities = predict(test.images)
    evaluation = metrics.evaluate(probabilities, test.labels, classes)
    calibrated = calibration.evaluate(probabilities, test.labels, predict(validation.images), validation.labels)
    return Scored(
        probabilities,
        evaluation.figures | calibrated.figures,
        evaluation,
        calibrated.reliability,
        cost.measure(predict, test.images, device),
    )
