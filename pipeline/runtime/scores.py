"""Accuracy and loss of predictions."""

import numpy as np

from pipeline.core.records import Scores


def scores(probabilities: np.ndarray, labels: np.ndarray) -> Scores:
    """Score probabilities of shape (n, classes) against labels of shape (n,).

    The loss is the mean negative log-likelihood in nats, with probabilities clipped below at float64's epsilon.
    """
    of_truth = np.take_along_axis(probabilities, labels[:, None], axis=1)
    return Scores(
        accuracy=float((probabilities.argmax(axis=1) == labels).mean()),
        loss=float(-np.log(np.maximum(of_truth, np.finfo(np.float64).eps)).mean()),
    )
