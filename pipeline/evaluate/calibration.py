"""Calibration metrics: probabilities of shape (n, classes) against labels of shape (n,).

The confidence of a prediction is the probability of the predicted class.
"""

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from scipy.stats import rankdata
from sklearn.metrics import roc_auc_score

BINS = 15
TEMPERATURES = (0.05, 20.0)  # bounds of the fit: flawless predictions would have temperature 0


def calibrate(
    probabilities: np.ndarray, labels: np.ndarray, validation: np.ndarray, validation_labels: np.ndarray
) -> tuple[dict[str, float], pd.DataFrame]:
    """Measure calibration on test images, before and after temperature scaling fitted on validation images.

    Returns:
        Metrics, and a row for each bin that is not empty: lower, upper, count, mean confidence and accuracy.

    ece, ece_equal_mass: expected calibration error in bins of equal width, of equal numbers of images; temperature;
    loss_calibrated, ece_calibrated: at that temperature; error_confidence_mean, _median, _p90: confidence of the wrong
    predictions; error_auroc: error detection by low confidence (Hendrycks and Gimpel 2017). Metrics of wrong
    predictions are omitted if there are none, and error_auroc if there are no right ones.
    """
    fitted = temperature(validation, validation_labels)
    confidence, correct = confidences(probabilities, labels)
    binned = bins(confidence, correct, equal_width(confidence))
    edges = np.linspace(0, 1, BINS + 1)
    binned.insert(0, "lower", edges[binned.index])
    binned.insert(1, "upper", edges[binned.index + 1])
    metrics = {
        "ece": calibration_error(binned),
        "ece_equal_mass": calibration_error(bins(confidence, correct, equal_mass(confidence))),
        "temperature": fitted,
        "loss_calibrated": _loss(_logits(probabilities) / fitted, labels),
        "ece_calibrated": expected_calibration_error(at_temperature(probabilities, fitted), labels),
    }
    return metrics | _error_metrics(confidence, correct), binned.reset_index(drop=True)


def confidences(probabilities: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Confidence of each prediction, and its correctness; both of shape (n,)."""
    return probabilities.max(axis=1), probabilities.argmax(axis=1) == labels


def expected_calibration_error(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean distance between confidence and accuracy in bins of equal width (Guo et al. 2017, 1706.04599)."""
    confidence, correct = confidences(probabilities, labels)
    return calibration_error(bins(confidence, correct, equal_width(confidence)))


def equal_width(confidence: np.ndarray) -> np.ndarray:
    """The bin of each prediction, from 0: bin i holds confidences above i / BINS, up to (i + 1) / BINS."""
    return np.digitize(confidence, np.linspace(0, 1, BINS + 1)[1:-1], right=True)


def equal_mass(confidence: np.ndarray) -> np.ndarray:
    """The bin of each prediction, from 0, in bins of equally many predictions (Nixon et al. 2019, 1904.01685).

    Predictions of equal confidence, mostly 1, share a bin: otherwise the order of the images would change the result.
    """
    return ((rankdata(confidence) - 0.5) / len(confidence) * BINS).astype(int)


def bins(confidence: np.ndarray, correct: np.ndarray, number: np.ndarray) -> pd.DataFrame:
    """Count, mean confidence and accuracy of the predictions of each bin, by its number."""
    grouped = pd.DataFrame({"confidence": confidence, "accuracy": correct.astype(float)}).groupby(number)
    binned = grouped.mean()
    binned.insert(0, "count", grouped.size())
    return binned


def calibration_error(binned: pd.DataFrame) -> float:
    """Mean distance between confidence and accuracy over the bins, weighted by their counts."""
    return float(np.average((binned["accuracy"] - binned["confidence"]).abs(), weights=binned["count"]))


def temperature(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The divisor of the logits that minimizes the loss (Guo et al. 2017); above 1, the network is overconfident."""
    logits = _logits(probabilities)
    low, high = np.log(TEMPERATURES)
    best = minimize_scalar(lambda log: _loss(logits / np.exp(log), labels), bounds=(low, high), method="bounded")
    return float(np.exp(best.x))


def at_temperature(probabilities: np.ndarray, value: float) -> np.ndarray:
    """Probabilities after division of their logits by a temperature."""
    return softmax(_logits(probabilities) / value, axis=1)


def _logits(probabilities: np.ndarray) -> np.ndarray:
    # Logarithms of probabilities are logits up to a constant per image. A probability of 0 has underflowed; it is
    # clipped as in scikit-learn's log_loss.
    return np.log(np.maximum(probabilities, np.finfo(probabilities.dtype).eps))


def _loss(logits: np.ndarray, labels: np.ndarray) -> float:
    return float(-log_softmax(logits, axis=1)[np.arange(len(labels)), labels].mean())


def _error_metrics(confidence: np.ndarray, correct: np.ndarray) -> dict[str, float]:
    of_errors = confidence[~correct]
    if not len(of_errors):
        return {}
    metrics = {
        "error_confidence_mean": float(of_errors.mean()),
        "error_confidence_median": float(np.median(of_errors)),
        "error_confidence_p90": float(np.quantile(of_errors, 0.9)),
    }
    return metrics | ({"error_auroc": float(roc_auc_score(correct, confidence))} if correct.any() else {})
