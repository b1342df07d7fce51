"""Ranking of the networks by test accuracy, and the evidence for it: pairs, baselines, warnings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from scipy import stats

from pipeline.core import summary
from pipeline.core.advice import advice
from pipeline.core.records import SearchRecord, TrainingRecord
from pipeline.report import verdicts
from pipeline.report.verdicts import ALPHA

BEST, WITHIN_NOISE, WORSE = GROUPS = ("best", "within noise", "worse")
SHOWN = ("pooling", "dropout")  # factors that the table has even where they do not vary
NAMED = 5  # networks of a group in the headline
FEW = 5  # seeds; with fewer, a warning
PAIR = ["pair", "a", "b", "same", "difference", "low", "high", "p", "p_adjusted"]
ONLY = ["only_a", "only_b"]
DIGITS = 12  # of scores and differences; others are rounding errors
COST = ("images_per_second", "latency_p50_ms")


@dataclass(frozen=True)
class Ranking:
    """The networks, the best first.

    Attributes:
        table: a row per network: name, group (best, within noise, worse), score (test accuracy as a share, the mean
            over seeds where there are several), low, high (its 95 % interval), seeds, std (of the accuracy over seeds,
            NaN for one), loss (on the test images, the mean over seeds), accuracy and validation_accuracy (of the first
            seed), parameters, multiply_adds, images_per_second and latency_p50_ms where they were measured, summary,
            base ("" for none), differences (from the base), and a column for each of `factors`, for pooling and for
            dropout: the network's level.
        factors: the factors that vary among the networks, the most useful first.
        headline: one sentence: the best, those within noise of it, and the worse ones.
        pairs: the comparisons over seeds where there are several, else over images. The better ranked network is `a`,
            and the rows are in the order of the ranks. Columns of the stored table, and `sentence`.
        baselines: a row per baseline: baseline, validation_accuracy, accuracy, loss; then the comparison of the best
            network with it: same, difference, low, high, p, p_adjusted, sentence.
        warnings: sentences on the limits of the results.
        seeds: number of trainings of each network.
    """

    table: pd.DataFrame
    factors: tuple[str, ...]
    headline: str
    pairs: pd.DataFrame
    baselines: pd.DataFrame
    warnings: tuple[str, ...]
    seeds: int

    @property
    def best(self) -> str:
        return str(self.table["name"].iloc[0])

    def names(self, group: str) -> list[str]:
        """The networks of a group, the best first."""
        return self.table.loc[self.table["group"] == group, "name"].tolist()


def rank(
    networks: Mapping[str, TrainingRecord],
    metrics: Mapping[str, Mapping[str, Any]],
    tables: Mapping[str, pd.DataFrame],
    images: int,
    search: SearchRecord | None = None,
) -> Ranking:
    """Rank the networks by test accuracy, by its mean over seeds where there are several; ties by test loss.

    Args:
        tables: those of the stage `evaluate`, by name.
        images: number of test images.
    """
    over_seeds = "replicates" in tables
    scores = _seed_scores(tables) if over_seeds else _scores(metrics)
    levels = {name: summary.factors(record.network) for name, record in networks.items()}
    varying = _varying(levels)
    shown = dict.fromkeys((*SHOWN, *varying))
    rows = [
        _row(name, record, metrics[name], networks) | {factor: levels[name][factor] for factor in shown}
        for name, record in networks.items()
    ]
    table = by_score(scores.merge(pd.DataFrame(rows), on="name"))
    cost = tables["cost"].rename(columns={"model": "name"})
    cost = cost[[column for column in cost if column in ("name", *COST)]]
    table = table.merge(cost, on="name", how="left")
    order = table["name"].tolist()
    pairs = oriented(tables["seed_comparisons" if over_seeds else "comparisons"], order, images)
    table.insert(1, "group", _groups(order, pairs))
    seeds, baselines = int(table["seeds"].iloc[0]), _baselines(order[0], tables, images)
    warnings = [
        *_about_seeds(seeds, pairs),
        *_about_twins(pairs, over_seeds),
        *_about_baselines(networks, order, tables["baseline_comparisons"]),
        *_about_failures(search),
    ]
    return Ranking(table, varying, _headline(table, seeds), pairs, baselines, tuple(warnings), seeds)


def by_score(table: pd.DataFrame) -> pd.DataFrame:
    """The highest score first; ties by loss, then as configured."""
    return table.sort_values(["score", "loss"], ascending=[False, True], kind="stable")


def oriented(pairs: pd.DataFrame, order: Sequence[str], images: int) -> pd.DataFrame:
    """A table of comparisons with the better ranked network as `a`, rows in the order of the ranks, and sentences."""
    pairs = pairs.reindex(columns=[*PAIR, *(key for key in (*ONLY, "seeds") if key in pairs)])
    ranks = {name: number for number, name in enumerate(order)}
    turned = pairs["a"].map(ranks) > pairs["b"].map(ranks)
    other = pairs.assign(a=pairs["b"], b=pairs["a"], difference=-pairs["difference"])
    other = other.assign(low=-pairs["high"], high=-pairs["low"])
    if "only_a" in pairs:
        other = other.assign(only_a=pairs["only_b"], only_b=pairs["only_a"])
    pairs = pairs.where(~turned, other)
    pairs["difference"] = pairs["difference"].astype(float).round(DIGITS) + 0  # without negative zeros
    pairs["pair"] = [f"{a} - {b}" for a, b in zip(pairs["a"], pairs["b"], strict=True)]
    places = pd.DataFrame({"a": pairs["a"].map(ranks), "b": pairs["b"].map(ranks)})
    pairs = pairs.loc[places.sort_values(["a", "b"]).index].reset_index(drop=True)
    return pairs.assign(sentence=[_sentence(row, images) for row in pairs.to_dict("records")])


def named(names: Sequence[str]) -> str:
    """A handful of names, and the number of the others."""
    listed = ", ".join(names[:NAMED])
    return listed if len(names) <= NAMED else f"{listed} and {len(names) - NAMED} more"


def _sentence(row: Any, images: int) -> str:
    return verdicts.over_seeds(row) if "seeds" in row else verdicts.over_images(row, images)


def _row(
    name: str, record: TrainingRecord, metrics: Mapping[str, Any], networks: Mapping[str, TrainingRecord]
) -> dict[str, Any]:
    base = networks.get(record.base) if record.base else None
    keys = ("accuracy", "validation_accuracy", "parameters", "multiply_adds")
    return {
        "name": name,
        **{key: metrics.get(key) for key in keys},
        "summary": record.summary,
        "base": record.base or "",
        "differences": summary.differences(record.network, base.network) if base else "",
    }


def _varying(levels: Mapping[str, Mapping[str, str]]) -> tuple[str, ...]:
    """The factors with more than one level; one that some networks do not have (p of max pooling) does not count."""
    factors = next(iter(levels.values()))
    return tuple(each for each in factors if len({level[each] for level in levels.values() if level[each]}) > 1)


def _scores(metrics: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    keys = {"accuracy": "score", "accuracy_low": "low", "accuracy_high": "high", "loss": "loss"}
    rows = [{"name": name} | {new: row[key] for key, new in keys.items()} for name, row in metrics.items()]
    return pd.DataFrame(rows).assign(seeds=1, std=float("nan"))


def _seed_scores(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Mean accuracies over seeds with Student's intervals, NaN where all seeds have the same accuracy; mean losses."""
    losses = tables["seeds"].groupby("model", sort=False)["loss"].mean().reset_index()
    table = tables["replicates"].merge(losses, on="model").rename(columns={"model": "name", "mean": "score"})
    error = (table["std"] / table["seeds"] ** 0.5).where(table["std"] > 0)
    half = stats.t.isf(ALPHA / 2, table["seeds"] - 1) * error
    table = table.assign(low=(table["score"] - half).clip(lower=0), high=(table["score"] + half).clip(upper=1))
    table["score"] = table["score"].round(DIGITS)
    return table[["name", "score", "low", "high", "seeds", "std", "loss"]]


def _groups(order: Sequence[str], pairs: pd.DataFrame) -> list[str]:
    """Best: the first, and networks with the same predictions; worse: significantly so."""
    own = pairs[pairs["a"] == order[0]].set_index("b")
    worse = set(own.index[own["p_adjusted"] < ALPHA])
    same = {order[0], *own.index[own["same"].astype(bool)]}
    return [BEST if name in same else WORSE if name in worse else WITHIN_NOISE for name in order]


def _headline(table: pd.DataFrame, seeds: int) -> str:
    groups = {group: table.loc[table["group"] == group, "name"].tolist() for group in GROUPS}
    best, *twins = groups[BEST]
    score = f"{100 * table['score'].iloc[0]:.2f} %, {f'{seeds} seeds' if seeds > 1 else 'one seed'}"
    parts = [f"best: {best} ({score})" + (f", the same as {named(twins)}" if twins else "")]
    return "; ".join([*parts, *(f"{group}: {named(groups[group])}" for group in GROUPS[1:] if groups[group])])


def _baselines(best: str, tables: Mapping[str, pd.DataFrame], images: int) -> pd.DataFrame:
    found = tables["baseline_comparisons"]
    found = found[found["a"] == best]
    sentences = [_sentence(row, images) for row in found.to_dict("records")]
    found = found.assign(sentence=sentences).rename(columns={"b": "baseline"}).drop(columns=["pair", "a"])
    return tables["baselines"].merge(found, on="baseline", how="left")


def _about_seeds(seeds: int, pairs: pd.DataFrame) -> list[str]:
    if seeds == 1:
        return [
            "One seed: the intervals and tests do not cover the variation between trainings of a network. Set "
            f"evaluate.seeds to {FEW} or more to compare networks rather than single trainings."
        ]
    if seeds >= FEW:
        return []
    half = ((pairs["high"] - pairs["low"]) / 2).median()
    if pd.isna(half):
        return [f"{seeds} seeds are few: no interval of a difference. Set evaluate.seeds to {FEW} or more."]
    return [
        f"{seeds} seeds are few: the {verdicts.LEVEL} interval of a difference is ±{half:.2f} pp (median of the "
        f"pairs), so smaller differences can hardly be shown. Set evaluate.seeds to {FEW} or more."
    ]


def _about_twins(pairs: pd.DataFrame, over_seeds: bool) -> list[str]:
    first = dict[str, str]()
    for row in pairs[pairs["same"].astype(bool)].to_dict("records"):
        a, b = str(row["a"]), str(row["b"])
        first.setdefault(b, first.get(a, a))
    groups = {name: [name, *(twin for twin, other in first.items() if other == name)] for name in first.values()}
    seeds = ", with every seed" if over_seeds else ""
    return [
        f"{', '.join(names[:-1])} and {names[-1]} have the same prediction for every image{seeds}; they count as one "
        "network in corrections."
        for names in groups.values()
    ]


def _about_baselines(
    networks: Mapping[str, TrainingRecord], order: Sequence[str], comparisons: pd.DataFrame
) -> list[str]:
    """Networks that are not shown to beat a baseline; the best is named first, as it is the first of the order."""
    beaten = (comparisons["p_adjusted"] < ALPHA) & (comparisons["difference"] > 0)
    sentences, concerned = [], list[str]()
    for baseline, rows in comparisons[~beaten].groupby("b", sort=False):
        names = [name for name in order if name in set(rows["a"])]
        best = "the best network, " if names[0] == order[0] else ""
        sentences.append(f"Not shown to beat the baseline {baseline}: {best}{named(names)}.")
        concerned += names
    first = min(concerned, key=order.index, default=None)
    return sentences + ([f"For {first}, {advice(networks[first].network)}."] if first else [])


def _about_failures(search: SearchRecord | None) -> list[str]:
    if not search or not search.errors:
        return []
    return [f"Trials of the search that failed: {', '.join(search.errors)}; see results/search.md."]
