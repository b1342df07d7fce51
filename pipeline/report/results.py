"""The input of the report: the tables, records and explanations that the stages before it have stored."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.core import dataset, records
from pipeline.core.dataset import DatasetInfo
from pipeline.core.errors import DataError
from pipeline.core.explanations import Explanations
from pipeline.core.paths import Paths
from pipeline.core.records import SearchRecord, TrainingRecord
from pipeline.core.search_space import Dimension
from pipeline.report import network_effects, ranking, search_analysis
from pipeline.report.effects import Analysis
from pipeline.report.ranking import Ranking
from pipeline.report.search_analysis import SearchAnalysis
from pipeline.report.verdicts import ALPHA

TABLES = (
    "comparisons",
    "baselines",
    "baseline_comparisons",
    "per_class",
    "confusion",
    "reliability",
    "cost",
    "corruption",
    "corruption_summary",
    "shift",
    "out_of_distribution",
)
TABLES_OF_SEEDS = ("seeds", "replicates", "seed_comparisons")  # where evaluate.seeds is more than 1
SENTENCES = 6  # pairs of networks, of four networks, that are described one by one
NAMES = dict.fromkeys(("model", "a", "b", "class", "actual", "predicted"), str)  # a class may be named 7


@dataclass(frozen=True)
class Results:
    """All results of the pipeline.

    Attributes:
        networks: network -> the record of its training.
        metrics: network -> its metrics by name, accuracies as shares.
        tables: name of a table of the stage `evaluate` -> its content.
        curves: model, split (training or validation), epoch, loss, accuracy.
        effects: those of the factors that vary among the networks.
        search: None where params.yaml has no search.
    """

    info: DatasetInfo
    networks: Mapping[str, TrainingRecord]
    metrics: Mapping[str, Mapping[str, Any]]
    tables: Mapping[str, pd.DataFrame]
    curves: pd.DataFrame
    explanations: Explanations
    ranking: Ranking
    effects: Analysis
    search: SearchAnalysis | None
    search_record: SearchRecord | None


def load(paths: Paths, dimensions: Sequence[Dimension]) -> Results:
    """Read the results and analyze the search.

    Raises:
        DataError: a stage has not run, or ran with other data or another search space.
    """
    info, metrics_file = dataset.load_info(paths), paths.evaluation / "metrics.json"
    explanations_file = paths.evaluation / "explanations.npz"
    for file in (metrics_file, explanations_file):
        if not file.is_file():
            raise DataError(f"{file}: not found; run `dvc repro evaluate` first")
    metrics = json.loads(metrics_file.read_text(encoding="utf-8"))
    networks = {name: records.load_training(paths, name) for name in metrics}
    for network in networks.values():
        network.require_data(info.digest)
    names = [*TABLES, *(name for name in TABLES_OF_SEEDS if (paths.evaluation / f"{name}.csv").is_file())]
    tables = {name: _read(paths.evaluation / f"{name}.csv") for name in names}
    search_record = records.load_search(paths)
    return Results(
        info=info,
        networks=networks,
        metrics=metrics,
        tables=tables,
        curves=pd.concat([_curves(name, paths) for name in networks], ignore_index=True),
        explanations=Explanations.load(explanations_file),
        ranking=ranking.rank(networks, metrics, tables, info.images["test"], search_record),
        effects=network_effects.analyze(networks, _accuracies(metrics, tables)),
        search=_search(paths, dimensions, search_record) if search_record else None,
        search_record=search_record,
    )


def sentences(pairs: pd.DataFrame) -> list[str]:
    """A sentence on each pair of networks; on many pairs, the number of those that differ.

    Networks with the same predictions as a better ranked one are left out: a warning of the ranking names them.
    """
    repeated = pairs.loc[pairs["same"].astype(bool), "b"]
    pairs = pairs[~pairs["a"].isin(repeated) & ~pairs["b"].isin(repeated)]
    if len(pairs) <= SENTENCES:
        return pairs["sentence"].tolist()
    different = int((pairs["p_adjusted"] < ALPHA).sum())
    if not different:
        return [f"no difference can be shown between any two networks ({len(pairs)} pairs)"]
    rest = "; no difference can be shown between the others" if different < len(pairs) else ""
    return [f"{different} of {len(pairs)} pairs of networks differ{rest}; results/comparisons.csv has all pairs"]


def _accuracies(metrics: Mapping[str, Mapping[str, Any]], tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Test accuracy: (network, seed)."""
    if "seeds" in tables:
        return tables["seeds"].pivot(index="model", columns="seed", values="accuracy")
    return pd.DataFrame({"accuracy": {name: row["accuracy"] for name, row in metrics.items()}})


def _search(paths: Paths, dimensions: Sequence[Dimension], record: SearchRecord) -> SearchAnalysis:
    trials = _read(paths.search / "trials.csv")
    if missing := [dimension.name for dimension in dimensions if dimension.name not in trials]:
        raise DataError(f"{paths.search}: the search had another space, without {missing[0]}; run `dvc repro tune`")
    return search_analysis.analyze(trials, _read(paths.search / "curves.csv"), dimensions, record.objective)


def _curves(name: str, paths: Paths) -> pd.DataFrame:
    history = _read(paths.training(name) / "history.csv")
    parts = [
        history[["epoch", f"{prefix}loss", f"{prefix}accuracy"]]
        .set_axis(["epoch", "loss", "accuracy"], axis=1)
        .assign(model=name, split=split)
        for split, prefix in {"training": "", "validation": "val_"}.items()
    ]
    return pd.concat(parts)[["model", "split", "epoch", "loss", "accuracy"]]


def _read(path: Path) -> pd.DataFrame:
    """Only an empty cell is a missing value: `none` and `null` are levels of a search."""
    try:
        return pd.read_csv(path, keep_default_na=False, na_values=[""], dtype=NAMES)
    except pd.errors.EmptyDataError:
        return pd.DataFrame()  # no pairs: a single network
    except FileNotFoundError:
        raise DataError(f"{path}: not found; run `dvc repro` first") from None
