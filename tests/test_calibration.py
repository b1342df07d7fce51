"""Calibration against cases worked by hand, and against other implementations of the definitions."""

import numpy as np
import pytest
from scipy.special import log_softmax, softmax
from sklearn.calibration import calibration_curve
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from pipeline.evaluate import calibration

RNG = np.random.default_rng(5)
LOGITS = RNG.normal(0, 2, (2000, 4))
LABELS = np.array([RNG.choice(4, p=row) for row in softmax(LOGITS, axis=1)])  # so LOGITS are calibrated
CALIBRATED = softmax(LOGITS, axis=1)
OVERCONFIDENT = softmax(3 * LOGITS, axis=1)


def test_worked_example():
    probabilities = np.array([[0.95, 0.05], [0.95, 0.05], [0.3, 0.7], [0.55, 0.45]])
    labels = np.array([0, 1, 1, 0])
    found, reliability = calibration.calibrate(probabilities, labels, probabilities, labels)
    assert reliability.round(6).values.tolist() == [
        [round(8 / 15, 6), 0.6, 1, 0.55, 1],
        [round(10 / 15, 6), round(11 / 15, 6), 1, 0.7, 1],
        [round(14 / 15, 6), 1, 2, 0.95, 0.5],
    ]
    assert found["ece"] == pytest.approx((0.45 + 0.3 + 2 * 0.45) / 4)
    assert found["ece_equal_mass"] == found["ece"]
    assert found["error_confidence_mean"] == pytest.approx(0.95)
    assert found["error_auroc"] == pytest.approx((0.5 + 0 + 0) / 3)  # right over wrong; the tie counts half


@pytest.mark.parametrize(("number", "strategy"), [("equal_width", "uniform"), ("equal_mass", "quantile")])
def test_bins_agree_with_scikit_learn(number: str, strategy: str):
    confidence, correct = calibration.confidences(OVERCONFIDENT, LABELS)
    confidence, correct = confidence[:1500], correct[:1500]  # 15 bins of 100
    found = calibration.bins(confidence, correct, getattr(calibration, number)(confidence))
    accuracy, mean = calibration_curve(correct, confidence, n_bins=15, strategy=strategy)
    np.testing.assert_allclose(found["accuracy"], accuracy)
    np.testing.assert_allclose(found["confidence"], mean)
    assert found["count"].sum() == 1500


def test_bin_includes_its_upper_bound():
    assert calibration.equal_width(np.array([1 / 15, 1 / 15 + 1e-9, 1.0])).tolist() == [0, 1, 14]


def test_order_of_equal_confidences_has_no_influence():
    confidence = np.r_[np.ones(50), np.linspace(0.5, 0.9, 10)]
    correct = np.r_[np.zeros(10), np.ones(50)].astype(bool)

    def error(order: np.ndarray) -> float:
        number = calibration.equal_mass(confidence[order])
        return calibration.calibration_error(calibration.bins(confidence[order], correct[order], number))

    assert error(np.arange(60)) == pytest.approx(error(RNG.permutation(60)))


def test_temperature_is_the_factor_of_the_logits():
    """For two classes, it is the inverse of the coefficient of logistic regression on the log-odds."""
    assert calibration.temperature(CALIBRATED, LABELS) == pytest.approx(1, abs=0.1)
    expected = 3 * calibration.temperature(CALIBRATED, LABELS)
    assert calibration.temperature(OVERCONFIDENT, LABELS) == pytest.approx(expected, rel=1e-4)
    two, labels = softmax(5 * LOGITS[:, :2], axis=1), (RNG.random(2000) < softmax(LOGITS[:, :2], axis=1)[:, 1])
    odds = np.log(two[:, 1:] / two[:, :1])
    other = LogisticRegression(C=np.inf, fit_intercept=False).fit(odds, labels)
    assert calibration.temperature(two, labels.astype(int)) == pytest.approx(1 / other.coef_[0, 0], rel=1e-3)


def test_temperature_lowers_loss_and_error_and_keeps_the_predictions():
    test, validation = slice(0, 1000), slice(1000, 2000)
    found, _ = calibration.calibrate(OVERCONFIDENT[test], LABELS[test], OVERCONFIDENT[validation], LABELS[validation])
    after = calibration.at_temperature(OVERCONFIDENT[test], found["temperature"])
    expected = softmax(log_softmax(3 * LOGITS[test], axis=1) / found["temperature"], axis=1)
    np.testing.assert_allclose(after, expected, rtol=1e-6)
    assert (after.argmax(axis=1) == OVERCONFIDENT[test].argmax(axis=1)).all()
    assert found["loss_calibrated"] == pytest.approx(log_loss(LABELS[test], after))
    assert found["loss_calibrated"] < log_loss(LABELS[test], OVERCONFIDENT[test])
    assert found["ece_calibrated"] == calibration.expected_calibration_error(after, LABELS[test])
    assert found["ece_calibrated"] < found["ece"]


def test_perfect_predictions_have_no_metrics_of_errors():
    probabilities, labels = np.eye(3), np.arange(3)
    found, _ = calibration.calibrate(probabilities, labels, probabilities, labels)
    assert set(found) == {"ece", "ece_equal_mass", "temperature", "loss_calibrated", "ece_calibrated"}
    assert found["ece"] == 0
    assert np.isfinite(found["temperature"])
    never_right, _ = calibration.calibrate(probabilities, (labels + 1) % 3, probabilities, labels)
    assert "error_auroc" not in never_right
    assert never_right["error_confidence_p90"] == 1
    assert np.isfinite(never_right["loss_calibrated"])
