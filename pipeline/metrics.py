"""Figures of a network's predictions: probabilities of shape (n, classes) against labels of shape (n,)."""

from dataclasses import dataclass

import keras
import numpy as np
import pandas as pd
import tensorflow as tf
from sklearn import metrics

from models import inference


def predict(model: keras.Model, batches: tf.data.Dataset) -> np.ndarray:
    """Probabilities as float64, whether the network ends in softmax or in logits."""
    return inference.normalised(model, model.predict(batches, verbose=0))


def scores(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """accuracy, and loss: the mean negative log-likelihood in nats."""
    return {
        "accuracy": float(metrics.accuracy_score(labels, probabilities.argmax(axis=1))),
        "loss": float(metrics.log_loss(labels, probabilities, labels=range(probabilities.shape[1]))),
    }


@dataclass(frozen=True)
class Evaluation:
    """What a network's predictions are worth.

    `figures`: accuracy, loss, and precision, recall and f1 as means over the classes. `per_class`: a row per class.
    `confusion`: counts, a row per actual and a column per predicted class. `answers`: actual and predicted class of
    every image.
    """

    figures: dict[str, float]
    per_class: pd.DataFrame
    confusion: pd.DataFrame
    answers: pd.DataFrame


def evaluate(probabilities: np.ndarray, labels: np.ndarray, classes: tuple[str, ...]) -> Evaluation:
    """Compare predictions with the truth. A class that is never predicted has precision 0."""
    predicted, every = probabilities.argmax(axis=1), range(len(classes))
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        labels, predicted, labels=every, zero_division=0
    )
    macro = {"precision": float(precision.mean()), "recall": float(recall.mean()), "f1": float(f1.mean())}
    names = np.array(classes)
    confusion = pd.DataFrame(metrics.confusion_matrix(labels, predicted, labels=every), columns=names)
    confusion.insert(0, "actual", names)
    return Evaluation(
        figures=scores(probabilities, labels) | macro,
        per_class=pd.DataFrame(
            {"class": names, "precision": precision, "recall": recall, "f1": f1, "support": support}
        ),
        confusion=confusion,
        answers=pd.DataFrame({"actual": names[labels], "predicted": names[predicted]}),
    )
