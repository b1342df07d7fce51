"""Comparisons of networks: paired tests and simultaneous intervals, over test images or over seeds."""

from collections.abc import Mapping
from itertools import combinations
from math import ceil, isnan, log10, sqrt
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.stats import binomtest, chi2, norm, ttest_rel

ALPHA = 0.05  # the chance of calling any two equal networks different, and of any interval missing the truth
EXACT_BELOW = 25  # images that only one of two networks gets right
EQUAL = 1e-6  # percentage points by which equal differences differ through rounding


def compare(predicted: dict[str, np.ndarray], labels: np.ndarray) -> pd.DataFrame:
    """Compare every pair of networks by their predictions, each of shape (n,).

    Columns: pair; a, b; only_a, only_b (images that only this one gets right); difference (accuracy of a minus that of
    b), low and high (its simultaneous 95 % interval), all in percentage points; p of McNemar's test, p_adjusted by
    Holm; sentence.

    Simultaneous: the intervals of all pairs together contain their true differences in 95 % of test sets, as each has
    Bonferroni's level. Networks with the same prediction for every image count once in both corrections. The verdict
    follows p_adjusted.
    """
    pairs = list(combinations(predicted, 2))
    right = {name: classes == labels for name, classes in predicted.items()}
    counts = [(int((right[a] & ~right[b]).sum()), int((right[b] & ~right[a]).sum())) for a, b in pairs]
    p = [mcnemar(*count) for count in counts]
    corrected, level = _corrected(pairs, p, predicted)
    rows = []
    for (a, b), (only_a, only_b), value, adjusted in zip(pairs, counts, p, corrected, strict=True):
        low, high = difference_interval(only_a, only_b, len(labels), level)
        row = {
            "pair": f"{a} - {b}",
            "a": a,
            "b": b,
            "only_a": only_a,
            "only_b": only_b,
            "difference": 100 * (only_a - only_b) / len(labels),
            "low": low,
            "high": high,
            "p": value,
            "p_adjusted": adjusted,
        }
        same = bool((predicted[a] == predicted[b]).all())
        rows.append(row | {"sentence": sentence(row, len(labels), same=same)})
    return pd.DataFrame(rows)


def compare_seeds(scores: pd.DataFrame) -> pd.DataFrame:
    """Compare every pair of networks over several seeds, from the rows model, seed, accuracy.

    Columns as those of `compare`, with `seeds` in place of the images. Differences are paired by seed; interval and p
    are those of Student's t for their mean. Where every seed has the same difference, there is no interval, and p is
    that of the exact test by changes of sign (Fisher 1935). Networks with equal accuracies count once.
    """
    by_seed = 100 * scores.pivot(index="seed", columns="model", values="accuracy")
    pairs = list(combinations(scores["model"].unique(), 2))
    differences = [(by_seed[a] - by_seed[b]).to_numpy() for a, b in pairs]
    p = [seeds_test(each) for each in differences]
    corrected, level = _corrected(pairs, p, {name: by_seed[name].to_numpy() for name in scores["model"].unique()})
    rows = []
    for (a, b), each, value, adjusted in zip(pairs, differences, p, corrected, strict=True):
        difference = float(each.mean())
        low, high = seeds_interval(each, level)
        row = {
            "pair": f"{a} - {b}",
            "a": a,
            "b": b,
            "seeds": len(by_seed),
            "difference": difference,
            "low": low,
            "high": high,
            "p": value,
            "p_adjusted": adjusted,
        }
        rows.append(row | {"sentence": verdict(row, digits=2, over=f" over {len(by_seed)} seeds")})
    return pd.DataFrame(rows)


def mcnemar(only_a: int, only_b: int) -> float:
    """The p value of McNemar's test (1947) for two networks of equal accuracy.

    From the images that only one of them gets right: the exact binomial test if these are fewer than EXACT_BELOW, else
    chi-squared with Edwards's continuity correction (1948).
    """
    differing = only_a + only_b
    if not differing:
        return 1.0
    if differing < EXACT_BELOW:
        return float(binomtest(only_a, differing).pvalue)
    return float(chi2.sf(max(abs(only_a - only_b) - 1, 0) ** 2 / differing, df=1))


def holm(p: np.ndarray) -> np.ndarray:
    """Correct p values for their number (Holm 1979)."""
    order = np.argsort(p)
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1)
    return adjusted


def difference_interval(only_a: int, only_b: int, images: int, level: float) -> tuple[float, float]:
    """The score interval of the difference in accuracy, in percentage points (Tango, Statistics in Medicine 17, 1998).

    It contains the differences that a score test for paired proportions does not reject at 1 - level, and keeps its
    level where few images differ, or all of them in favour of one network.
    """
    z = float(norm.isf((1 - level) / 2))
    return -100 * _upper_end(only_b, only_a, images, z), 100 * _upper_end(only_a, only_b, images, z)


def _upper_end(only_a: int, only_b: int, images: int, z: float) -> float:
    """The largest difference whose score is at most z."""

    def excess(difference: float) -> float:
        """The square of the score's numerator beyond z^2 times its variance."""
        linear = (2 * images - only_a + only_b) * difference - only_a - only_b
        product = only_b * difference * (1 - difference)
        root = sqrt(max(linear**2 + 8 * images * product, 0))
        # The most likely share of `only_b` given the difference: a root of a quadratic, without cancellation.
        share = 2 * product / (linear + root) if linear > 0 else (root - linear) / (4 * images)
        variance = images * (2 * share + difference * (1 - difference))
        return (only_a - only_b - images * difference) ** 2 - z**2 * variance

    return float(brentq(excess, (only_a - only_b) / images + 1e-12, 1))  # just beyond the estimate, itself a root at 0


def seeds_test(differences: np.ndarray) -> float:
    """The p value of no difference in the mean, from one difference per seed."""
    if _constant(differences):
        # Of all changes of their signs, only two give as large a mean.
        return 0.5 ** (len(differences) - 1) if np.abs(differences).max() > EQUAL else 1.0
    return float(ttest_rel(differences, np.zeros(len(differences))).pvalue)


def seeds_interval(differences: np.ndarray, level: float) -> tuple[float, float]:
    """Student's interval of the mean difference in percentage points; NaN where all differences are equal."""
    if _constant(differences):
        return np.nan, np.nan
    low, high = ttest_rel(differences, np.zeros(len(differences))).confidence_interval(level)
    return max(float(low), -100.0), min(float(high), 100.0)


def sentence(row: dict[str, Any], images: int, *, same: bool) -> str:
    """State the result of a comparison; `same`: the two predict the same class for every image."""
    if same:
        return f"{row['a']} and {row['b']} have the same prediction for every image"
    if not row["only_a"] and not row["only_b"]:
        return f"no difference can be shown between {row['a']} and {row['b']} (both are right on the same images)"
    return verdict(row, digits=max(2, ceil(log10(images)) - 2))  # enough digits to show a single image


def verdict(row: dict[str, Any], *, digits: int, over: str = "") -> str:
    """State which of two networks is better, or that no difference can be shown, with interval and p value."""
    a, b, low, high = row["a"], row["b"], row["low"], row["high"]
    better = row["p_adjusted"] < ALPHA
    if better and row["difference"] < 0:
        a, b, low, high = b, a, -high, -low
    p = "p < 0.001" if row["p_adjusted"] < 0.001 else f"p = {row['p_adjusted']:.3g}"
    evidence = f"simultaneous 95 % interval {low:.{digits}f} to {high:.{digits}f}, {p}"
    if isnan(low):
        evidence = f"the same for every seed, so without an interval; exact test of the signs, {p}"
    elif better == (low <= 0 <= high):
        evidence += f"; the test decides, although the interval {'contains' if better else 'excludes'} 0"
    if better:
        return f"{a} is better than {b} by {abs(row['difference']):.{digits}f} pp{over}, {evidence}"
    return f"no difference can be shown between {a} and {b}{over} ({row['difference']:+.{digits}f} pp, {evidence})"


def _corrected(
    pairs: list[tuple[str, str]], p: list[float], outcomes: Mapping[str, np.ndarray]
) -> tuple[list[float], float]:
    """Holm's p values, and Bonferroni's level of intervals, where networks with equal outcomes count once."""
    first = {a: next(b for b in outcomes if np.array_equal(outcomes[a], outcomes[b])) for a in outcomes}
    compared = [frozenset((first[a], first[b])) for a, b in pairs]
    distinct = {networks: value for networks, value in zip(compared, p, strict=True) if len(networks) == 2}
    adjusted = dict(zip(distinct, holm(np.array(list(distinct.values()))).tolist(), strict=True))
    return [adjusted.get(networks, 1.0) for networks in compared], 1 - ALPHA / max(len(distinct), 1)


def _constant(differences: np.ndarray) -> bool:
    return bool(np.ptp(differences) <= EQUAL)
