"""Comparisons of networks: tests and intervals against other implementations, and their sentences."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlxtend.evaluate import mcnemar, mcnemar_table
from scipy.stats import binom
from scipy.stats import t as student

from pipeline.evaluate import significance

LABELS = np.zeros(1000, int)


def predictions(*wrong: slice) -> np.ndarray:
    """Predictions of LABELS that are wrong in the given places."""
    given = LABELS.copy()
    for place in wrong:
        given[place] = 1
    return given


def compared(**predicted: np.ndarray) -> list[dict[Any, Any]]:
    return significance.compare(predicted, LABELS).to_dict("records")


@pytest.mark.parametrize(("a", "b"), [(3, 9), (12, 12), (2, 22), (10, 15), (40, 61), (200, 120)])
def test_mcnemar_agrees_with_mlxtend(a: int, b: int):
    table = mcnemar_table(LABELS, predictions(slice(0, b)), predictions(slice(500, 500 + a)))
    assert (table[0, 1], table[1, 0]) == (a, b)
    _, expected = mcnemar(table, exact=a + b < 25)
    assert significance.mcnemar(a, b) == pytest.approx(min(expected, 1))


def test_mcnemar_by_hand():
    assert significance.mcnemar(0, 0) == 1
    assert significance.mcnemar(1, 7) == pytest.approx(2 * binom.cdf(1, 8, 0.5))
    assert significance.mcnemar(50, 50) == 1  # the continuity correction does not pass 0


def test_holm_by_hand():
    adjusted = significance.holm(np.array([0.04, 0.001, 0.03, 0.02]))
    assert adjusted == pytest.approx([0.06, 0.004, 0.06, 0.06])
    assert significance.holm(np.array([0.01, 0.01])) == pytest.approx([0.02, 0.02])


def test_interval_is_that_of_images_drawn_with_replacement():
    a, b, images = 30, 12, 400
    difference = np.r_[np.ones(a), -np.ones(b), np.zeros(images - a - b)]
    drawn = np.random.default_rng(0).choice(difference, (20_000, images)).mean(axis=1)
    expected = 100 * np.quantile(drawn, [0.025, 0.975])
    assert significance.difference_interval(a, b, images, 0.95) == pytest.approx(expected, abs=0.26)  # an image


def test_interval_has_its_nominal_coverage():
    """Two networks of 98 % and 97.2 %: about 5 % of 1,000 test sets should miss the difference of 0.8 points."""
    drawn = np.random.default_rng(2).multinomial(2000, [0.018, 0.010, 0.972], 1000)
    intervals = np.array([significance.difference_interval(a, b, 2000, 0.95) for a, b, _ in drawn])
    covered = ((intervals[:, 0] <= 0.8) & (intervals[:, 1] >= 0.8)).mean()
    assert 0.93 < covered < 0.97


@pytest.mark.parametrize("pairs", [1, 3, 45])
def test_interval_of_a_rejected_pair_excludes_0(pairs: int):
    """At the border: the fewest images of a network's own for which McNemar's test rejects."""
    level = significance.ALPHA / pairs
    for b in [*range(12), 15, 20, 30, 60, 120]:
        a = next(a for a in range(b, 400) if significance.mcnemar(a, b) < level)
        low, _ = significance.difference_interval(a, b, 10_000, 1 - level)
        assert low > 0, (a, b)


def test_significant_difference_is_stated():
    [row] = compared(good=predictions(slice(0, 10)), bad=predictions(slice(20, 60)))
    assert row["pair"] == "good - bad"
    assert (row["only_a"], row["only_b"], row["difference"]) == (40, 10, pytest.approx(3))
    assert row["p"] == row["p_adjusted"] < 0.001
    assert 0 < row["low"] < 3 < row["high"]
    interval = f"simultaneous 95 % interval {row['low']:.2f} to {row['high']:.2f}"
    assert row["sentence"] == f"good is better than bad by 3.00 pp, {interval}, p < 0.001"
    [turned] = compared(bad=predictions(slice(20, 60)), good=predictions(slice(0, 10)))
    assert turned["difference"] == pytest.approx(-3)
    assert turned["sentence"].startswith("good is better than bad by 3.00 pp, simultaneous 95 % interval 1.")


def test_insignificant_difference_is_not_claimed():
    [row] = compared(one=predictions(slice(0, 10)), two=predictions(slice(20, 28)))
    assert row["sentence"].startswith(
        "no difference can be shown between one and two (-0.20 pp, simultaneous 95 % interval -"
    )
    assert row["sentence"].endswith("p = 0.815)")


def test_several_pairs_have_wider_intervals_and_fewer_claims():
    # 15 to 4 is significant by itself, but not among three pairs.
    [alone] = compared(a=predictions(slice(0, 4)), b=predictions(slice(20, 35)))
    rows = compared(a=predictions(slice(0, 4)), b=predictions(slice(20, 35)), c=predictions(slice(40, 48)))
    assert rows[0]["p"] < 0.05 < rows[0]["p_adjusted"]
    assert rows[0]["low"] < alone["low"] < alone["high"] < rows[0]["high"]
    assert "a is better than b" in alone["sentence"]
    assert not any("better" in row["sentence"] for row in rows)


def test_five_images_to_none_are_not_significant():
    [row] = compared(good=predictions(), bad=predictions(slice(0, 5)))
    assert row["p"] == pytest.approx(2 * 0.5**5)
    assert (row["low"], row["high"]) == significance.difference_interval(5, 0, 1000, 0.95), "it is not stretched to 0"
    assert row["low"] > 0
    assert row["sentence"] == (
        f"no difference can be shown between good and bad (+0.50 pp, simultaneous 95 % interval {row['low']:.2f} to "
        f"{row['high']:.2f}, p = 0.0625; the test decides, although the interval excludes 0)"
    )


def test_equal_predictions_are_distinguished_from_equal_correctness():
    other = 2 * predictions(slice(0, 10))  # wrong on the same images, in another way
    rows = compared(one=predictions(slice(0, 10)), two=predictions(slice(0, 10)), three=other)
    assert [row["sentence"] for row in rows] == [
        "one and two have the same prediction for every image",
        "no difference can be shown between one and three (both are right on the same images)",
        "no difference can be shown between two and three (both are right on the same images)",
    ]
    assert [(row["difference"], row["low"], row["high"]) for row in rows] == [(0, 0, 0)] * 3


def over_seeds(**accuracies: list[float]) -> list[dict[Any, Any]]:
    rows = [
        {"model": name, "seed": seed, "accuracy": accuracy}
        for name, values in accuracies.items()
        for seed, accuracy in enumerate(values)
    ]
    return significance.compare_seeds(pd.DataFrame(rows)).to_dict("records")


def test_seeds_are_compared_by_their_mean_difference():
    [row] = over_seeds(net=[0.97, 0.98, 0.99], other=[0.96, 0.95, 0.97])  # 1, 3 and 2 points apart
    half = student.ppf(0.975, 2) * 1 / np.sqrt(3)
    assert (row["seeds"], row["difference"]) == (3, pytest.approx(2))
    assert (row["low"], row["high"]) == (pytest.approx(2 - half), pytest.approx(2 + half))
    assert row["p"] == pytest.approx(2 * student.sf(2 * np.sqrt(3), 2))
    expected = "no difference can be shown between net and other over 3 seeds (+2.00 pp, simultaneous 95 % interval "
    assert row["sentence"] == expected + "-0.48 to 4.48, p = 0.0742)"


def test_sentences_follow_the_test_and_state_a_conflict_with_the_interval():
    rng = np.random.default_rng(4)
    conflicts = 0
    for _ in range(20):
        rows = over_seeds(**{f"net{index}": list(rng.normal(0.98 + index / 1000, 0.001, 5)) for index in range(4)})
        for row in rows:
            rejected, covers_0 = row["p_adjusted"] < significance.ALPHA, row["low"] <= 0 <= row["high"]
            assert covers_0 == (6 * row["p"] >= significance.ALPHA), "t test and interval agree at the same level"
            assert ("is better" in row["sentence"]) == rejected
            assert ("although the interval contains 0" in row["sentence"]) == (rejected and covers_0)
            conflicts += rejected and covers_0
    assert conflicts


def test_simultaneous_intervals_have_their_joint_coverage():
    """Three networks with large differences: all three intervals contain the truth in about 95 % of the experiments."""
    rng, accuracies = np.random.default_rng(0), np.array([0.90, 0.93, 0.97])
    covered = []
    for _ in range(400):
        values = rng.normal(accuracies, 0.005, (5, 3))
        rows = over_seeds(**{f"net{index}": list(values[:, index]) for index in range(3)})
        truth = [100 * (accuracies[a] - accuracies[b]) for a, b in [(0, 1), (0, 2), (1, 2)]]
        covered.append(all(row["low"] <= value <= row["high"] for row, value in zip(rows, truth, strict=True)))
    assert np.mean(covered) > 0.93


@pytest.mark.parametrize("difference", [0.0, 0.01])
def test_equal_differences_are_not_significant(difference: float):
    [row] = over_seeds(net=[0.97 + difference, 0.96 + difference], other=[0.97, 0.96])
    assert row["p"] == 1
    assert (row["low"], row["high"]) == (0, pytest.approx(100 * difference))
    assert row["sentence"].startswith("no difference can be shown")
