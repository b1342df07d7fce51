"""Baselines: their fits, samples and features, and the networks that do not beat them."""

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from pipeline.core.dataset import DatasetInfo, Split
from pipeline.evaluate import baselines, significance
from pipeline.evaluate.baselines import LINEAR, MAJORITY
from pipeline.evaluate.scoring import EvaluationData, NetworkScores


def split(labels: np.ndarray, seed: int) -> Split:
    """Noisy images of 28 x 28 pixels with a brighter part that depends on the class."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 200, (len(labels), 28, 28, 1))
    for image, label in zip(images, labels, strict=True):
        image[5 * label : 5 * label + 5] += 20
    return Split(images.astype(np.uint8), labels.astype(np.int64))


TRAIN = split(np.repeat([0, 1, 2, 3], [150, 100, 100, 50]), 0)
TEST = split(np.repeat([0, 1, 2, 3], [75, 50, 50, 25]), 1)


def test_baselines_are_fitted_to_the_training_images():
    fitted = baselines.fit(TRAIN, 4, seed=1)
    assert [*fitted] == ["majority class", "linear classifier"]
    np.testing.assert_array_equal(fitted[MAJORITY](TEST.images[:2]), [[0.375, 0.25, 0.25, 0.125]] * 2)
    found = fitted[LINEAR](TEST.images)
    model = LogisticRegression(C=baselines.STRENGTH, max_iter=1000)
    model.fit(TRAIN.images.reshape(400, -1) / 255, TRAIN.labels)
    np.testing.assert_allclose(found, model.predict_proba(TEST.images.reshape(200, -1) / 255), atol=0.01)
    assert (found.argmax(axis=1) == TEST.labels).mean() > 0.6


def test_predictions_are_the_same_with_any_number_of_threads():
    train = split(np.arange(3000) % 4, 2)
    found = []
    for threads in (1, 4):
        with threadpool_limits(threads):
            found.append(baselines.fit(train, 4, seed=1)[LINEAR](TEST.images).tobytes())
    assert found[0] == found[1]


@pytest.mark.parametrize("present", [[0, 2], [2]])
def test_classes_without_training_images_have_probability_0(present: list[int]):
    chosen = np.isin(TRAIN.labels, present)
    for predict in baselines.fit(Split(TRAIN.images[chosen], TRAIN.labels[chosen]), 4, seed=1).values():
        found = predict(TEST.images)
        assert found.sum(axis=1) == pytest.approx(1)
        assert (np.delete(found, present, axis=1) == 0).all()


def test_sample_keeps_the_shares_of_the_classes():
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [700, 250, 50]))
    chosen = baselines.sample(labels, 100, seed=1)
    assert len(set(chosen)) == 100
    assert np.abs(np.bincount(labels[chosen]) - [70, 25, 5]).max() <= 1
    np.testing.assert_array_equal(chosen, baselines.sample(labels, 100, seed=1))
    assert set(chosen) != set(baselines.sample(labels, 100, seed=2))
    np.testing.assert_array_equal(baselines.sample(labels, 1000, seed=1), np.arange(1000))


def test_features_are_pixels_or_means_of_areas(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(baselines, "VALUES", 2 * 64 * 20 * 3)  # of two images among three
    images = np.random.default_rng(0).integers(0, 256, (3, 64, 20, 3), np.uint8)
    means = images.reshape(3, 32, 2, 20, 3).mean(axis=2) / 255
    np.testing.assert_allclose(baselines.features(images), means.reshape(3, -1), rtol=1e-5)
    assert baselines.features(np.full((1, 45, 33, 1), 51, np.uint8)) == pytest.approx(np.full((1, 32 * 32), 0.2))


def scored(validation: np.ndarray, test: np.ndarray) -> NetworkScores:
    empty = pd.DataFrame()
    return NetworkScores(np.eye(4)[test], np.eye(4)[validation], {}, empty, empty, empty, {})


def test_networks_are_compared_with_both_baselines():
    data = EvaluationData(
        DatasetInfo("digits", (28, 28, 1), tuple("abcd"), {"train": 400, "validation": 200, "test": 200}, "0" * 32),
        TEST,
        validation=split(TEST.labels, 3),
        other=None,
    )
    fitted = baselines.fit(TRAIN, 4, seed=1)
    linear = fitted[LINEAR](data.validation.images).argmax(axis=1)
    networks = {
        "good": scored(TEST.labels, TEST.labels),
        "constant": scored(0 * TEST.labels, TEST.labels),  # good by luck, on the test images alone
        "linear": scored(linear, TEST.labels),
    }
    found = baselines.measure(TRAIN, data, networks, seed=1)
    [majority, _] = found.table.to_dict("records")
    assert (majority["baseline"], majority["validation_accuracy"], majority["accuracy"]) == (MAJORITY, 0.375, 0.375)
    assert majority["loss"] == pytest.approx(-np.log([0.375, 0.25, 0.25, 0.125]) @ [0.375, 0.25, 0.25, 0.125])
    assert found.comparisons["pair"].tolist() == [f"{name} - {b}" for name in networks for b in (MAJORITY, LINEAR)]
    assert [*found.comparisons] == [*significance.compare({"a": linear, "b": linear}, TEST.labels)]
    assert (found.comparisons["p_adjusted"] < 0.001).all()
    assert found.unbeaten["good"] is None
    worse, linear_accuracy = found.unbeaten["constant"], (linear == data.validation.labels).mean()
    assert str(worse).startswith(
        f"majority class (+0.00 pp, p = 1), linear classifier ({37.5 - 100 * linear_accuracy:.2f} pp, p = "
    )
    assert found.unbeaten["linear"] == "linear classifier (+0.00 pp, p = 1)"
