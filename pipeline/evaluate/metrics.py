"""Classification metrics: probabilities of shape (n, classes) against labels of shape (n,)."""

import numpy as np
import pandas as pd
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from pipeline.runtime.scores import scores


def classification(
    probabilities: np.ndarray, labels: np.ndarray, classes: tuple[str, ...]
) -> tuple[dict[str, float], pd.DataFrame, pd.DataFrame]:
    """Measure accuracy with its 95 % interval, loss, top-2 accuracy, Brier score, and precision, recall and F1.

    Returns:
        Metrics, with means over the classes of precision, recall and F1, where a class that is never predicted has
        precision 0; a row per class: class, precision, recall, f1, support; and the confusion matrix: a row per actual
        class, named in the column `actual`, and a column of counts per predicted class.
    """
    predicted, every = probabilities.argmax(axis=1), range(len(classes))
    low, high = proportion_interval(int((predicted == labels).sum()), len(labels))
    precision, recall, f1, support = precision_recall_fscore_support(labels, predicted, labels=every, zero_division=0)
    names = np.array(classes)
    confusion = pd.DataFrame(confusion_matrix(labels, predicted, labels=every), columns=names)
    confusion.insert(0, "actual", names)
    metrics = scores(probabilities, labels).model_dump() | {
        "accuracy_low": low,
        "accuracy_high": high,
        "top2": top_accuracy(probabilities, labels, 2),
        "brier": brier(probabilities, labels),
        "precision": float(precision.mean()),
        "recall": float(recall.mean()),
        "f1": float(f1.mean()),
    }
    columns = {"class": names, "precision": precision, "recall": recall, "f1": f1, "support": support}
    return metrics, pd.DataFrame(columns), confusion


def proportion_interval(successes: int, trials: int) -> tuple[float, float]:
    """Wilson's 95 % score interval of a proportion (Wilson 1927; Brown, Cai and DasGupta 2001)."""
    interval = binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


def brier(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean squared distance between probabilities and one-hot labels, summed over the classes: 0 to 2 (Brier 1950)."""
    truth = np.eye(probabilities.shape[1])[labels]
    return float(((probabilities - truth) ** 2).sum(axis=1).mean())


def top_accuracy(probabilities: np.ndarray, labels: np.ndarray, k: int) -> float:
    """Share of images whose class is among the k most probable ones."""
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
    return float((best == labels[:, None]).any(axis=1).mean())
