"""Main effects of a search's dimensions on its objective: a linear model, its intervals and shares of variance.

Every effect is a fixed difference that adds to the others; what depends on two dimensions at once counts as noise.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import special, stats
from scipy.optimize import brentq

from pipeline.space import Choice, Dimension, Range

CONFIDENCE = 0.95
TAIL = (1 - CONFIDENCE) / 2
FREEDOM = 3  # degrees of freedom of the noise: with fewer an interval says next to nothing


@dataclass(frozen=True)
class Factor:
    """A dimension, or the same one of several blocks, as columns of a linear model.

    Attributes:
        changes: what each column stands for: a level, a step (`+0.1`) or a doubling (`x2`).
        reference: the level that the others are compared with; empty for a number.
        trials: how many trials have the level of each column in some block; for a number, any value.
        columns: (trials, changes); the sum over blocks. A value that is inactive in a trial is the mean of the others:
            what its absence does belongs to the dimension that makes it inactive.
    """

    name: str
    members: tuple[Dimension, ...]
    changes: tuple[str, ...]
    reference: str
    trials: tuple[int, ...]
    columns: np.ndarray

    @property
    def numeric(self) -> bool:
        return isinstance(self.members[0], Range)

    @property
    def untried(self) -> list[str]:
        """The listed levels that no trial has."""
        listed = {
            label(value): None for member in self.members if isinstance(member, Choice) for value in member.values
        }
        return [level for level in listed if level not in (self.reference, *self.changes)]


@dataclass(frozen=True)
class Estimate:
    """What is known of one factor; NaN where the trials cannot tell.

    Attributes:
        effects: (changes, 3): estimate, and both ends of its confidence interval.
        p: (changes,): of each effect.
        share: of the variance between trials: estimate, and both ends of its confidence interval.
        p_all: of all its effects at once.
    """

    effects: np.ndarray
    p: np.ndarray
    share: tuple[float, float, float]
    p_all: float


def label(value: Any) -> str:
    """A level as text, the same for a value and for what a CSV file makes of it: `2.0` is `2`."""
    if isinstance(value, bool | np.bool_):
        return str(bool(value)).lower()
    if isinstance(value, int | float | np.number):
        return f"{value:.12g}"
    if isinstance(value, str):
        return value
    return json.dumps(value)


def levels(dimension: Choice, column: pd.Series) -> np.ndarray:
    """The level of each trial as text; None where the dimension is inactive, unless null is a level."""
    missing = "null" if None in dimension.values else None
    return np.array([missing if pd.isna(value) else label(value) for value in column], dtype=object)


def position(dimension: Range, column: pd.Series) -> np.ndarray:
    """Where a trial is in a range, in steps, or in doublings where the range is logarithmic."""
    values = column.to_numpy(dtype=float, na_value=np.nan)
    return np.log2(values) if dimension.log else values / step(dimension)


def step(dimension: Range) -> float:
    """The unit of an effect: the range's step, 1 for an integer, else a tenth of the range."""
    return dimension.step or (1 if dimension.integer else (dimension.high - dimension.low) / 10)


def factors(dimensions: Sequence[Dimension], trials: pd.DataFrame, share_blocks: bool) -> list[Factor]:
    """The factors of a table of trials, in the order of the dimensions; one that never varied has no columns.

    Args:
        share_blocks: take what is searched in several blocks as one factor, its effect being that in one block.
    """
    grouped: dict[str, list[Dimension]] = {}
    for dimension in dimensions:
        parts = dimension.name.split(".")
        shared = ".".join(["blocks", "*", *parts[2:]]) if share_blocks and parts[0] == "blocks" else dimension.name
        alike = [same for name, same in grouped.items() if name == shared and type(same[0]) is type(dimension)]
        grouped.setdefault(shared if alike or shared not in grouped else dimension.name, []).append(dimension)
    return [
        _factor(name if len(members) > 1 else members[0].name, members, trials) for name, members in grouped.items()
    ]


def _factor(name: str, members: list[Dimension], trials: pd.DataFrame) -> Factor:
    ranges = [member for member in members if isinstance(member, Range)]
    if ranges:
        places = np.column_stack([position(member, trials[member.name]) for member in ranges])
        column = _centred(places)
        varied = (np.abs(column) > 1e-9).any(axis=0)
        unit = "x2" if ranges[0].log else f"+{step(ranges[0]):g}"
        active = int((~np.isnan(places)).any(axis=1).sum())
        return Factor(
            name, tuple(members), (unit,) * int(varied.sum()), "", (active,) * int(varied.sum()), column[:, varied]
        )
    choices = [member for member in members if isinstance(member, Choice)]
    found = np.column_stack([levels(member, trials[member.name]) for member in choices])
    listed = dict.fromkeys(label(value) for member in choices for value in member.values)
    seen = [level for level in listed if (found == level).any()]
    reference = _reference(choices, found, seen)
    changes = tuple(level for level in seen if level != reference)
    active = ~pd.isna(found)
    columns = [_centred(np.where(active, found == level, np.nan)) for level in changes]
    counts = tuple(int((found == level).any(axis=1).sum()) for level in changes)
    return Factor(name, tuple(members), changes, reference, counts, np.hstack([np.empty((len(trials), 0)), *columns]))


def _reference(choices: list[Choice], found: np.ndarray, seen: list[str]) -> str:
    """The level that most blocks of the base network have; if no trial has one of them, the most frequent."""
    for counts in (Counter(label(choice.default) for choice in choices), Counter(found.ravel().tolist())):
        common = [level for level, _ in counts.most_common() if level in seen]
        if common:
            return common[0]
    return ""


def _centred(values: np.ndarray) -> np.ndarray:
    """(trials, blocks), NaN where inactive -> (trials, 1): the sum over blocks of what is beyond the block's mean."""
    active = ~np.isnan(values.astype(float))
    filled = np.where(active, values, 0).astype(float)
    means = filled.sum(axis=0) / np.maximum(active.sum(axis=0), 1)
    return np.where(active, filled - means, 0).sum(axis=1, keepdims=True)


def width(factors: Sequence[Factor]) -> int:
    """How many effects there are to estimate."""
    return sum(factor.columns.shape[1] for factor in factors)


def estimate(figures: np.ndarray, factors: Sequence[Factor], observed: int) -> list[Estimate]:
    """Fit the factors together, by least squares, with Student and F intervals.

    The share of variance of a factor is omega squared (Hays, Statistics, 1963): its sum of squares beyond all other
    factors, less what noise would give, over itself and what it does not explain. Its interval inverts the noncentral F
    distribution (Steiger, Psychological Methods 9, 2004).

    Args:
        figures: (n,), one per trial.
        observed: how many of them were observed, not estimated from others: only these are degrees of freedom.
    """
    design = np.column_stack([np.ones(len(figures)), *(factor.columns for factor in factors)])
    rank = np.linalg.matrix_rank(design)
    freedom = observed - rank
    if freedom < FREEDOM:
        return [_unknown(factor) for factor in factors]
    inverse = np.linalg.pinv(design.T @ design)
    coefficients = inverse @ design.T @ figures
    total = float(np.sum((figures - figures.mean()) ** 2))
    # A perfect fit leaves rounding errors: their ratios would mean nothing.
    noise = max(float(np.sum((figures - design @ coefficients) ** 2)) / freedom, 1e-9 * total)
    errors = np.sqrt(noise * np.diag(inverse))
    half = stats.t.ppf(1 - TAIL, freedom) * errors
    found, end = [], 1
    for factor in factors:
        own = np.arange(end, end + factor.columns.shape[1])
        end += len(own)
        apart = np.array([np.linalg.matrix_rank(np.delete(design, [j], axis=1)) < rank for j in own], dtype=bool)
        effects = np.column_stack([coefficients[own], coefficients[own] - half[own], coefficients[own] + half[own]])
        with np.errstate(invalid="ignore", divide="ignore"):
            p = 2 * stats.t.sf(np.abs(coefficients[own] / errors[own]), freedom)
        effects[~apart], p[~apart] = np.nan, np.nan
        found.append(Estimate(effects, p, *_share(figures, design, own, noise, freedom)))
    return found


def _share(
    figures: np.ndarray, design: np.ndarray, own: np.ndarray, noise: float, freedom: int
) -> tuple[tuple[float, float, float], float]:
    others = np.delete(design, own, axis=1)
    effects = np.linalg.matrix_rank(design) - np.linalg.matrix_rank(others)
    total = float(np.sum((figures - figures.mean()) ** 2))
    if effects < len(own) or not len(own) or total == 0:
        return (np.nan, np.nan, np.nan), np.nan
    explained = _residual(figures, others) - _residual(figures, design)
    ratio = max(explained, 0) / effects / noise
    count = len(figures)
    rest = max(noise, (total - explained) / (count - 1 - effects))
    estimates = (
        max(explained - effects * noise, 0) / count,
        _noncentrality(ratio, effects, freedom, 1 - TAIL) * noise / count,
        # A ratio far below 1 is luck: taken at its word, it would end the interval at 0.
        _noncentrality(max(ratio, 1.0), effects, freedom, TAIL) * noise / count,
    )
    point, low, high = (variance / (variance + rest) for variance in estimates)
    return (point, low, high), float(stats.f.sf(ratio, effects, freedom))


def _noncentrality(ratio: float, effects: int, freedom: int, probability: float) -> float:
    """The noncentrality at which an F ratio of at most this has the probability; 0 if there is none."""

    def excess(noncentrality: float) -> float:
        return float(special.ncfdtr(effects, freedom, noncentrality, ratio)) - probability

    if excess(0) <= 0:
        return 0.0
    high = 1.0
    while excess(high) > 0:
        high *= 2
    return float(brentq(excess, 0, high))


def _residual(figures: np.ndarray, design: np.ndarray) -> float:
    coefficients, *_ = np.linalg.lstsq(design, figures)
    return float(np.sum((figures - design @ coefficients) ** 2))


def _unknown(factor: Factor) -> Estimate:
    count = len(factor.changes)
    return Estimate(np.full((count, 3), np.nan), np.full(count, np.nan), (np.nan, np.nan, np.nan), np.nan)
