"""Sentences on comparisons of two networks, from a row of a table of comparisons."""

from collections.abc import Mapping
from math import ceil, isnan, log10
from typing import Any

ALPHA = 0.05  # of p_adjusted, below which two networks differ
LEVEL = "simultaneous 95 %"  # of the intervals in tables of comparisons


def over_images(row: Mapping[str, Any], images: int) -> str:
    """State the result of a comparison on the same test images."""
    if row["same"]:
        return f"{row['a']} and {row['b']} have the same prediction for every image"
    if not row["only_a"] and not row["only_b"]:
        return f"no difference can be shown between {row['a']} and {row['b']} (both are right on the same images)"
    return _verdict(row, digits=max(2, ceil(log10(images)) - 2))  # enough digits to show a single image


def over_seeds(row: Mapping[str, Any]) -> str:
    """State the result of a comparison of means over seeds."""
    if row["same"]:
        return f"{row['a']} and {row['b']} have the same prediction for every image, with every seed"
    return _verdict(row, digits=2, over=f" over {row['seeds']} seeds")


def _verdict(row: Mapping[str, Any], *, digits: int, over: str = "") -> str:
    """State which of two networks is better, or that no difference can be shown, with interval and p value."""
    a, b, low, high = row["a"], row["b"], row["low"], row["high"]
    better = row["p_adjusted"] < ALPHA
    if better and row["difference"] < 0:
        a, b, low, high = b, a, -high, -low
    p = "p < 0.001" if row["p_adjusted"] < 0.001 else f"p = {row['p_adjusted']:.3g}"
    evidence = f"{LEVEL} interval {low:.{digits}f} to {high:.{digits}f}, {p}"
    if isnan(low):
        evidence = f"the same for every seed, so without an interval; exact test of the signs, {p}"
    elif better == (low <= 0 <= high):
        evidence += f"; the test decides, although the interval {'contains' if better else 'excludes'} 0"
    if better:
        return f"{a} is better than {b} by {abs(row['difference']):.{digits}f} pp{over}, {evidence}"
    return f"no difference can be shown between {a} and {b}{over} ({row['difference']:+.{digits}f} pp, {evidence})"
