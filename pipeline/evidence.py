"""What a search says about its dimensions: how much each matters, which way, and what its trials cannot tell.

From the tables of the trials alone; docs/evidence.md explains the files that `Evidence.write` leaves.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isclose
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from pipeline import effects
from pipeline.effects import Estimate, Factor
from pipeline.space import Choice, Dimension

LEVEL = 0.05  # expected share of false ones among the dimensions that are said to matter
FREEDOM = 6  # of the noise, at least, when all effects are estimated together, and no fewer than effects
CURVES = 5  # full trials, at least, to estimate from what a shorter one would have come to
OBSERVED, ESTIMATED, REPEAT, UNUSED = "observed", "estimated", "repeat", "unused"
MATTERS, NOT_SHOWN, CONSTANT, UNKNOWN = "matters", "not shown", "did not vary", "cannot be told"

Row = dict[Any, Any]  # of a table, by column


@dataclass(frozen=True)
class Scale:
    """How effects add up: losses as ratios, so in logarithms; accuracies, and losses of 0, as differences."""

    objective: str
    relative: bool

    @property
    def lower_is_better(self) -> bool:
        return self.objective == "val_loss"

    def forward(self, figures: np.ndarray) -> np.ndarray:
        return np.log(figures) if self.relative else figures

    def back(self, figures: np.ndarray) -> np.ndarray:
        return np.exp(figures) if self.relative else figures

    def change(self, effect: np.ndarray) -> np.ndarray:
        """As a share of the figure, 0.1 for 10 % more, or as a difference of figures."""
        return np.expm1(effect) if self.relative else effect

    def back_change(self, change: np.ndarray) -> np.ndarray:
        return np.log1p(change) if self.relative else change

    def words(self, change: float) -> str:
        if self.relative:
            return f"{100 * change:+.{1 if abs(change) < 0.1 else 0}f} %"
        return f"{100 * change:+.2f} points" if self.objective == "val_accuracy" else f"{change:+.4g}"


@dataclass(frozen=True)
class Evidence:
    """What was found.

    Attributes:
        trials: the table of trials, with `figure`, the objective at the last epoch (missing where it is not known), and
            `basis`: observed, estimated, repeat (of a trial with the same values) or unused.
        factors: what was estimated, blocks taken together where the trials are too few to tell them apart.
        effects: one row per level other than the reference, or per number: dimension, change, reference, trials,
            effect, low, high (relative or a difference, see `unit`), p.
        importance: one row per factor, the largest share of variance first: dimension, effects, share, low, high, p,
            p_adjusted, verdict.
    """

    scale: Scale
    dimensions: Sequence[Dimension]
    trials: pd.DataFrame
    curves: pd.DataFrame
    factors: Sequence[Factor]
    effects: pd.DataFrame
    importance: pd.DataFrame
    best: int | None
    base: int | None
    text: str

    def write(self, folder: Path) -> None:
        """effects.csv, importance.csv, evidence.md."""
        for name, table in {"effects": self.effects, "importance": self.importance}.items():
            table.to_csv(folder / f"{name}.csv", index=False, float_format="%.6g")
        (folder / "evidence.md").write_text(self.text, encoding="utf-8")


def assess(table: pd.DataFrame, curves: pd.DataFrame, dimensions: Sequence[Dimension], objective: str) -> Evidence:
    """Weigh the trials of a search.

    Args:
        table: one row per trial: trial, status, epochs, the objective, and a column per dimension, empty where it is
            inactive.
        curves: trial, epoch, the objective, ...: one row per epoch of each trial.
        objective: val_loss or val_accuracy.
    """
    completed = table.loc[table["status"] == "COMPLETED", objective].dropna()
    scale = Scale(objective, objective == "val_loss" and bool((completed > 0).all()))
    trials = comparable(table, curves, dimensions, scale)
    base = next((int(row["trial"]) for _, row in trials.iterrows() if _is_base(row, dimensions)), None)
    observed = trials[trials["basis"] == OBSERVED].sort_values("trial")
    order = observed.sort_values("figure", ascending=scale.lower_is_better, kind="stable")
    best = None if order.empty else int(order["trial"].iloc[0])
    factors, estimates, method = _estimates(trials, dimensions, scale, base)
    found = _effects(factors, estimates, scale)
    importance = _importance(factors, estimates)
    about = _about(trials, dimensions, scale, best, base)
    text = "\n".join([*about, "", method, "", *_findings(factors, found, importance, scale)]) + "\n"
    return Evidence(scale, dimensions, trials, curves, factors, found, importance, best, base, text)


def comparable(
    table: pd.DataFrame, curves: pd.DataFrame, dimensions: Sequence[Dimension], scale: Scale
) -> pd.DataFrame:
    """The trials with a figure that can be compared, and where it comes from.

    A trial that was pruned, or that was given fewer epochs, has its figure at the last epoch estimated: the regression
    of the final figures of full trials on theirs at its last epoch, with a slope between 0 and 1. What stops a trial is
    its curve up to there, so its figure is missing at random given that curve (Rubin, Biometrika 63, 1976); leaving it
    out would hide the worst of every level.
    """
    trials = table.reset_index(drop=True)
    figures = trials[scale.objective].astype(float)
    completed = (trials["status"] == "COMPLETED") & np.isfinite(figures)
    longest = trials.loc[completed, "epochs"].max()
    full = completed & (trials["epochs"] == longest)
    basis, found = np.where(full, OBSERVED, UNUSED).astype(object), figures.where(full).to_numpy(copy=True)
    by_epoch = curves.pivot(index="trial", columns="epoch", values=scale.objective) if len(curves) else pd.DataFrame()
    finals = pd.Series(figures[full].to_numpy(), trials.loc[full, "trial"])
    for row in np.flatnonzero(((trials["status"] == "PRUNED") | completed) & ~full):
        if trials["trial"][row] in by_epoch.index:
            own = by_epoch.loc[trials["trial"][row]].dropna()
            if len(own):
                found[row] = _prediction(by_epoch[own.index[-1]].dropna(), finals, float(own.iloc[-1]), scale)
                basis[row] = ESTIMATED if np.isfinite(found[row]) else UNUSED
    trials = trials.assign(figure=found, basis=basis)
    order = trials[trials["basis"] != UNUSED].sort_values(["basis", "epochs", "trial"], ascending=[False, False, True])
    names = [dimension.name for dimension in dimensions]
    values = order[names].map(lambda value: "" if pd.isna(value) else effects.label(value))
    trials.loc[values.index[values.duplicated()], "basis"] = REPEAT
    return trials


def _prediction(seen: pd.Series, finals: pd.Series, own: float, scale: Scale) -> float:
    """The final figure of a trial that stood at `own` at an epoch where the others stood at `seen`."""
    both = seen.index.intersection(finals.index)
    if len(both) < CURVES or (scale.relative and min(seen[both].min(), own) <= 0):
        return np.nan
    x, y = scale.forward(seen[both].to_numpy()), scale.forward(finals[both].to_numpy())
    spread = float(np.sum((x - x.mean()) ** 2))
    slope = float(np.clip(np.sum((x - x.mean()) * (y - y.mean())) / spread, 0, 1)) if spread > 0 else 0.0
    return float(scale.back(y.mean() + slope * (scale.forward(np.array(own)) - x.mean())))


def _is_base(row: pd.Series, dimensions: Sequence[Dimension]) -> bool:
    for dimension in dimensions:
        if isinstance(dimension, Choice):
            [level] = effects.levels(dimension, row[[dimension.name]])
            if level not in (None, effects.label(dimension.default)):
                return False
        elif pd.notna(row[dimension.name]) and not isclose(row[dimension.name], dimension.default, abs_tol=1e-12):
            return False
    return True


def _estimates(
    trials: pd.DataFrame, dimensions: Sequence[Dimension], scale: Scale, base: int | None
) -> tuple[list[Factor], list[Estimate], str]:
    used = trials[trials["basis"].isin([OBSERVED, ESTIMATED])]
    figures = scale.forward(used["figure"].to_numpy(dtype=float))
    observed = int((used["basis"] == OBSERVED).sum())
    same = len(figures) > 1 and np.ptp(figures) <= 1e-12 * np.abs(figures).max()
    needed = []
    for share_blocks in (False, True):
        factors = effects.factors(dimensions, used, share_blocks)
        count = effects.width(factors)
        needed.append(1 + count + max(count, FREEDOM))
        if observed >= needed[-1] and not same:
            method = f"The {count} effects are estimated together from {observed} trials."
            if share_blocks and needed[0] > needed[1]:
                method += f" They are those in any one block: to tell blocks apart takes {needed[0]} trials."
            return factors, effects.estimate(figures, factors, observed), method
    drawn = used["trial"] != base
    factors = effects.factors(dimensions, used[drawn], share_blocks=True)
    figures, observed = figures[drawn], int((used["basis"][drawn] == OBSERVED).sum())
    if same:
        method = f"All trials have the same {scale.objective}: nothing in them tells one value from another."
        observed = 0
    elif observed < 2 + effects.FREEDOM:
        method = (
            f"{observed} trials beside the base are too few to estimate any effect; "
            f"{2 + effects.FREEDOM} would be a beginning, {needed[1]} would do."
        )
    else:
        method = (
            f"{observed} trials beside the base are too few to estimate the effects together ({needed[1]} would do): "
            "each dimension is looked at by itself, the others being part of the noise, and blocks count as one. That "
            "is sound when values were drawn at random; after a bayesian search or a grid it may take one dimension's "
            "doing for another's."
        )
    return factors, [effects.estimate(figures, [factor], observed)[0] for factor in factors], method


def _effects(factors: Sequence[Factor], estimates: Sequence[Estimate], scale: Scale) -> pd.DataFrame:
    columns = ["dimension", "change", "reference", "trials", "effect", "low", "high", "p", "unit"]
    unit = "relative" if scale.relative else "difference"
    rows = [
        (factor.name, change, factor.reference, count, *scale.change(effect), p, unit)
        for factor, estimate in zip(factors, estimates, strict=True)
        for change, count, effect, p in zip(factor.changes, factor.trials, estimate.effects, estimate.p, strict=True)
    ]
    return pd.DataFrame(rows, columns=columns).round(12)  # what is 0 may differ from it in the last bits


def _importance(factors: Sequence[Factor], estimates: Sequence[Estimate]) -> pd.DataFrame:
    """The verdicts hold the false discovery rate (Benjamini and Hochberg, J. R. Statist. Soc. B 57, 1995)."""
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


def _about(
    trials: pd.DataFrame, dimensions: Sequence[Dimension], scale: Scale, best: int | None, base: int | None
) -> list[str]:
    """What was searched, what became of the trials, and the best against the base."""
    better = "lower" if scale.lower_is_better else "higher"
    lines = [
        "# What the search says",
        "",
        f"{_count(len(dimensions), 'dimension')}, {_count(len(trials), 'trial')}; objective {scale.objective}, "
        f"{better} is better.",
    ]
    short = (trials["status"] == "PRUNED") | ((trials["status"] == "COMPLETED") & (trials["basis"] == ESTIMATED))
    failed = ~trials["status"].isin(["COMPLETED", "PRUNED"])
    undone = (trials["status"] == "COMPLETED") & (trials["basis"] == UNUSED)
    groups = {
        "Failed, and no part of what follows": failed,
        "Stopped early; what they would have come to is estimated from the curves of the others": short
        & (trials["basis"] == ESTIMATED),
        "Stopped early, and left out: too few full trials to estimate what they would have come to": short
        & (trials["basis"] == UNUSED),
        "Left out, as they cannot be compared with the full trials": undone,
        "Left out, as another trial has the same values": trials["basis"] == REPEAT,
    }
    lines += [f"{said}: {_numbers(trials.loc[which, 'trial'])}." for said, which in groups.items() if which.any()]
    figures = trials.set_index("trial")["figure"]
    if best is None:
        return [*lines, "No trial was completed."]
    if base is None or not np.isfinite(figures[base]):
        return [*lines, f"Best: trial {best} with {figures[best]:.4f}. The base has no figure to compare it with."]
    if best == base:
        return [*lines, f"No trial is better than the base (trial {base}), {figures[base]:.4f}."]
    gain = scale.forward(figures[[best]].to_numpy()) - scale.forward(figures[[base]].to_numpy())
    return [
        *lines,
        f"Best: trial {best} with {figures[best]:.4f}; base (trial {base}): {figures[base]:.4f}; difference "
        f"{scale.words(float(scale.change(gain)[0]))}. The best of many trials is partly the luckiest: fit it with "
        "other seeds before you quote it.",
    ]


def _findings(factors: Sequence[Factor], found: pd.DataFrame, importance: pd.DataFrame, scale: Scale) -> list[str]:
    """The verdict on each dimension, and what it rests on."""
    changes: dict[str, list[Row]] = {factor.name: [] for factor in factors}
    for row in found.to_dict("records"):
        changes[row["dimension"]].append(row)
    rows: dict[str, list[Row]] = {verdict: [] for verdict in (MATTERS, NOT_SHOWN, UNKNOWN, CONSTANT)}
    for row in importance.to_dict("records"):
        rows[row["verdict"]].append(row)
    lines = []
    if rows[MATTERS]:
        lines += ["Matters (share of the variance between trials, and effects, with 95 % intervals):", ""]
        for row in rows[MATTERS]:
            own = changes[row["dimension"]]
            share = " to ".join(f"{100 * row[end]:.0f} %" for end in ("low", "high"))
            lines.append(
                f"- `{row['dimension']}`: {100 * row['share']:.0f} % ({share}). "
                f"{_changes(own, scale)}. Favours {_favoured(own, scale)}."
            )
        lines.append("")
    elif rows[NOT_SHOWN]:
        lines += ["No dimension is shown to matter.", ""]
    if rows[NOT_SHOWN]:
        lines += ["Not shown to matter; what the intervals hold is still possible:", ""]
        lines += [f"- `{row['dimension']}`: {_changes(changes[row['dimension']], scale)}." for row in rows[NOT_SHOWN]]
        lines.append("")
    for verdict, said in ((UNKNOWN, "Cannot be told from these trials"), (CONSTANT, "Did not vary")):
        if rows[verdict]:
            lines += [f"{said}: {', '.join('`' + row['dimension'] + '`' for row in rows[verdict])}.", ""]
    untried = [f"`{factor.name}`: {', '.join(factor.untried)}" for factor in factors if factor.untried]
    if untried:
        lines += [f"In no trial that counts: {'; '.join(untried)}.", ""]
    return lines[:-1]


def _changes(rows: list[Row], scale: Scale) -> str:
    said = []
    for row in rows:
        change = f"{row['change']} instead of {row['reference']}" if row["reference"] else row["change"]
        if np.isnan(row["effect"]):
            said.append(f"{change}: cannot be told")
        else:
            effect, low, high = (scale.words(row[key]) for key in ("effect", "low", "high"))
            said.append(f"{change}: {effect} ({low} to {high})")
    return "; ".join(said)


def _favoured(rows: list[Row], scale: Scale) -> str:
    sign = 1 if scale.lower_is_better else -1
    best = min(rows, key=lambda row: sign * row["effect"])
    helps = sign * best["effect"] < 0
    if not best["reference"]:
        return "higher values" if helps else "lower values"
    return best["change"] if helps else best["reference"]


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def _numbers(trials: pd.Series) -> str:
    shown = ", ".join(str(int(number)) for number in trials.sort_values())
    return f"{_count(len(trials), 'trial')} ({shown})"
