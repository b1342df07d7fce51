"""Comparisons of networks: tests and intervals against other implementations, and what the sentences say."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlxtend.evaluate import mcnemar, mcnemar_table
from scipy.stats import binom
from scipy.stats import t as student

from pipeline import significance

LABELS = np.zeros(1000, int)


def answers(*wrong: slice) -> np.ndarray:
    """Answers to LABELS that are wrong in the given places."""
    given = LABELS.copy()
    for place in wrong:
        given[place] = 1
    return given


def compared(**predicted: np.ndarray) -> list[dict[Any, Any]]:
    return significance.compare(predicted, LABELS).to_dict("records")


@pytest.mark.parametrize(("a", "b"), [(3, 9), (12, 12), (2, 22), (10, 15), (40, 61), (200, 120)])
def test_mcnemar_agrees_with_mlxtend(a: int, b: int):
    table = mcnemar_table(LABELS, answers(slice(0, b)), answers(slice(500, 500 + a)))
    assert (table[0, 1], table[1, 0]) == (a, b)
    _, expected = mcnemar(table, exact=a + b < 25)
    assert significance.mcnemar(a, b) == pytest.approx(min(expected, 1))


def test_mcnemar_by_hand():
    assert significance.mcnemar(0, 0) == 1
    assert significance.mcnemar(1, 7) == pytest.approx(2 * binom.cdf(1, 8, 0.5))
    assert significance.mcnemar(50, 50) == 1  # the correction for continuity does not pass beyond 0


def test_holm_by_hand():
    adjusted, levels = significance.holm(np.array([0.04, 0.001, 0.03, 0.02]))
    assert adjusted == pytest.approx([0.06, 0.004, 0.06, 0.06])
    assert levels == pytest.approx([1 - 0.05 / 3, 1 - 0.05 / 4, 1 - 0.05 / 3, 1 - 0.05 / 3])
    adjusted, levels = significance.holm(np.array([0.01, 0.01]))
    assert adjusted == pytest.approx([0.02, 0.02])
    assert levels == pytest.approx([0.975, 0.975])


def test_the_interval_is_that_of_images_drawn_with_replacement():
    a, b, images = 30, 12, 400
    difference = np.r_[np.ones(a), -np.ones(b), np.zeros(images - a - b)]
    drawn = np.random.default_rng(0).choice(difference, (20_000, images)).mean(axis=1)
    expected = 100 * np.quantile(drawn, [0.025, 0.975])
    assert significance.difference_interval(a, b, images, 0.95) == pytest.approx(expected, abs=0.26)  # an image


def test_the_interval_covers_the_truth_as_often_as_it_says():
    """Two networks of 98 % and 97.2 %: of 1,000 test sets, 5 % or so should miss the difference of 0.8 points."""
    drawn = np.random.default_rng(2).multinomial(2000, [0.018, 0.010, 0.972], 1000)
    intervals = np.array([significance.difference_interval(a, b, 2000, 0.95) for a, b, _ in drawn])
    covered = ((intervals[:, 0] <= 0.8) & (intervals[:, 1] >= 0.8)).mean()
    assert 0.93 < covered < 0.97


@pytest.mark.parametrize("pairs", [1, 3, 45])
def test_what_the_test_rejects_lies_outside_of_the_interval(pairs: int):
    """At the border: the fewest images of a network's own for which McNemar's test rejects."""
    level = significance.ALPHA / pairs
    for b in [*range(12), 15, 20, 30, 60, 120]:
        a = next(a for a in range(b, 400) if significance.mcnemar(a, b) < level)
        low, _ = significance.difference_interval(a, b, 10_000, 1 - level)
        assert low > 0, (a, b)


def test_a_difference_that_is_sure_is_said_to_be():
    [row] = compared(good=answers(slice(0, 10)), bad=answers(slice(20, 60)))
    assert row["pair"] == "good - bad"
    assert (row["only_a"], row["only_b"], row["difference"]) == (40, 10, pytest.approx(3))
    assert row["p"] == row["p_adjusted"] < 0.001
    assert 0 < row["low"] < 3 < row["high"]
    expected = f"good is better than bad by 3.00 pp, 95 % interval {row['low']:.2f} to {row['high']:.2f}, p < 0.001"
    assert row["sentence"] == expected
    [turned] = compared(bad=answers(slice(20, 60)), good=answers(slice(0, 10)))
    assert turned["difference"] == pytest.approx(-3)
    assert turned["sentence"].startswith("good is better than bad by 3.00 pp, 95 % interval 1.")


def test_a_difference_that_may_be_chance_is_not_called_one():
    [row] = compared(one=answers(slice(0, 10)), two=answers(slice(20, 28)))
    assert row["sentence"].startswith("no difference can be shown between one and two (-0.20 pp, 95 % interval -")
    assert row["sentence"].endswith("p = 0.815)")


def test_an_interval_holds_0_wherever_the_corrected_test_does_not_reject():
    # 15 to 4 is surer than 1 in 20 by itself, and not among three.
    rows = compared(a=answers(slice(0, 4)), b=answers(slice(20, 35)), c=answers(slice(40, 48)))
    assert rows[0]["p"] < 0.05 < rows[0]["p_adjusted"]
    for row in rows:
        assert row["low"] <= 0 <= row["high"]
        assert "better" not in row["sentence"]


def test_five_images_to_none_are_not_enough():
    [row] = compared(good=answers(), bad=answers(slice(0, 5)))
    low, _ = significance.difference_interval(5, 0, 1000, 0.95)
    assert low > 0, "by the bootstrap alone, they would be"
    assert row["p"] == pytest.approx(2 * 0.5**5)
    assert row["low"] == 0
    assert row["sentence"].startswith(
        "no difference can be shown between good and bad (+0.50 pp, 95 % interval 0.00 to"
    )


def test_networks_that_answer_alike_are_told_from_those_that_are_right_alike():
    other = 2 * answers(slice(0, 10))  # wrong on the same images, in another way
    rows = compared(one=answers(slice(0, 10)), two=answers(slice(0, 10)), three=other)
    assert [row["sentence"] for row in rows] == [
        "one and two give the same answer for every image",
        "no difference can be shown between one and three (they are right on the same images)",
        "no difference can be shown between two and three (they are right on the same images)",
    ]
    assert [(row["difference"], row["low"], row["high"]) for row in rows] == [(0, 0, 0)] * 3


def over_seeds(**accuracies: list[float]) -> list[dict[Any, Any]]:
    rows = [
        {"model": name, "seed": seed, "accuracy": accuracy}
        for name, values in accuracies.items()
        for seed, accuracy in enumerate(values)
    ]
    return significance.compare_seeds(pd.DataFrame(rows)).to_dict("records")


def test_seeds_are_compared_by_the_mean_of_their_differences():
    [row] = over_seeds(net=[0.97, 0.98, 0.99], other=[0.96, 0.95, 0.97])  # 1, 3 and 2 points apart
    half = student.ppf(0.975, 2) * 1 / np.sqrt(3)
    assert (row["seeds"], row["difference"]) == (3, pytest.approx(2))
    assert (row["low"], row["high"]) == (pytest.approx(2 - half), pytest.approx(2 + half))
    assert row["p"] == pytest.approx(2 * student.sf(2 * np.sqrt(3), 2))
    expected = "no difference can be shown between net and other over 3 seeds (+2.00 pp, 95 % interval -0.48 to 4.48, "
    assert row["sentence"] == expected + "p = 0.0742)"


def test_seeds_of_several_networks_are_corrected_and_never_contradict():
    rng = np.random.default_rng(4)
    for _ in range(20):
        rows = over_seeds(**{f"net{index}": list(rng.normal(0.98 + index / 1000, 0.001, 5)) for index in range(4)})
        for row in rows:
            assert (row["low"] <= 0 <= row["high"]) == (row["p_adjusted"] >= significance.ALPHA), row
            assert ("is better" in row["sentence"]) == (row["p_adjusted"] < significance.ALPHA)


@pytest.mark.parametrize("difference", [0.0, 0.01])
def test_equal_differences_prove_nothing(difference: float):
    [row] = over_seeds(net=[0.97 + difference, 0.96 + difference], other=[0.97, 0.96])
    assert row["p"] == 1
    assert (row["low"], row["high"]) == (0, pytest.approx(100 * difference))
    assert row["sentence"].startswith("no difference can be shown")
