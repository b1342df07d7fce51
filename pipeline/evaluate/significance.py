"""Comparisons of networks: paired tests and simultaneous intervals, over test images or over seeds."""

from collections.abc import Hashable, Mapping, Sequence
from itertools import combinations
from math import sqrt

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.special import ndtri
from scipy.stats import binom, t

ALPHA = 0.05  # the chance of calling any two equal networks different, and of any interval missing the truth
EQUAL = 1e-6  # percentage points by which equal differences differ through rounding

Pairs = Sequence[tuple[str, str]]


def compare(predicted: Mapping[str, np.ndarray], labels: np.ndarray, pairs: Pairs | None = None) -> pd.DataFrame:
    """Compare pairs of networks, by default all, by their predictions, each of shape (n,).

    Columns: pair; a, b; only_a, only_b (images that only this one gets right); same (identical predictions);
    difference (accuracy of a minus that of b), low and high (its simultaneous 95 % interval), all in percentage points;
    p of McNemar's test, p_adjusted by Holm.

    Simultaneous: the intervals of all pairs together contain their true differences in 95 % of test sets, as each has
    Bonferroni's level. Networks with identical predictions count once in both corrections.
    """
    names = list(predicted)
    pairs = list(combinations(names, 2)) if pairs is None else pairs
    a, b = ([names.index(pair[side]) for pair in pairs] for side in (0, 1))
    right = np.array([predicted[name] == labels for name in names])
    only = right.astype(int) @ (~right).T.astype(int)  # images that the row's network gets right, the column's not
    only_a, only_b = only[a, b], only[b, a]
    p = mcnemar(only_a, only_b)
    same, adjusted, level = _corrected(pairs, p, {name: classes.tobytes() for name, classes in predicted.items()})
    counts = zip(only_a.tolist(), only_b.tolist(), strict=True)
    intervals = [difference_interval(*count, len(labels), level) for count in counts]
    columns = _named(pairs) | {
        "only_a": only_a,
        "only_b": only_b,
        "same": same,
        "difference": 100 * (only_a - only_b) / len(labels),
        "low": [low for low, _ in intervals],
        "high": [high for _, high in intervals],
        "p": p,
        "p_adjusted": adjusted,
    }
    return pd.DataFrame(columns)


def compare_seeds(scores: pd.DataFrame) -> pd.DataFrame:
    """Compare every pair of networks over several seeds.

    Columns as those of `compare`, with `seeds` in place of the images. Differences are paired by seed; interval and p
    are those of Student's t for their mean. Where every seed has the same difference, there is no interval, and p is
    that of the exact test by changes of sign (Fisher 1935). Networks with identical predictions for every seed count
    once.

    Args:
        scores: model, seed, accuracy, and `predictions`, which is equal for equal predictions.
    """
    names = scores["model"].unique().tolist()
    by_seed = scores.pivot(index="model", columns="seed", values=["accuracy", "predictions"]).loc[names]
    accuracies = 100 * by_seed["accuracy"].to_numpy(float)
    outcomes = dict(zip(names, map(tuple, by_seed["predictions"].to_numpy()), strict=True))
    pairs = list(combinations(names, 2))
    a, b = ([names.index(pair[side]) for pair in pairs] for side in (0, 1))
    differences = accuracies[a] - accuracies[b]
    p = seeds_test(differences)
    same, adjusted, level = _corrected(pairs, p, outcomes)
    low, high = seeds_interval(differences, level)
    columns = _named(pairs) | {
        "seeds": [accuracies.shape[1]] * len(pairs),
        "same": same,
        "difference": differences.mean(axis=1),
        "low": low,
        "high": high,
        "p": p,
        "p_adjusted": adjusted,
    }
    return pd.DataFrame(columns)


def mcnemar(only_a: np.ndarray | int, only_b: np.ndarray | int) -> np.ndarray:
    """The p value of McNemar's exact test (1947) for two networks of equal accuracy.

    From the images that only one of them gets right: each of the two is as likely to be it.
    """
    return np.minimum(2 * binom.cdf(np.minimum(only_a, only_b), np.add(only_a, only_b), 0.5), 1)


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
    z = -float(ndtri((1 - level) / 2))
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


def seeds_test(differences: np.ndarray) -> np.ndarray:
    """The p value of no difference in the mean, from one difference per seed, along the last axis."""
    seeds, largest = differences.shape[-1], np.abs(differences).max(axis=-1)
    # If all are equal, only two of all changes of their signs give as large a mean.
    signs = np.where(largest > EQUAL, 0.5 ** (seeds - 1), 1.0)
    error = _standard_error(differences)
    with np.errstate(invalid="ignore"):
        student = 2 * t.sf(np.abs(differences.mean(axis=-1)) / error, seeds - 1)
    return np.where(np.isnan(error), signs, student)


def seeds_interval(differences: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Student's interval of the mean difference in percentage points; NaN where all differences are equal."""
    half = t.isf((1 - level) / 2, differences.shape[-1] - 1) * _standard_error(differences)
    mean = differences.mean(axis=-1)
    return np.maximum(mean - half, -100), np.minimum(mean + half, 100)


def _standard_error(differences: np.ndarray) -> np.ndarray:
    """That of the mean along the last axis; NaN where all differences are equal."""
    error = differences.std(axis=-1, ddof=1) / sqrt(differences.shape[-1])
    return np.where(np.ptp(differences, axis=-1) > EQUAL, error, np.nan)


def _corrected(pairs: Pairs, p: np.ndarray, outcomes: Mapping[str, Hashable]) -> tuple[list[bool], list[float], float]:
    """Equality of the outcomes of each pair, Holm's p values, and Bonferroni's level of intervals.

    Networks with equal outcomes count once.
    """
    compared = [frozenset((outcomes[a], outcomes[b])) for a, b in pairs]
    distinct = {networks: value for networks, value in zip(compared, p.tolist(), strict=True) if len(networks) == 2}
    adjusted = dict(zip(distinct, holm(np.array(list(distinct.values()))).tolist(), strict=True))
    same = [len(networks) == 1 for networks in compared]
    return same, [adjusted.get(networks, 1.0) for networks in compared], 1 - ALPHA / max(len(distinct), 1)


def _named(pairs: Pairs) -> dict[str, Sequence[object] | np.ndarray]:
    """The first columns of a table of comparisons."""
    return {"pair": [f"{a} - {b}" for a, b in pairs], "a": [a for a, _ in pairs], "b": [b for _, b in pairs]}
