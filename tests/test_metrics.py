"""Classification metrics against cases worked by hand, and against scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, top_k_accuracy_score

from pipeline.evaluate import metrics
from pipeline.runtime.scores import scores

CLASSES = ("cat", "dog", "owl")
PROBABILITIES = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.6, 0.3, 0.1], [0.5, 0.25, 0.25]])
LABELS = np.array([0, 1, 1, 2])  # right, right, a dog taken for a cat, an owl taken for a cat


def test_scores():
    found = scores(PROBABILITIES, LABELS)
    assert found.accuracy == 0.5
    assert found.loss == pytest.approx(-np.log([0.7, 0.8, 0.3, 0.25]).mean())


def test_metrics_by_class():
    found, per_class, confusion = metrics.classification(PROBABILITIES, LABELS, CLASSES)
    assert per_class.to_dict("list") == {
        "class": list(CLASSES),
        "precision": [pytest.approx(1 / 3), 1.0, 0.0],  # owls are never predicted
        "recall": [1.0, 0.5, 0.0],
        "f1": [0.5, pytest.approx(2 / 3), 0.0],
        "support": [1, 2, 1],
    }
    assert found["f1"] == pytest.approx((0.5 + 2 / 3) / 3)
    assert found["precision"] == pytest.approx((1 / 3 + 1) / 3)
    assert confusion.to_numpy().tolist() == [["cat", 1, 0, 0], ["dog", 1, 1, 0], ["owl", 1, 0, 0]]


def test_metrics_agree_with_scikit_learn():
    rng = np.random.default_rng(0)
    probabilities, labels = rng.dirichlet(np.ones(10), 500), rng.integers(0, 10, 500)
    found, _, _ = metrics.classification(probabilities, labels, tuple("0123456789"))
    assert found["brier"] == pytest.approx(brier_score_loss(labels, probabilities, scale_by_half=False))
    assert found["top2"] == top_k_accuracy_score(labels, probabilities, k=2)


def test_two_classes_are_enough():
    found, _, _ = metrics.classification(np.array([[0.9, 0.1], [0.6, 0.4]]), np.array([0, 1]), ("no", "yes"))
    assert found["top2"] == 1
    assert found["brier"] == pytest.approx((2 * 0.1**2 + 2 * 0.6**2) / 2)


def test_wilson_interval():
    z, n, p = 1.959963984540054, 1000, 0.974
    centre, half = p + z**2 / (2 * n), z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    expected = ((centre - half) / (1 + z**2 / n), (centre + half) / (1 + z**2 / n))
    assert metrics.proportion_interval(974, 1000) == pytest.approx(expected)
    low, high = metrics.proportion_interval(50, 50)
    assert (low, high) == (pytest.approx(50 / (50 + z**2)), 1)
