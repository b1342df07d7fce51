"""Whether a network is right as often as it says: probabilities of shape (n, classes) against labels of shape (n,).

The confidence of an answer is the probability that the network gives to it.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from scipy.stats import rankdata
from sklearn.metrics import roc_auc_score

BINS = 15
TEMPERATURES = (0.05, 20.0)  # the range in which one is looked for: that of a perfect answer would be 0


@dataclass(frozen=True)
class Calibration:
    """`figures` are those of `evaluate`; `reliability` has a row for each bin of confidence that is not empty.

    Its columns: lower and upper bound, count, mean confidence, accuracy.
    """

    figures: dict[str, float]
    reliability: pd.DataFrame


def evaluate(
    probabilities: np.ndarray, labels: np.ndarray, validation: np.ndarray, validation_labels: np.ndarray
) -> Calibration:
    """Figures on test images, and what a temperature fitted on validation images makes of them.

    ece, ece_equal_mass: expected calibration error in bins of equal width, of equal numbers of images; temperature;
    loss_calibrated, ece_calibrated: at that temperature; error_confidence_mean, _median, _p90: of the wrong answers;
    error_auroc: how well low confidence tells wrong answers from right ones (Hendrycks and Gimpel 2017). What needs a
    wrong answer is left out where there is none, and error_auroc where there is no right one.
    """
    found = temperature(validation, validation_labels)
    confidence, correct = answers(probabilities, labels)
    binned = bins(confidence, correct, equal_width(confidence))
    edges = np.linspace(0, 1, BINS + 1)
    binned.insert(0, "lower", edges[binned.index])
    binned.insert(1, "upper", edges[binned.index + 1])
    figures = {
        "ece": calibration_error(binned),
        "ece_equal_mass": calibration_error(bins(confidence, correct, equal_mass(confidence))),
        "temperature": found,
        "loss_calibrated": _loss(_logits(probabilities) / found, labels),
        "ece_calibrated": expected_calibration_error(at_temperature(probabilities, found), labels),
    }
    return Calibration(figures | _errors(confidence, correct), binned.reset_index(drop=True))


def answers(probabilities: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Confidence of each answer, and whether it is right; both of shape (n,)."""
    return probabilities.max(axis=1), probabilities.argmax(axis=1) == labels


def expected_calibration_error(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The mean distance of confidence and accuracy, in bins of equal width (Guo et al. 2017, 1706.04599)."""
    confidence, correct = answers(probabilities, labels)
    return calibration_error(bins(confidence, correct, equal_width(confidence)))


def equal_width(confidence: np.ndarray) -> np.ndarray:
    """The bin of each answer, from 0: bin i holds confidences above i / BINS, up to (i + 1) / BINS."""
    return np.digitize(confidence, np.linspace(0, 1, BINS + 1)[1:-1], right=True)


def equal_mass(confidence: np.ndarray) -> np.ndarray:
    """The bin of each answer, from 0, where all bins hold equally many answers (Nixon et al. 2019, 1904.01685).

    Answers of equal confidence, at 1 for the most part, share a bin: else the order of the images would count.
    """
    return ((rankdata(confidence) - 0.5) / len(confidence) * BINS).astype(int)


def bins(confidence: np.ndarray, correct: np.ndarray, number: np.ndarray) -> pd.DataFrame:
    """count, mean confidence and accuracy of the answers of each bin, by its number."""
    grouped = pd.DataFrame({"confidence": confidence, "accuracy": correct.astype(float)}).groupby(number)
    binned = grouped.mean()
    binned.insert(0, "count", grouped.size())
    return binned


def calibration_error(binned: pd.DataFrame) -> float:
    """The distance of confidence and accuracy, as mean over the bins, weighted by their counts."""
    return float(np.average((binned["accuracy"] - binned["confidence"]).abs(), weights=binned["count"]))


def temperature(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """What to divide the logits by so that the loss is least (Guo et al. 2017); over 1: the network is too sure."""
    logits = _logits(probabilities)
    low, high = np.log(TEMPERATURES)
    best = minimize_scalar(lambda log: _loss(logits / np.exp(log), labels), bounds=(low, high), method="bounded")
    return float(np.exp(best.x))


def at_temperature(probabilities: np.ndarray, value: float) -> np.ndarray:
    """The probabilities with their logits divided by a temperature."""
    return softmax(_logits(probabilities) / value, axis=1)


def _logits(probabilities: np.ndarray) -> np.ndarray:
    # Logarithms of probabilities are logits up to a constant per image. A probability of 0 is one too small to write;
    # the bound is that of scikit-learn's log_loss.
    return np.log(np.maximum(probabilities, np.finfo(probabilities.dtype).eps))


def _loss(logits: np.ndarray, labels: np.ndarray) -> float:
    return float(-log_softmax(logits, axis=1)[np.arange(len(labels)), labels].mean())


def _errors(confidence: np.ndarray, correct: np.ndarray) -> dict[str, float]:
    of_errors = confidence[~correct]
    if not len(of_errors):
        return {}
    figures = {
        "error_confidence_mean": float(of_errors.mean()),
        "error_confidence_median": float(np.median(of_errors)),
        "error_confidence_p90": float(np.quantile(of_errors, 0.9)),
    }
    return figures | ({"error_auroc": float(roc_auc_score(correct, confidence))} if correct.any() else {})
