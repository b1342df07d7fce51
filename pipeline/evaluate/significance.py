"""Comparisons of networks: paired tests and simultaneous intervals, over test images or over seeds."""

from itertools import combinations
from math import ceil, log10
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binomtest, chi2, ttest_rel

ALPHA = 0.05  # the chance of calling any two equal networks different, and of any interval missing the truth
EXACT_BELOW = 25  # images that only one of two networks gets right


def compare(predicted: dict[str, np.ndarray], labels: np.ndarray) -> pd.DataFrame:
    """Compare every pair of networks by their predictions, each of shape (n,).

    Columns: pair; a, b; only_a, only_b (images that only this one gets right); difference (accuracy of a minus that of
    b), low and high (its simultaneous 95 % interval), all in percentage points; p of McNemar's test, p_adjusted by
    Holm; sentence.

    Simultaneous: the intervals of all pairs together contain their true differences in 95 % of test sets, as each has
    Bonferroni's level. The verdict follows p_adjusted.
    """
    pairs = list(combinations(predicted, 2))
    right = {name: classes == labels for name, classes in predicted.items()}
    counts = [(int((right[a] & ~right[b]).sum()), int((right[b] & ~right[a]).sum())) for a, b in pairs]
    p = np.array([mcnemar(*count) for count in counts])
    rows = []
    for (a, b), (only_a, only_b), value, adjusted in zip(pairs, counts, p, holm(p), strict=True):
        low, high = difference_interval(only_a, only_b, len(labels), _level(pairs))
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
    are those of Student's t for their mean. Equal differences leave their spread unknown: p is 1.
    """
    by_seed = 100 * scores.pivot(index="seed", columns="model", values="accuracy")
    pairs = list(combinations(scores["model"].unique(), 2))
    tests = [_paired_t(by_seed[a], by_seed[b]) for a, b in pairs]
    p = np.array([test.pvalue if test else 1.0 for test in tests])
    rows = []
    for (a, b), test, value, adjusted in zip(pairs, tests, p, holm(p), strict=True):
        difference = float((by_seed[a] - by_seed[b]).mean())
        low, high = test.confidence_interval(_level(pairs)) if test else sorted([difference, 0.0])
        row = {
            "pair": f"{a} - {b}",
            "a": a,
            "b": b,
            "seeds": len(by_seed),
            "difference": difference,
            "low": float(low),
            "high": float(high),
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
    """The paired bootstrap's percentile interval of the difference in accuracy, in percentage points.

    Each image drawn with replacement adds 1, -1 or 0 to the difference. The distribution of the sum follows from that
    of one image by a Fourier transform: the ideal bootstrap, of infinitely many draws (Efron and Tibshirani 1993).
    """
    size = 2 * images + 1  # sums from -images to images
    turns = np.exp(2j * np.pi * np.arange(size) / size)
    one = (only_a * turns + only_b / turns + images - only_a - only_b) / images
    probabilities = np.roll(np.fft.fft(one**images).real / size, images)
    low, high = np.searchsorted(probabilities.cumsum(), [(1 - level) / 2, (1 + level) / 2]) - images
    return float(100 * low / images), float(100 * high / images)


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
    if better == (low <= 0 <= high):
        evidence += f"; the test decides, although the interval {'contains' if better else 'excludes'} 0"
    if better:
        return f"{a} is better than {b} by {abs(row['difference']):.{digits}f} pp{over}, {evidence}"
    return f"no difference can be shown between {a} and {b}{over} ({row['difference']:+.{digits}f} pp, {evidence})"


def _level(pairs: list[tuple[str, str]]) -> float:
    return 1 - ALPHA / len(pairs)


def _paired_t(a: pd.Series, b: pd.Series) -> Any:
    differences = a - b
    return None if np.allclose(differences, differences.mean()) else ttest_rel(a, b)
