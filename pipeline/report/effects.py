"""Main effects of factors on an outcome: a linear model, its intervals and shares of variance.

A row is a trial of a search, whose factors are its dimensions, or a trained network. Effects are additive. Interactions
between factors count as noise.
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

from pipeline.core.search_space import Choice, Dimension, Range

TAIL = 0.025  # of a 95 % interval, at either end
FREEDOM = 3  # residual degrees of freedom; with fewer, intervals are too wide to be useful
LEVEL = 0.05  # false discovery rate among the factors that are said to matter
MATTERS, NOT_SHOWN, CONSTANT, UNKNOWN = "matters", "not shown", "did not vary", "not identifiable"


@dataclass(frozen=True)
class Scale:
    """The scale on which effects add up: ratios of losses, so logarithms; differences of accuracies and losses of 0."""

    objective: str
    relative: bool

    @property
    def lower_is_better(self) -> bool:
        return self.objective == "val_loss"

    def forward(self, values: np.ndarray) -> np.ndarray:
        return np.log(values) if self.relative else values

    def back(self, values: np.ndarray) -> np.ndarray:
        return np.exp(values) if self.relative else values

    def change(self, effect: np.ndarray) -> np.ndarray:
        """An effect as a share of the objective, 0.1 for 10 % more, or as a difference."""
        return np.expm1(effect) if self.relative else effect

    def text(self, change: float) -> str:
        if self.relative:
            return f"{100 * change:+.{1 if abs(change) < 0.1 else 0}f}%"
        return f"{change:+.4g}" if self.lower_is_better else f"{100 * change:+.2f} pp"


@dataclass(frozen=True)
class Analysis:
    """The effects of factors, and their importance.

    Attributes:
        effects: a row per level other than the reference, or per range: dimension (the factor), change, reference,
            trials (rows with the level), effect, low, high (relative or a difference, see `scale`), p.
        importance: a row per factor, the largest share of variance first: dimension, effects, share, low, high, p,
            p_adjusted, verdict.
        summary: sentences on the data, the method, and what cannot be estimated.
    """

    scale: Scale
    effects: pd.DataFrame
    importance: pd.DataFrame
    summary: tuple[str, ...]


@dataclass(frozen=True)
class Factor:
    """A dimension, or the same dimension of several blocks, as columns of a linear model.

    Attributes:
        changes: the meaning of each column: a level, a step (`+0.1`) or a doubling (`x2`).
        reference: the level that the others are compared with; empty for a range.
        trials: number of trials with the level of each column in at least one block; for a range, with any value.
        columns: (trials, changes), summed over blocks. A value that is inactive in a trial is replaced by the mean of
            the active ones: the effect of its absence belongs to the dimension that makes it inactive.
        untried: the listed levels that no trial has.
    """

    name: str
    changes: tuple[str, ...]
    reference: str
    trials: tuple[int, ...]
    columns: np.ndarray
    untried: tuple[str, ...] = ()


@dataclass(frozen=True)
class Estimate:
    """The estimates for one factor; NaN where the trials do not identify them.

    Attributes:
        effects: (changes, 3): estimate, lower and upper end of its confidence interval.
        p: (changes,): p-value of each effect.
        share: of the variance between trials: estimate, lower and upper end of its confidence interval.
        p_all: p-value of all effects together.
    """

    effects: np.ndarray
    p: np.ndarray
    share: tuple[float, float, float]
    p_all: float


def label(value: Any) -> str:
    """A level as text, the same for a value and for its form in a CSV file: `2.0` is `2`."""
    if isinstance(value, bool | np.bool_):
        return str(bool(value)).lower()
    if isinstance(value, int | float | np.number):
        return f"{value:.12g}"
    return value if isinstance(value, str) else json.dumps(value)


def levels(dimension: Choice, column: pd.Series) -> np.ndarray:
    """The level of each trial as text; None where the dimension is inactive, unless null is a level."""
    missing = "null" if None in dimension.values else None
    return np.array([missing if pd.isna(value) else label(value) for value in column], dtype=object)


def step(dimension: Range) -> float:
    """The unit of an effect: the range's step, 1 for integers, otherwise a tenth of the range."""
    return dimension.step or (1 if dimension.integer else (dimension.high - dimension.low) / 10)


def factors(dimensions: Sequence[Dimension], trials: pd.DataFrame, share_blocks: bool) -> list[Factor]:
    """The factors of a table of trials, in the order of the dimensions; a constant dimension has no columns.

    Args:
        share_blocks: merge the dimensions that several blocks have in common; the effect is that in one block.
    """
    grouped: dict[str, list[Dimension]] = {}
    for dimension in dimensions:
        parts = dimension.name.split(".")
        shared = ".".join(["blocks", "*", *parts[2:]]) if share_blocks and parts[0] == "blocks" else dimension.name
        group = grouped.get(shared)
        mergeable = group is None or type(group[0]) is type(dimension)
        grouped.setdefault(shared if mergeable else dimension.name, []).append(dimension)
    return [
        _factor(name if len(members) > 1 else members[0].name, members, trials) for name, members in grouped.items()
    ]


def effects_table(factors: Sequence[Factor], estimates: Sequence[Estimate], scale: Scale) -> pd.DataFrame:
    """The table `effects` of an analysis."""
    columns = ["dimension", "change", "reference", "trials", "effect", "low", "high", "p"]
    rows = [
        (factor.name, change, factor.reference, count, *scale.change(effect), p)
        for factor, estimate in zip(factors, estimates, strict=True)
        for change, count, effect, p in zip(factor.changes, factor.trials, estimate.effects, estimate.p, strict=True)
    ]
    return pd.DataFrame(rows, columns=columns).round(12)  # an effect of 0 may differ from it in the last bits


def importance_table(factors: Sequence[Factor], estimates: Sequence[Estimate]) -> pd.DataFrame:
    """The table `importance` of an analysis.

    The verdicts control the false discovery rate (Benjamini and Hochberg, J. R. Statist. Soc. B 57, 1995).
    """
    rows = [
        (factor.name, len(factor.changes), *estimate.share, estimate.p_all)
        for factor, estimate in zip(factors, estimates, strict=True)
    ]
    table = pd.DataFrame(rows, columns=["dimension", "effects", "share", "low", "high", "p"])
    known = table["p"].notna()
    table["p_adjusted"] = np.nan
    if known.any():
        table.loc[known, "p_adjusted"] = stats.false_discovery_control(table.loc[known, "p"].to_numpy())
    table["verdict"] = np.select(
        [table["effects"] == 0, ~known, table["p_adjusted"] < LEVEL], [CONSTANT, UNKNOWN, MATTERS], NOT_SHOWN
    )
    return table.sort_values(["share", "p", "dimension"], ascending=[False, True, True], ignore_index=True)


def _factor(name: str, members: list[Dimension], trials: pd.DataFrame) -> Factor:
    ranges = [member for member in members if isinstance(member, Range)]
    if ranges:
        values = trials[[member.name for member in ranges]].to_numpy(dtype=float, na_value=np.nan)
        column = _centred(np.log2(values) if ranges[0].log else values / [step(member) for member in ranges])
        if not (np.abs(column) > 1e-9).any():
            return Factor(name, (), "", (), column[:, :0])
        unit = "x2" if ranges[0].log else f"+{step(ranges[0]):g}"
        return Factor(name, (unit,), "", (int((~np.isnan(values)).any(axis=1).sum()),), column)
    choices = [member for member in members if isinstance(member, Choice)]
    found = np.column_stack([levels(member, trials[member.name]) for member in choices])
    listed = list(dict.fromkeys(label(value) for member in choices for value in member.values))
    seen = [level for level in listed if (found == level).any()]
    reference = _reference(choices, found, seen)
    changes = tuple(level for level in seen if level != reference)
    columns = [_centred(np.where(pd.isna(found), np.nan, found == level)) for level in changes]
    counts = tuple(int((found == level).any(axis=1).sum()) for level in changes)
    untried = tuple(level for level in listed if level not in seen)
    return Factor(name, changes, reference, counts, np.hstack([np.empty((len(trials), 0)), *columns]), untried)


def _reference(choices: list[Choice], found: np.ndarray, seen: list[str]) -> str:
    """The level of most blocks of the base network; where no trial has any of these, the most frequent level."""
    for counts in (Counter(label(choice.default) for choice in choices), Counter(found.ravel().tolist())):
        common = [level for level, _ in counts.most_common() if level in seen]
        if common:
            return common[0]
    return ""


def _centred(values: np.ndarray) -> np.ndarray:
    """(trials, blocks), NaN where inactive -> (trials, 1): the sum over blocks of the deviations from block means."""
    active = ~np.isnan(values.astype(float))
    filled = np.where(active, values, 0).astype(float)
    means = filled.sum(axis=0) / np.maximum(active.sum(axis=0), 1)
    return np.where(active, filled - means, 0).sum(axis=1, keepdims=True)


def estimate(response: np.ndarray, factors: Sequence[Factor], observed: int) -> list[Estimate]:
    """Fit all factors together by least squares, with Student and F intervals.

    The share of variance is omega squared (Hays, Statistics, 1963): the variance of a factor's effects, less its
    expectation under noise, relative to itself plus that of the other factors and the noise. Its interval inverts the
    noncentral F distribution (Steiger, Psychological Methods 9, 2004). The F ratio counts only what the other factors
    cannot explain, so the variance is enlarged by what their chance correlations with the factor take from it.

    Args:
        response: (trials,), the objective.
        observed: number of trials with an observed response; extrapolated ones add no degrees of freedom.
    """
    design = np.column_stack([np.ones(len(response)), *(factor.columns for factor in factors)])
    rank = np.linalg.matrix_rank(design)
    freedom = observed - rank
    if freedom < FREEDOM:
        unknown = [np.full((len(factor.changes), 4), np.nan) for factor in factors]
        return [Estimate(each[:, :3], each[:, 3], (np.nan, np.nan, np.nan), np.nan) for each in unknown]
    inverse = np.linalg.pinv(design.T @ design)
    coefficients = inverse @ design.T @ response
    total = float(np.sum((response - response.mean()) ** 2))
    # A perfect fit leaves only rounding errors, whose ratios are meaningless.
    noise = max(float(np.sum((response - design @ coefficients) ** 2)) / freedom, 1e-9 * total)
    errors = np.sqrt(noise * np.diag(inverse))
    half = stats.t.ppf(1 - TAIL, freedom) * errors
    found, end = [], 1
    for factor in factors:
        own = np.arange(end, end + factor.columns.shape[1])
        end += len(own)
        identified = np.array([np.linalg.matrix_rank(np.delete(design, [j], axis=1)) < rank for j in own], dtype=bool)
        effects = np.column_stack([coefficients[own], coefficients[own] - half[own], coefficients[own] + half[own]])
        with np.errstate(invalid="ignore", divide="ignore"):
            p = 2 * stats.t.sf(np.abs(coefficients[own] / errors[own]), freedom)
        effects[~identified], p[~identified] = np.nan, np.nan
        found.append(Estimate(effects, p, *_share(response, design, own, _Noise(noise, freedom, inverse))))
    return found


@dataclass(frozen=True)
class _Noise:
    """The noise of a fit: its variance, degrees of freedom, and the covariance of the coefficients relative to it."""

    variance: float
    freedom: int
    covariance: np.ndarray


def _share(
    response: np.ndarray, design: np.ndarray, own: np.ndarray, noise: _Noise
) -> tuple[tuple[float, float, float], float]:
    others = np.delete(design, own, axis=1)
    effects = np.linalg.matrix_rank(design) - np.linalg.matrix_rank(others)
    count, total = len(response), float(np.sum((response - response.mean()) ** 2))
    if effects < len(own) or not len(own) or total == 0:
        return (np.nan, np.nan, np.nan), np.nan
    explained = _residual(response, others) - _residual(response, design)
    ratio = max(explained, 0) / effects / noise.variance
    coefficients = noise.covariance @ design.T @ response
    part = design[:, own] @ coefficients[own]
    unique = _residual(part, others)
    enlarged = float(np.sum((part - part.mean()) ** 2)) / unique if unique > 0 else 1.0
    rest = noise.variance + _variance_of_others(design, own, coefficients, noise)
    estimates = (
        max(explained - effects * noise.variance, 0) / count,
        _noncentrality(ratio, effects, noise.freedom, 1 - TAIL) * noise.variance / count,
        # A ratio far below 1 is chance; used directly, it would end the interval at 0.
        _noncentrality(max(ratio, 1.0), effects, noise.freedom, TAIL) * noise.variance / count,
    )
    point, low, high = (enlarged * variance / (enlarged * variance + rest) for variance in estimates)
    return (point, low, high), float(stats.f.sf(ratio, effects, noise.freedom))


def _variance_of_others(design: np.ndarray, own: np.ndarray, coefficients: np.ndarray, noise: _Noise) -> float:
    """The variance between trials that the other factors cause, less the expectation of the noise in it."""
    others = np.setdiff1d(np.arange(1, design.shape[1]), own)
    columns = design[:, others] - design[:, others].mean(axis=0)
    squares = float(np.sum((columns @ coefficients[others]) ** 2))
    chance = noise.variance * float(np.sum(columns @ noise.covariance[np.ix_(others, others)] * columns))
    return max(squares - chance, 0) / len(design)


def _noncentrality(ratio: float, effects: int, freedom: int, probability: float) -> float:
    """The noncentrality at which an F ratio up to this one has the given probability; 0 if there is none."""

    def excess(noncentrality: float) -> float:
        return float(special.ncfdtr(effects, freedom, noncentrality, ratio)) - probability

    if excess(0) <= 0:
        return 0.0
    high = 1.0
    while excess(high) > 0:
        high *= 2
    return float(brentq(excess, 0, high))


def _residual(response: np.ndarray, design: np.ndarray) -> float:
    coefficients, *_ = np.linalg.lstsq(design, response)
    return float(np.sum((response - design @ coefficients) ** 2))
