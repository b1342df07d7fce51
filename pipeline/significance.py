"""Whether one network is better than another, by how much, and how sure that is, from the same test images."""

from itertools import combinations
from math import ceil, log10
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binomtest, chi2, ttest_rel

ALPHA = 0.05  # the chance of calling any two equal networks different
EXACT_BELOW = 25  # images that only one of two networks gets right


def compare(predicted: dict[str, np.ndarray], labels: np.ndarray) -> pd.DataFrame:
    """Every pair of networks, by their answers, each of shape (n,).

    Columns: pair; a, b; only_a, only_b (images that only this one gets right); difference (accuracy of a minus that of
    b), low and high (its interval), all in percentage points; p of McNemar's test, p_adjusted by Holm; sentence.

    The interval has the level at which Holm's procedure tests its pair, 95 % for one pair and more for several, and
    holds 0 where that test does not reject. So it never says anything else than p_adjusted.
    """
    pairs = list(combinations(predicted, 2))
    right = {name: answers == labels for name, answers in predicted.items()}
    counts = [(int((right[a] & ~right[b]).sum()), int((right[b] & ~right[a]).sum())) for a, b in pairs]
    p = np.array([mcnemar(*count) for count in counts])
    adjusted, levels = holm(p)
    rows = []
    for (a, b), (only_a, only_b), value, corrected, level in zip(pairs, counts, p, adjusted, levels, strict=True):
        low, high = difference_interval(only_a, only_b, len(labels), level)
        if corrected >= ALPHA:
            low, high = min(low, 0.0), max(high, 0.0)
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
            "p_adjusted": corrected,
        }
        same = bool((predicted[a] == predicted[b]).all())
        rows.append(row | {"sentence": sentence(row, len(labels), same=same)})
    return pd.DataFrame(rows)


def mcnemar(only_a: int, only_b: int) -> float:
    """The p value of McNemar's test (1947) for two networks of equal accuracy.

    From the images that only one of them gets right: the exact binomial test where these are fewer than EXACT_BELOW,
    else chi-squared with Edwards's correction for continuity (1948).
    """
    differing = only_a + only_b
    if not differing:
        return 1.0
    if differing < EXACT_BELOW:
        return float(binomtest(only_a, differing).pvalue)
    return float(chi2.sf(max(abs(only_a - only_b) - 1, 0) ** 2 / differing, df=1))


def holm(p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """p values corrected for their number (Holm 1979), and the level of confidence that each is tested at.

    From the first that is not rejected on, all are tested at the level of that one.
    """
    factors = (p[:, None] <= p).sum(axis=1)  # the pair itself, and those that are not surer
    order = np.argsort(p, kind="stable")
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(np.maximum.accumulate((p * factors)[order]), 1)
    undecided = adjusted >= ALPHA
    factors[undecided] = factors[undecided].max(initial=1)
    return adjusted, 1 - ALPHA / factors


def difference_interval(only_a: int, only_b: int, images: int, level: float) -> tuple[float, float]:
    """The paired bootstrap's percentile interval of the difference of accuracy, in percentage points.

    Each image drawn with replacement adds 1, -1 or 0 to the difference. The distribution of the sum follows from that
    of one image by a Fourier transform: the ideal bootstrap, of infinitely many draws (Efron and Tibshirani 1993).
    """
    size = 2 * images + 1  # sums from -images to images
    turns = np.exp(2j * np.pi * np.arange(size) / size)
    one = (only_a * turns + only_b / turns + images - only_a - only_b) / images
    probabilities = np.roll(np.fft.fft(one**images).real / size, images)
    low, high = np.searchsorted(probabilities.cumsum(), [(1 - level) / 2, (1 + level) / 2]) - images
    return float(100 * low / images), float(100 * high / images)


def compare_seeds(scores: pd.DataFrame) -> pd.DataFrame:
    """Every pair of networks over several seeds, from the rows model, seed, accuracy.

    Columns as those of `compare`, but `seeds` for the images: differences are paired by seed, the interval and p are
    those of Student's t for their mean. Where all differences are the same, nothing is known of their spread: p is 1.
    """
    by_seed = 100 * scores.pivot(index="seed", columns="model", values="accuracy")
    pairs = list(combinations(scores["model"].unique(), 2))
    tests = [_paired_t(by_seed[a], by_seed[b]) for a, b in pairs]
    p = np.array([test.pvalue if test else 1.0 for test in tests])
    adjusted, levels = holm(p)
    rows = []
    for (a, b), test, value, corrected, level in zip(pairs, tests, p, adjusted, levels, strict=True):
        difference = float((by_seed[a] - by_seed[b]).mean())
        interval = test.confidence_interval(level) if test else sorted([difference, 0.0])
        row = {
            "pair": f"{a} - {b}",
            "a": a,
            "b": b,
            "seeds": len(by_seed),
            "difference": difference,
            "low": float(interval[0]),
            "high": float(interval[1]),
            "p": value,
            "p_adjusted": corrected,
        }
        rows.append(row | {"sentence": verdict(row, digits=2, over=f" over {len(by_seed)} seeds")})
    return pd.DataFrame(rows)


def sentence(row: dict[str, Any], images: int, *, same: bool) -> str:
    """What a comparison says, in words; `same`: the two give the same answer for every image."""
    if same:
        return f"{row['a']} and {row['b']} give the same answer for every image"
    if not row["only_a"] and not row["only_b"]:
        return f"no difference can be shown between {row['a']} and {row['b']} (they are right on the same images)"
    return verdict(row, digits=max(2, ceil(log10(images)) - 2))  # one image more or less is to be seen


def verdict(row: dict[str, Any], *, digits: int, over: str = "") -> str:
    """Which of two networks is better, or that this cannot be said, with the figures that say so."""
    a, b, low, high = row["a"], row["b"], row["low"], row["high"]
    better = row["p_adjusted"] < ALPHA
    if better and row["difference"] < 0:
        a, b, low, high = b, a, -high, -low
    p = "p < 0.001" if row["p_adjusted"] < 0.001 else f"p = {row['p_adjusted']:.3g}"
    sure = f"95 % interval {low:.{digits}f} to {high:.{digits}f}, {p}"
    if better:
        return f"{a} is better than {b} by {abs(row['difference']):.{digits}f} pp{over}, {sure}"
    return f"no difference can be shown between {a} and {b}{over} ({row['difference']:+.{digits}f} pp, {sure})"


def _paired_t(a: pd.Series, b: pd.Series) -> Any:
    differences = a - b
    return None if np.allclose(differences, differences.mean()) else ttest_rel(a, b)
