"""Losses, weights of classes and the L2 penalty, against their definitions in NumPy."""

from typing import Any

import keras
import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

from pipeline.core import config
from pipeline.train.loss import class_weights, loss

from .conftest import Project
from .test_fit import NETWORK, fitted, network
from .test_optimizer import settings

FROZEN = {"epochs": 1, "learning_rate": 1e-12, "optimizer": "sgd"}


@pytest.mark.parametrize("output", ["softmax", "logits"])
def test_losses_are_those_of_the_definitions(validated: Project, output: str):
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(6, 10)).astype(np.float32), np.eye(10, dtype=np.float32)[[3, 1, 4, 1, 5, 9]]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    right = (probabilities * labels).sum(axis=1)
    expected = {
        ("cross_entropy", None): -np.log(right).mean(),
        ("focal", 2.0): -((1 - right) ** 2 * np.log(right)).mean(),
        ("focal", 0.5): -((1 - right) ** 0.5 * np.log(right)).mean(),
    }
    for (name, gamma), value in expected.items():
        fit = network(validated, loss=name, **{"focal_gamma": gamma} if gamma else {}).fit.model_dump(mode="json")
        built = loss(config.network_from(NETWORK | {"head": {"output": output}, "fit": fit}))
        found = keras.ops.convert_to_numpy(built(labels, logits if output == "logits" else probabilities))
        assert found == pytest.approx(value, rel=1e-5)


def test_balanced_weights_are_those_of_scikit_learn():
    labels = np.array([0, 0, 0, 0, 1, 2, 2])
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    found: Any = class_weights(settings(class_weight="balanced"), "abc", labels)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    named = settings(class_weight={"b": 3.0})
    np.testing.assert_array_equal(class_weights(named, "abc", labels), [1, 3, 1])
    assert class_weights(settings(), "abc", labels) is None


@pytest.mark.parametrize("replicas", [1, 2])
def test_loss_has_weights_and_penalty_and_val_loss_is_the_negative_log_likelihood(validated: Project, replicas: int):
    plain = fitted(validated, FROZEN, replicas=replicas)
    twice = {"class_weight": {str(digit): 2.0 for digit in range(10)}}
    found = fitted(validated, FROZEN | twice | {"l2": 0.01, "label_smoothing": 0.1}, replicas=replicas)
    smooth = fitted(validated, FROZEN | {"label_smoothing": 0.1}, replicas=replicas)
    squares = sum(np.square(values).sum() for values in found.model.get_weights() if values.ndim > 1)
    assert found.history[0]["loss"] == pytest.approx(2 * smooth.history[0]["loss"] + 0.01 * squares, rel=1e-4)
    assert found.history[0].keys() == plain.history[0].keys()
    for metric in ("accuracy", "val_loss", "val_accuracy"):
        assert found.history[0][metric] == pytest.approx(plain.history[0][metric], rel=1e-5)


@pytest.mark.parametrize("replicas", [1, 2])
def test_l2_adds_its_gradient_to_those_of_kernels(validated: Project, replicas: int):
    step = {"epochs": 1, "batch_size": 1000, "learning_rate": 0.01, "optimizer": "sgd", "schedule": "constant"}
    initial = fitted(validated, FROZEN, replicas=replicas).model.get_weights()
    free, bound = (fitted(validated, step | {"l2": l2}, replicas=replicas).model.get_weights() for l2 in (0.0, 0.5))
    for before, ours, theirs in zip(initial, bound, free, strict=True):
        expected = 1.9 * 0.01 * 2 * 0.5 * before if before.ndim > 1 else 0 * before  # Nesterov's first step: 1.9
        np.testing.assert_allclose(theirs - ours, expected, atol=1e-6)
