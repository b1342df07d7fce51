"""Comparisons of networks: tests and intervals against other implementations, and their sentences."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as some
from mlxtend.evaluate import mcnemar, mcnemar_table
from scipy.optimize import minimize_scalar
from scipy.stats import binom, norm
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


@pytest.mark.parametrize(("a", "b", "images"), [(12, 2, 50), (3, 40, 200), (30, 31, 1000), (9, 1, 10)])
@pytest.mark.parametrize("level", [0.95, 0.999])
def test_interval_ends_where_the_score_test_rejects(a: int, b: int, images: int, level: float):
    """With the likelihood maximized numerically under each difference."""
    for end in significance.difference_interval(a, b, images, level):
        difference = end / 100

        def loss(share: float, difference: float = difference) -> float:
            both = images - a - b
            return -(a * np.log(share + difference) + b * np.log(share) + both * np.log1p(-2 * share - difference))

        bounds = (max(0, -difference) + 1e-12, (1 - difference) / 2 - 1e-12)
        share = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-12}).x
        score = (a - b - images * difference) / np.sqrt(images * (2 * share + difference * (1 - difference)))
        assert abs(score) == pytest.approx(norm.isf((1 - level) / 2), abs=1e-3)


def coverage(expected: float, share: float, images: int, level: float) -> float:
    """The exact probability that the interval contains the difference.

    On average, `expected` images have one right network, which is a with the probability `share`.
    """
    truth, total = 100 * expected / images * (2 * share - 1), 0.0
    for differing in range(int(binom.isf(1e-9, images, expected / images)) + 1):
        for a in range(differing + 1):
            weight = binom.pmf(differing, images, expected / images) * binom.pmf(a, differing, share)
            if weight > 1e-9:
                low, high = significance.difference_interval(a, differing - a, images, level)
                total += weight * (low <= truth <= high)
    return total


@pytest.mark.parametrize("level", [0.95, 1 - 0.05 / 45])
@pytest.mark.parametrize("share", [0.5, 0.9, 1.0])
@pytest.mark.parametrize("expected", [2, 5, 20])
def test_interval_has_its_nominal_coverage(expected: float, share: float, level: float):
    """A discrete distribution cannot have exactly this coverage; the bootstrap missed 13 to 17 % for 2 images."""
    assert 1 - coverage(expected, share, 1000, level) < 1.6 * (1 - level)


def test_interval_has_its_nominal_coverage_where_many_images_differ():
    assert coverage(100, 1.0, 1000, 0.95) == pytest.approx(0.95, abs=0.01)


@given(
    counts=some.tuples(some.integers(0, 300), some.integers(0, 300), some.integers(0, 10**6)),
    level=some.floats(0.5, 0.9999),
)
@example(counts=(0, 0, 1), level=0.95)
@example(counts=(7, 0, 0), level=0.95)
@example(counts=(0, 7, 0), level=0.95)
@settings(max_examples=300, deadline=None, derandomize=True)
def test_intervals_contain_the_estimate_are_symmetric_and_within_bounds(counts: tuple[int, int, int], level: float):
    a, b, rest = counts
    images = a + b + rest
    assume(images > 0)
    low, high = significance.difference_interval(a, b, images, level)
    assert -100 <= low <= 100 * (a - b) / images <= high <= 100
    assert significance.difference_interval(b, a, images, level) == (-high, -low)
    wider = significance.difference_interval(a, b, images, (1 + level) / 2)
    assert wider[0] <= low <= high <= wider[1]


@given(p=some.lists(some.floats(0, 1), max_size=30), seed=some.integers(0, 100))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_holm_keeps_the_order_and_only_raises(p: list[float], seed: int):
    values = np.array(p)
    adjusted = significance.holm(values)
    order = np.argsort(values, kind="stable")
    assert (np.diff(adjusted[order]) >= 0).all()
    assert ((values <= adjusted) & (adjusted <= np.minimum(values * max(len(p), 1), 1))).all()
    shuffled = np.random.default_rng(seed).permutation(len(p))
    assert significance.holm(values[shuffled]) == pytest.approx(adjusted[shuffled])


@given(data=some.data())
@settings(max_examples=100, deadline=None, derandomize=True)
def test_comparisons_are_symmetric_and_ignore_copies(data: some.DataObject):
    rng = np.random.default_rng(data.draw(some.integers(0, 10**6)))
    labels = rng.integers(0, 3, data.draw(some.integers(1, 60)))
    a, b, c = (np.where(rng.random(len(labels)) < 0.8, labels, rng.integers(0, 3, len(labels))) for _ in "abc")
    [row] = significance.compare({"a": a, "b": b}, labels).to_dict("records")
    [turned] = significance.compare({"b": b, "a": a}, labels).to_dict("records")
    assert (row["difference"], row["low"], row["high"]) == (-turned["difference"], -turned["high"], -turned["low"])
    assert (row["p"], row["p_adjusted"]) == (turned["p"], turned["p_adjusted"])
    columns = ["a", "b", "low", "high", "p", "p_adjusted", "sentence"]
    alone = significance.compare({"a": a, "b": b, "c": c}, labels)[columns]
    copied = significance.compare({"a": a, "b": b, "copy": a.copy(), "c": c}, labels)
    assert copied[(copied["a"] != "copy") & (copied["b"] != "copy")][columns].to_dict("list") == alone.to_dict("list")


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
    for row in rows:
        assert row["difference"] == 0
        assert -0.4 < row["low"] < 0 < row["high"] < 0.4, "equal on these images, not on all"


def test_networks_with_the_same_predictions_count_once():
    given = {"one": predictions(slice(0, 4)), "two": predictions(slice(20, 32))}
    [alone] = compared(**given)
    rows = compared(**given, tuned=given["two"].copy())
    assert [row["p_adjusted"] for row in rows] == [alone["p"], alone["p"], 1]
    assert (rows[0]["low"], rows[0]["high"]) == (rows[1]["low"], rows[1]["high"]) == (alone["low"], alone["high"])


def test_networks_with_the_same_accuracies_over_seeds_count_once():
    given = {"one": [0.97, 0.98, 0.99], "two": [0.96, 0.95, 0.97]}
    [alone] = over_seeds(**given)
    rows = over_seeds(**given, tuned=given["two"])
    assert [row["p_adjusted"] for row in rows] == [alone["p"], alone["p"], 1]
    assert rows[0]["low"] == alone["low"]


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


@pytest.mark.parametrize(("seeds", "p"), [(2, 0.5), (5, 0.0625), (6, 0.03125)])
def test_equal_differences_are_tested_by_their_signs(seeds: int, p: float):
    other = np.linspace(0.9, 0.95, seeds)
    [row] = over_seeds(net=list(other + 0.04), other=list(other))
    assert row["p"] == p
    assert np.isnan([row["low"], row["high"]]).all()
    result = f"net is better than other by 4.00 pp over {seeds} seeds, the same"
    if p >= significance.ALPHA:
        result = f"no difference can be shown between net and other over {seeds} seeds (+4.00 pp, the same"
    assert row["sentence"].startswith(result)
    expected = f"for every seed, so without an interval; exact test of the signs, p = {p:.3g}"
    assert expected in row["sentence"]


def test_equal_accuracies_are_not_significant():
    [row] = over_seeds(net=[0.97, 0.96, 0.95], other=[0.97, 0.96, 0.95])
    assert row["p"] == 1
    assert row["sentence"].startswith("no difference can be shown")


@given(differences=some.lists(some.integers(-1000, 1000), min_size=2, max_size=8), level=some.floats(0.5, 0.9999))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_intervals_over_seeds_contain_the_mean_within_possible_values(differences: list[int], level: float):
    values = np.array(differences) / 10
    low, high = significance.seeds_interval(values, level)
    if np.ptp(values):
        assert -100 <= low <= values.mean() + 1e-9
        assert values.mean() - 1e-9 <= high <= 100
    else:
        assert np.isnan([low, high]).all()
    assert 0 <= significance.seeds_test(values) <= 1
    assert significance.seeds_test(values) == pytest.approx(significance.seeds_test(-values))
