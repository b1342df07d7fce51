"""Baselines that a network should beat: the majority class, and a linear classifier on pixels.

Both are fitted to training images, and give the same predictions on any number of cores.
"""

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from itertools import product

import numpy as np
import pandas as pd
from sklearn.dummy import DummyClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from pipeline.core.dataset import Split
from pipeline.evaluate import significance
from pipeline.evaluate.scoring import EvaluationData, NetworkScores
from pipeline.evaluate.significance import ALPHA
from pipeline.runtime.predictor import Predict
from pipeline.runtime.scores import scores

MAJORITY, LINEAR = "majority class", "linear classifier"  # names of networks have no spaces
IMAGES = 10_000  # training images at most
SIDE = 32  # height and width at most; larger images are averaged
VALUES = 2**22  # pixels times channels that are averaged at a time, to bound the memory
PREDICTED = 10_000  # images at a time
STRENGTH = 0.1  # inverse of the L2 penalty; on MNIST better than scikit-learn's default of 1
ITERATIONS = 200

Probabilities = Mapping[str, np.ndarray]  # by name of a network or baseline: (n, classes)


@dataclass(frozen=True)
class Measured:
    """The baselines on the validation and test images.

    Attributes:
        table: a row per baseline: baseline, validation_accuracy, accuracy and loss (of the test images).
        comparisons: of every network with every baseline, on the test images.
        unbeaten: network -> the baselines that it does not beat on the validation images; None if it beats both.
    """

    table: pd.DataFrame
    comparisons: pd.DataFrame
    unbeaten: Mapping[str, str | None]


def measure(train: Split, data: EvaluationData, networks: Mapping[str, NetworkScores], seed: int) -> Measured:
    """Fit the baselines to the training images, and compare the networks with them."""
    fitted = fit(train, len(data.info.classes), seed)
    validated = {name: predict(data.validation.images) for name, predict in fitted.items()}
    tested = {name: predict(data.test.images) for name, predict in fitted.items()}
    rows = [
        {
            "baseline": name,
            "validation_accuracy": scores(validated[name], data.validation.labels).accuracy,
            **scores(tested[name], data.test.labels).model_dump(),
        }
        for name in fitted
    ]
    chosen_by = compare({name: each.validation for name, each in networks.items()}, validated, data.validation.labels)
    compared = compare({name: each.probabilities for name, each in networks.items()}, tested, data.test.labels)
    return Measured(pd.DataFrame(rows), compared, {name: unbeaten(chosen_by, name) for name in networks})


def fit(train: Split, classes: int, seed: int) -> dict[str, Predict]:
    """Fit every baseline to the training images.

    The linear classifier takes at most IMAGES of them, a stratified sample drawn with the seed.
    """
    chosen = sample(train.labels, IMAGES, seed)
    images, labels = features(train.images, chosen), train.labels[chosen]
    majority = DummyClassifier(strategy="prior").fit(train.labels, train.labels)
    linear = DummyClassifier(strategy="prior")
    if len(np.unique(labels)) > 1:  # logistic regression refuses a single class
        linear = LogisticRegression(C=STRENGTH, max_iter=ITERATIONS)
    # One thread, since their number determines how sums are rounded.
    with threadpool_limits(1), warnings.catch_warnings(action="ignore", category=ConvergenceWarning):
        linear.fit(images, labels)

    def probabilities(model: DummyClassifier | LogisticRegression, images: np.ndarray) -> np.ndarray:
        found = np.zeros((len(images), classes))
        with threadpool_limits(1):
            for start in range(0, len(images), PREDICTED):
                part = slice(start, start + PREDICTED)
                found[part, model.classes_] = model.predict_proba(features(images[part]))  # an absent class: 0
        return found

    return {MAJORITY: partial(probabilities, majority), LINEAR: partial(probabilities, linear)}


def sample(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Indices of at most `count` images, with the shares of the classes kept."""
    if len(labels) <= count:
        return np.arange(len(labels))
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    return by_class[np.linspace(0, len(labels) - 1, count).round().astype(int)]


def features(images: np.ndarray, chosen: np.ndarray | None = None) -> np.ndarray:
    """Pixels of all or the chosen images, from 0 to 1 as rows; averaged over areas where a side is longer than SIDE."""
    chosen = np.arange(len(images)) if chosen is None else chosen
    size = max(1, VALUES // math.prod(images.shape[1:]))
    parts = [_averaged(images[chosen[start : start + size]]) for start in range(0, len(chosen), size)]
    # In float32, where the solver stops depends on the kernels of BLAS, and the loss differs by 1e-4.
    return np.concatenate(parts).reshape(len(chosen), -1).astype(np.float64)


def compare(networks: Probabilities, baselines: Probabilities, labels: np.ndarray) -> pd.DataFrame:
    """Compare every network with every baseline; columns as in `significance.compare`."""
    classes = {name: each.argmax(axis=1) for name, each in {**networks, **baselines}.items()}
    return significance.compare(classes, labels, list(product(networks, baselines)))


def unbeaten(comparisons: pd.DataFrame, network: str) -> str | None:
    """List the baselines that a network is not significantly better than; None if it beats all of them.

    There is no correction for the number of baselines, since a network has to beat every one of them.
    """
    rows = comparisons[comparisons["a"] == network]
    rows = rows[(rows["p"] >= ALPHA) | (rows["difference"] <= 0)]
    found = zip(rows["b"], rows["difference"], rows["p"], strict=True)
    return ", ".join(f"{b} ({difference:+.2f} pp, p = {p:.2g})" for b, difference, p in found) or None


def _averaged(images: np.ndarray) -> np.ndarray:
    pixels = images.astype(np.float32) / 255
    for axis in (1, 2):
        length = images.shape[axis]
        edges = np.linspace(0, length, min(length, SIDE) + 1).astype(int)
        counts = np.expand_dims(np.diff(edges), tuple({0, 1, 2, 3} - {axis}))
        pixels = np.add.reduceat(pixels, edges[:-1], axis=axis) / counts.astype(np.float32)
    return pixels
