"""Effects of the factors that vary among the networks (pooling, dropout, ...) on the test accuracy."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from pipeline.core import summary
from pipeline.core.records import TrainingRecord
from pipeline.core.search_space import Choice
from pipeline.report import effects
from pipeline.report.effects import FREEDOM, Analysis, Factor, Scale
from pipeline.report.ranking import named

SCALE = Scale("test accuracy", relative=False)


def analyze(networks: Mapping[str, TrainingRecord], accuracy: pd.DataFrame) -> Analysis:
    """Estimate the effect of each factor, jointly, as differences of accuracies (shares).

    A row is a network and a seed. All networks have the same seeds, so each seed is a block: deviations from the means
    of the seeds are fitted, and the seeds take degrees of freedom. The tables are empty where there is no factor whose
    effect could be told from those of the others; `summary` then gives the reason.

    Args:
        accuracy: (network, seed), as shares.
    """
    every = _levels(networks)
    levels, left_out = _comparable(every)
    factors, aliased = _factors(levels)
    if not factors:
        return _nothing(_reason(every))
    outcome = accuracy.loc[levels.index]
    seeds = outcome.shape[1]
    deviations = (outcome - outcome.mean()).to_numpy().ravel()
    short = levels[factors].apply(_short)
    rows = short.loc[short.index.repeat(seeds)].reset_index(drop=True)
    built = effects.factors([_choice(name, short[name]) for name in factors], rows, share_blocks=False)
    notes = [f"Left out, different from all others in several factors: {', '.join(left_out)}."] if left_out else []
    notes += [_together(group) for group in aliased]
    observed, rank = len(rows) - (seeds - 1), _rank(built, len(rows))
    if observed - rank < FREEDOM:
        needed = -(-(FREEDOM + rank - 1) // (len(levels) - 1))
        return _nothing(
            f"{len(levels)} networks with {_count(seeds, 'seed')} are too few to estimate the effects of "
            f"{', '.join(factors)}; set evaluate.seeds to {needed} or more.",
            *notes,
        )
    if np.ptp(outcome.to_numpy()) == 0:
        return _nothing("All networks have the same accuracy, so no effect can be estimated.", *notes)
    estimates = effects.estimate(deviations, built, observed)
    shown = [number for number, factor in enumerate(built) if factor.name not in {each[0] for each in aliased}]
    built, estimates = [built[number] for number in shown], [estimates[number] for number in shown]
    importance = effects.importance_table(built, estimates)
    if (importance["verdict"] == effects.UNKNOWN).all():
        return _nothing(_reason(levels), *notes)
    if unknown := importance.loc[importance["verdict"] == effects.UNKNOWN, "dimension"].tolist():
        notes.append(f"Not identifiable, some of their levels differ together: {', '.join(unknown)}.")
    by_seed = f", each seed a block of {_count(len(levels), 'network')}" if seeds > 1 else ", one per network"
    method = (
        f"Effects of {_count(len(built), 'factor')} on the test accuracy, estimated jointly from "
        f"{_count(len(rows), 'training')}{by_seed}. Effects are additive; interactions count as noise."
    )
    return Analysis(SCALE, effects.effects_table(built, estimates, SCALE), importance, (method, *notes))


def _levels(networks: Mapping[str, TrainingRecord]) -> pd.DataFrame:
    """The level of each factor of each network; None where inactive. Equal networks occur once."""
    distinct = dict[str, TrainingRecord]()
    for name, record in networks.items():
        if all(record.network != other.network for other in distinct.values()):
            distinct[name] = record
    rows = {name: summary.factors(record.network) for name, record in distinct.items()}
    return pd.DataFrame.from_dict(rows, orient="index").map(_active)


def _active(level: str) -> str | None:
    """A level without the blocks that lack the factor, if the others agree."""
    found = {part for part in level.split(summary.SEPARATOR) if part != summary.ABSENT}
    return (found.pop() if len(found) == 1 else level) or None


def _comparable(levels: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The networks and factors to analyze, and the networks left out.

    A network with levels of its own in several factors tells nothing of any of them.
    """
    left_out = list[str]()
    while len(levels):
        levels = levels.loc[:, levels.nunique() > 1]
        own = sum((levels[name].map(levels[name].value_counts()) == 1 for name in levels), pd.Series(0, levels.index))
        if levels.shape[1] < 2 or not (own > 1).any():
            break
        left_out += own.index[own > 1].tolist()
        levels = levels[own <= 1]
    return levels, left_out


def _factors(levels: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """The factors to fit, one for each group of factors that always change together, and these groups."""
    groups = dict[tuple[int, ...], list[str]]()
    for name in levels:
        groups.setdefault(tuple(pd.factorize(levels[name])[0].tolist()), []).append(str(name))
    aliased = [group for group in groups.values() if len(group) > 1]
    return ([group[0] for group in groups.values()] if len(aliased) < len(groups) else []), aliased


def _short(column: pd.Series) -> pd.Series:
    """Levels without the blocks whose level is the same in all networks: 0·0.2·0.2 and 0·0.5·0.5 are 0.2 and 0.5."""
    blocks = column.str.split(summary.SEPARATOR, expand=True)
    if blocks.isna().to_numpy().any():  # inactive in a network, or not one level per block
        return column
    varying = blocks.loc[:, blocks.nunique() > 1]
    return varying.agg(lambda row: row.iloc[0] if row.nunique() == 1 else summary.SEPARATOR.join(row), axis=1)


def _choice(name: str, column: pd.Series) -> Choice:
    """The reference is the most frequent level, the first of equals."""
    counts = column.value_counts(sort=False)
    return Choice(name, name, str(counts.idxmax()), tuple(counts.index))


def _rank(factors: list[Factor], rows: int) -> int:
    return int(np.linalg.matrix_rank(np.column_stack([np.ones(rows), *(factor.columns for factor in factors)])))


def _nothing(*sentences: str) -> Analysis:
    return Analysis(SCALE, effects.effects_table([], [], SCALE), effects.importance_table([], []), sentences)


def _reason(levels: pd.DataFrame) -> str:
    if len(levels) < 2:
        return "Effects of single factors need two different networks or more."
    differing = [str(name) for name in levels if levels[name].nunique() > 1]
    return (
        f"The networks differ in several factors at once ({named(differing)}), so the effects cannot be told apart. "
        "Vary one factor, or a grid of several."
    )


def _together(group: list[str]) -> str:
    return f"Aliased, and not estimated: {', '.join(group[:-1])} and {group[-1]} always change together."


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"
