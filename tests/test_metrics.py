"""Figures against cases worked by hand."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from pipeline import metrics

CLASSES = ("cat", "dog", "owl")
PROBABILITIES = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.6, 0.3, 0.1], [0.5, 0.25, 0.25]])
LABELS = np.array([0, 1, 1, 2])  # right, right, a dog taken for a cat, an owl taken for a cat


def test_scores():
    found = metrics.scores(PROBABILITIES, LABELS)
    assert found["accuracy"] == 0.5
    assert found["loss"] == pytest.approx(-np.log([0.7, 0.8, 0.3, 0.25]).mean())


def test_evaluation_by_class():
    found = metrics.evaluate(PROBABILITIES, LABELS, CLASSES)
    assert found.per_class.to_dict("list") == {
        "class": list(CLASSES),
        "precision": [pytest.approx(1 / 3), 1.0, 0.0],  # owls are never predicted
        "recall": [1.0, 0.5, 0.0],
        "f1": [0.5, pytest.approx(2 / 3), 0.0],
        "support": [1, 2, 1],
    }
    assert found.figures["f1"] == pytest.approx((0.5 + 2 / 3) / 3)
    assert found.figures["precision"] == pytest.approx((1 / 3 + 1) / 3)
    assert found.confusion.to_numpy().tolist() == [["cat", 1, 0, 0], ["dog", 1, 1, 0], ["owl", 1, 0, 0]]
    assert found.answers.to_numpy().tolist() == [["cat", "cat"], ["dog", "dog"], ["dog", "cat"], ["owl", "cat"]]


@pytest.mark.parametrize("activation", ["softmax", "linear"])
def test_predictions_are_probabilities_whatever_the_network_ends_in(activation: str):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation=activation)])
    images = np.random.default_rng(0).normal(size=(7, 4)).astype(np.float32)
    batches = tf.data.Dataset.from_tensor_slices((images, np.zeros((7, 3), np.float32))).batch(3)
    found = metrics.predict(model, batches)
    kernel, bias = model.get_weights()
    logits = images.astype(np.float64) @ kernel + bias
    np.testing.assert_allclose(found, np.exp(logits) / np.exp(logits).sum(1, keepdims=True), rtol=1e-5)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-12)
