"""Comparisons of networks: tests and intervals against other implementations, and by hand."""

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

from benchmarks import familywise
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
    _, expected = mcnemar(table, exact=True)
    assert significance.mcnemar(a, b) == pytest.approx(min(expected, 1))


def test_mcnemar_by_hand():
    assert significance.mcnemar(0, 0) == 1
    assert significance.mcnemar(1, 7) == pytest.approx(2 * binom.cdf(1, 8, 0.5))
    assert significance.mcnemar(50, 50) == 1


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
    columns = ["a", "b", "same", "low", "high", "p", "p_adjusted"]
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


def test_a_pair_by_hand():
    [row] = compared(good=predictions(slice(0, 10)), bad=predictions(slice(20, 60)))
    assert (row["pair"], row["a"], row["b"], row["same"]) == ("good - bad", "good", "bad", False)
    assert (row["only_a"], row["only_b"], row["difference"]) == (40, 10, pytest.approx(3))
    assert row["p"] == row["p_adjusted"] == pytest.approx(2 * binom.cdf(10, 50, 0.5))
    assert (row["low"], row["high"]) == significance.difference_interval(40, 10, 1000, 0.95)


def test_several_pairs_have_wider_intervals_and_larger_p():
    # 15 to 4 is significant by itself, but not among three pairs.
    [alone] = compared(a=predictions(slice(0, 4)), b=predictions(slice(20, 35)))
    rows = compared(a=predictions(slice(0, 4)), b=predictions(slice(20, 35)), c=predictions(slice(40, 48)))
    assert rows[0]["p"] < 0.05 < rows[0]["p_adjusted"]
    assert rows[0]["low"] < alone["low"] < alone["high"] < rows[0]["high"]


def test_the_interval_of_five_images_to_none_is_not_stretched_to_0():
    [row] = compared(good=predictions(), bad=predictions(slice(0, 5)))
    assert row["p"] == pytest.approx(2 * 0.5**5)
    assert (row["low"], row["high"]) == significance.difference_interval(5, 0, 1000, 0.95)
    assert row["low"] > 0


def test_equal_predictions_are_distinguished_from_equal_correctness():
    other = 2 * predictions(slice(0, 10))  # wrong on the same images, in another way
    rows = compared(one=predictions(slice(0, 10)), two=predictions(slice(0, 10)), three=other)
    assert [row["same"] for row in rows] == [True, False, False]
    for row in rows:
        assert row["difference"] == 0
        assert -0.4 < row["low"] < 0 < row["high"] < 0.4, "equal on these images, not on all"


def test_chosen_pairs_are_a_family_of_their_own():
    given = {"net": predictions(slice(0, 4)), "other": predictions(slice(20, 32)), "base": predictions(slice(40, 60))}
    pairs = [("net", "base"), ("other", "base")]
    rows = significance.compare(given, LABELS, pairs).to_dict("records")
    assert [row["pair"] for row in rows] == ["net - base", "other - base"]
    assert [row["p_adjusted"] for row in rows] == pytest.approx(significance.holm(np.array([row["p"] for row in rows])))
    [alone] = significance.compare(given, LABELS, pairs[:1]).to_dict("records")
    assert rows[0]["low"] < alone["low"] < alone["high"] < rows[0]["high"]


def test_a_single_network_has_no_pairs():
    table = significance.compare({"net": LABELS}, LABELS)
    assert table.empty
    assert [*table] == [*significance.compare({"net": LABELS, "other": LABELS}, LABELS)]
    assert significance.compare_seeds(accuracies(net=[0.9, 0.8])).empty


def test_networks_with_the_same_predictions_count_once():
    given = {"one": predictions(slice(0, 4)), "two": predictions(slice(20, 32))}
    [alone] = compared(**given)
    rows = compared(**given, tuned=given["two"].copy())
    assert [row["p_adjusted"] for row in rows] == [alone["p"], alone["p"], 1]
    assert (rows[0]["low"], rows[0]["high"]) == (rows[1]["low"], rows[1]["high"]) == (alone["low"], alone["high"])


def accuracies(**values: list[float]) -> pd.DataFrame:
    """Accuracies by seed; equal accuracies mean equal predictions, except for a network named another."""
    rows = [
        {"model": name, "seed": seed, "accuracy": each, "predictions": (name == "another", each)}
        for name, accuracies in values.items()
        for seed, each in enumerate(accuracies)
    ]
    return pd.DataFrame(rows)


def over_seeds(**values: list[float]) -> list[dict[Any, Any]]:
    return significance.compare_seeds(accuracies(**values)).to_dict("records")


def test_networks_with_the_same_predictions_for_every_seed_count_once():
    given = {"two": [0.97, 0.98, 0.99], "one": [0.96, 0.95, 0.97]}
    [alone] = over_seeds(**given)
    rows = over_seeds(**given, tuned=given["one"])
    assert [row["pair"] for row in rows] == ["two - one", "two - tuned", "one - tuned"]
    assert [row["p_adjusted"] for row in rows] == [alone["p"], alone["p"], 1]
    assert [row["same"] for row in rows] == [False, False, True]
    assert rows[0]["low"] == alone["low"]
    rows = over_seeds(**given, another=given["one"])  # as accurate, with other predictions
    assert [row["p_adjusted"] for row in rows] == [3 * alone["p"], 3 * alone["p"], 1]
    assert not any(row["same"] for row in rows)


def test_seeds_are_compared_by_their_mean_difference():
    [row] = over_seeds(net=[0.97, 0.98, 0.99], other=[0.96, 0.95, 0.97])  # 1, 3 and 2 points apart
    half = student.ppf(0.975, 2) * 1 / np.sqrt(3)
    assert (row["seeds"], row["difference"]) == (3, pytest.approx(2))
    assert (row["low"], row["high"]) == (pytest.approx(2 - half), pytest.approx(2 + half))
    assert row["p"] == pytest.approx(2 * student.sf(2 * np.sqrt(3), 2))


def test_test_and_interval_over_seeds_agree_at_the_same_level():
    rng = np.random.default_rng(4)
    for _ in range(20):
        for row in over_seeds(**{f"net{index}": list(rng.normal(0.98 + index / 1000, 0.001, 5)) for index in range(4)}):
            assert (row["low"] <= 0 <= row["high"]) == (6 * row["p"] >= significance.ALPHA)


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


def test_equal_accuracies_are_not_significant():
    [row] = over_seeds(net=[0.97, 0.96, 0.95], another=[0.97, 0.96, 0.95])
    assert (row["p"], row["p_adjusted"], row["same"]) == (1, 1, False)


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


@pytest.mark.parametrize("seeds", [1, familywise.SEEDS])
def test_false_claims_among_equal_networks_are_rare_and_copies_cost_no_power(seeds: int):
    """Without Holm's correction, some 20 % of these simulations have false claims."""
    false_claims, found, alone = familywise.simulate(networks=7, copies=2, seeds=seeds, simulations=40)
    assert familywise.interval(false_claims, 40)[0] < significance.ALPHA
    assert found == alone > 5
