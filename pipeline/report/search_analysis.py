"""Analysis of a finished search: the importance and effects of its dimensions. docs/search_analysis.md explains it."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isclose

import numpy as np
import pandas as pd

from pipeline.core.search_space import Choice, Dimension
from pipeline.report import effects
from pipeline.report.effects import MATTERS, Analysis, Estimate, Factor, Scale

FREEDOM = 6  # residual degrees of freedom of a joint fit, at least, and no fewer than it has effects
CURVES = 5  # full trials, at least, to extrapolate a shorter one
OBSERVED, EXTRAPOLATED, REPEAT, UNUSED = "observed", "extrapolated", "repeat", "unused"


@dataclass(frozen=True)
class SearchAnalysis(Analysis):
    """The effects of the dimensions; blocks are merged where trials are few. `summary` is also on the best trial.

    Attributes:
        trials: the table of trials with `final`, the objective at the last epoch (NaN where unknown), and `basis`:
            observed, extrapolated, repeat (of a trial with the same values) or unused.
        curves: trial, epoch, and the objective.
        best: number of the best trial; None if none was completed.
        base: number of the trial with the values of the base network, if there is one.
    """

    trials: pd.DataFrame
    curves: pd.DataFrame
    best: int | None
    base: int | None


def analyze(
    table: pd.DataFrame, curves: pd.DataFrame, dimensions: Sequence[Dimension], objective: str
) -> SearchAnalysis:
    """Analyze the trials of a search.

    Args:
        table: a row per trial: trial, status, epochs, the objective, and a column per dimension, empty where inactive.
        curves: a row per trial and epoch: trial, epoch, the objective.
        objective: val_loss or val_accuracy.
    """
    completed = table.loc[table["status"] == "COMPLETED", objective].dropna()
    scale = Scale(objective, objective == "val_loss" and bool((completed > 0).all()))
    trials = final_values(table, curves, dimensions, scale)
    base = next((int(row["trial"]) for _, row in trials.iterrows() if _is_base(row, dimensions)), None)
    observed = trials[trials["basis"] == OBSERVED].sort_values("trial")
    order = observed.sort_values("final", ascending=scale.lower_is_better, kind="stable")
    best = None if order.empty else int(order["trial"].iloc[0])
    factors, estimates, method = _estimates(trials, dimensions, scale, base)
    table_of_effects = effects.effects_table(factors, estimates, scale)
    importance = effects.importance_table(factors, estimates)
    summary = [*_about_trials(trials, dimensions, scale), _about_best(trials, scale, best, base), method]
    if importance["p"].notna().any() and not (importance["verdict"] == MATTERS).any():
        summary.append("No dimension is shown to matter.")
    untried = [f"{factor.name}: {', '.join(factor.untried)}" for factor in factors if factor.untried]
    summary += [f"Levels without trials: {'; '.join(untried)}."] if untried else []
    return SearchAnalysis(scale, table_of_effects, importance, tuple(summary), trials, curves, best, base)


def final_values(
    table: pd.DataFrame, curves: pd.DataFrame, dimensions: Sequence[Dimension], scale: Scale
) -> pd.DataFrame:
    """Add `final`, the objective at the last epoch, and `basis`, its origin, to the table of trials.

    The final value of a trial that was pruned, or that was given fewer epochs, is extrapolated: the regression of the
    final values of full trials on their values at its last epoch, with a slope between 0 and 1. A trial is stopped on
    its curve up to that epoch, so its final value is missing at random given the curve (Rubin, Biometrika 63, 1976);
    dropping it would hide the worst trials of every level.
    """
    trials = table.reset_index(drop=True)
    values = trials[scale.objective].astype(float)
    completed = (trials["status"] == "COMPLETED") & np.isfinite(values)
    full = completed & (trials["epochs"] == trials.loc[completed, "epochs"].max())
    basis, final = np.where(full, OBSERVED, UNUSED).astype(object), values.where(full).to_numpy(copy=True)
    by_epoch = curves.pivot(index="trial", columns="epoch", values=scale.objective) if len(curves) else pd.DataFrame()
    finals = pd.Series(values[full].to_numpy(), trials.loc[full, "trial"])
    for row in np.flatnonzero(((trials["status"] == "PRUNED") | completed) & ~full):
        if trials["trial"][row] in by_epoch.index:
            own = by_epoch.loc[trials["trial"][row]].dropna()
            if len(own):
                final[row] = _extrapolated(by_epoch[own.index[-1]].dropna(), finals, float(own.iloc[-1]), scale)
                basis[row] = EXTRAPOLATED if np.isfinite(final[row]) else UNUSED
    trials = trials.assign(final=final, basis=basis)
    order = trials[trials["basis"] != UNUSED].sort_values(["basis", "epochs", "trial"], ascending=[False, False, True])
    names = [dimension.name for dimension in dimensions]
    combinations = order[names].map(lambda value: "" if pd.isna(value) else effects.label(value))
    trials.loc[combinations.index[combinations.duplicated()], "basis"] = REPEAT
    return trials


def _extrapolated(values: pd.Series, finals: pd.Series, own: float, scale: Scale) -> float:
    """The final value of a trial with the value `own` at an epoch at which the other trials have `values`."""
    both = values.index.intersection(finals.index)
    if len(both) < CURVES or (scale.relative and min(values[both].min(), own) <= 0):
        return np.nan
    x, y = scale.forward(values[both].to_numpy()), scale.forward(finals[both].to_numpy())
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
    used = trials[trials["basis"].isin([OBSERVED, EXTRAPOLATED])]
    response = scale.forward(used["final"].to_numpy(dtype=float))
    observed = int((used["basis"] == OBSERVED).sum())
    same = len(response) > 1 and np.ptp(response) <= 1e-12 * np.abs(response).max()
    needed = []
    for share_blocks in (False, True):
        factors = effects.factors(dimensions, used, share_blocks)
        count = sum(len(factor.changes) for factor in factors)
        needed.append(1 + count + max(count, FREEDOM))
        if observed >= needed[-1] and not same:
            method = f"The {count} effects are estimated jointly from {observed} trials."
            if share_blocks and needed[0] > needed[1]:
                method += f" Blocks share their effects; estimates for each block need {needed[0]} trials."
            return factors, effects.estimate(response, factors, observed), method
    sampled = used["trial"] != base
    factors = effects.factors(dimensions, used[sampled], share_blocks=True)
    response, observed = response[sampled], int((used["basis"][sampled] == OBSERVED).sum())
    if same:
        method = f"All trials have the same {scale.objective}, so no effect can be estimated."
        observed = 0
    elif observed < 2 + effects.FREEDOM:
        method = (
            f"{observed} trials beside the base are too few to estimate any effect: marginal estimates need "
            f"{2 + effects.FREEDOM}, joint ones {needed[1]}."
        )
    else:
        method = (
            f"{observed} trials beside the base are too few for a joint fit (it needs {needed[1]}): each dimension is "
            "estimated marginally, with the variation due to the others as noise, and blocks share their effects. This "
            "is sound for values sampled at random; after a bayesian search or a grid it may confound dimensions."
        )
    return factors, [effects.estimate(response, [factor], observed)[0] for factor in factors], method


def _about_trials(trials: pd.DataFrame, dimensions: Sequence[Dimension], scale: Scale) -> list[str]:
    status, basis = trials["status"], trials["basis"]
    groups = {
        "Failed, and excluded": ~status.isin(["COMPLETED", "PRUNED"]),
        "Stopped early, final values extrapolated from the curves of full trials": basis == EXTRAPOLATED,
        "Stopped early, and excluded: too few full trials to extrapolate": (status == "PRUNED") & (basis == UNUSED),
        "Excluded, not comparable with full trials": (status == "COMPLETED") & (basis == UNUSED),
        "Excluded, same values as another trial": basis == REPEAT,
    }
    better = "lower" if scale.lower_is_better else "higher"
    counts = f"{_count(len(dimensions), 'dimension')}, {_count(len(trials), 'trial')}"
    sentences = [f"{counts}; objective {scale.objective}, {better} is better."]
    for text, chosen in groups.items():
        if chosen.any():
            numbers = ", ".join(str(int(number)) for number in trials.loc[chosen, "trial"].sort_values())
            sentences.append(f"{text}: {_count(int(chosen.sum()), 'trial')} ({numbers}).")
    return sentences


def _about_best(trials: pd.DataFrame, scale: Scale, best: int | None, base: int | None) -> str:
    final = trials.set_index("trial")["final"]
    if best is None:
        return "No trial was completed."
    if base is None or not np.isfinite(final[base]):
        return f"Best: trial {best}, {final[best]:.4f}. The base has no value to compare it with."
    if best == base:
        return f"No trial is better than the base (trial {base}), {final[base]:.4f}."
    gain = scale.forward(final[[best]].to_numpy()) - scale.forward(final[[base]].to_numpy())
    return (
        f"Best: trial {best}, {final[best]:.4f}; base (trial {base}): {final[base]:.4f}; difference "
        f"{scale.text(float(scale.change(gain)[0]))}. The best value of many trials is optimistically biased; fits "
        "with other seeds are not."
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
