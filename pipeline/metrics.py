"""Figures of a network's predictions: probabilities of shape (n, classes) against labels of shape (n,).

scikit-learn and SciPy's statistics are loaded where they are used: they take most of a second, and training, which
needs `scores` alone, goes without.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd


def scores(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """accuracy, and loss: the mean negative log-likelihood in nats, of probabilities of at least float64's epsilon."""
    of_truth = np.take_along_axis(probabilities, labels[:, None], axis=1)
    return {
        "accuracy": float((probabilities.argmax(axis=1) == labels).mean()),
        "loss": float(-np.log(np.maximum(of_truth, np.finfo(np.float64).eps)).mean()),
    }


def proportion_interval(successes: int, trials: int) -> tuple[float, float]:
    """The 95 % interval of a proportion by Wilson's score (Wilson 1927; Brown, Cai and DasGupta 2001)."""
    from scipy.stats import binomtest

    interval = binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


def brier(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The mean squared distance of the probabilities from the truth, summed over the classes: 0 to 2 (Brier 1950)."""
    truth = np.eye(probabilities.shape[1])[labels]
    return float(((probabilities - truth) ** 2).sum(axis=1).mean())


def top_accuracy(probabilities: np.ndarray, labels: np.ndarray, k: int) -> float:
    """The share of images whose class is among the k most probable ones."""
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
    return float((best == labels[:, None]).any(axis=1).mean())


@dataclass(frozen=True)
class Evaluation:
    """What a network's predictions are worth.

    `figures`: accuracy with its 95 % interval, loss, Brier score, top-2 accuracy, and precision, recall and f1 as means
    over the classes. `per_class`: a row per class. `confusion`: counts, a row per actual and a column per predicted
    class. `answers`: actual and predicted class of every image.
    """

    figures: dict[str, float]
    per_class: pd.DataFrame
    confusion: pd.DataFrame
    answers: pd.DataFrame


def evaluate(probabilities: np.ndarray, labels: np.ndarray, classes: tuple[str, ...]) -> Evaluation:
    """Compare predictions with the truth. A class that is never predicted has precision 0."""
    from sklearn import metrics

    predicted, every = probabilities.argmax(axis=1), range(len(classes))
    low, high = proportion_interval(int((predicted == labels).sum()), len(labels))
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        labels, predicted, labels=every, zero_division=0
    )
    names = np.array(classes)
    confusion = pd.DataFrame(metrics.confusion_matrix(labels, predicted, labels=every), columns=names)
    confusion.insert(0, "actual", names)
    return Evaluation(
        figures=scores(probabilities, labels)
        | {
            "accuracy_low": low,
            "accuracy_high": high,
            "top2": top_accuracy(probabilities, labels, 2),
            "brier": brier(probabilities, labels),
            "precision": float(precision.mean()),
            "recall": float(recall.mean()),
            "f1": float(f1.mean()),
        },
        per_class=pd.DataFrame(
            {"class": names, "precision": precision, "recall": recall, "f1": f1, "support": support}
        ),
        confusion=confusion,
        answers=pd.DataFrame({"actual": names[labels], "predicted": names[predicted]}),
    )
