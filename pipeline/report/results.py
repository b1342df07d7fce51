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
from pipeline.report import search_analysis
from pipeline.report.search_analysis import SearchAnalysis

TABLES = (
    "comparisons",
    "per_class",
    "confusion",
    "reliability",
    "cost",
    "corruption",
    "corruption_summary",
    "shift",
    "out_of_distribution",
)
TABLES_OF_SEEDS = ("replicates", "seed_comparisons")  # where evaluate.seeds is more than 1
SENTENCES = 6  # pairs of networks, of four networks, that are described one by one
LEVEL = 0.05  # of p_adjusted, below which a pair of networks differs
NAMES = dict.fromkeys(("model", "a", "b", "class", "actual", "predicted"), str)  # a class may be named 7


@dataclass(frozen=True)
class Results:
    """All results of the pipeline.

    Attributes:
        networks: network -> the record of its training.
        metrics: network -> its metrics by name, accuracies as shares.
        tables: name of a table of the stage `evaluate` -> its content.
        curves: model, split (training or validation), epoch, loss, accuracy.
    """

    info: DatasetInfo
    networks: Mapping[str, TrainingRecord]
    metrics: Mapping[str, Mapping[str, Any]]
    tables: Mapping[str, pd.DataFrame]
    curves: pd.DataFrame
    explanations: Explanations
    search: SearchAnalysis
    search_record: SearchRecord


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
    search_record, trials = records.load_search(paths), _read(paths.search / "trials.csv")
    if missing := [dimension.name for dimension in dimensions if dimension.name not in trials]:
        raise DataError(f"{paths.search}: the search had another space, without {missing[0]}; run `dvc repro tune`")
    search_curves = _read(paths.search / "curves.csv")
    return Results(
        info=info,
        networks=networks,
        metrics=metrics,
        tables={name: _read(paths.evaluation / f"{name}.csv") for name in names},
        curves=pd.concat([_curves(name, paths) for name in networks], ignore_index=True),
        explanations=Explanations.load(explanations_file),
        search=search_analysis.analyze(trials, search_curves, dimensions, search_record.objective),
        search_record=search_record,
    )


def sentences(pairs: pd.DataFrame) -> list[str]:
    """Sentences on all pairs of networks; on many, on the largest differences that are shown, and their number."""
    if len(pairs) <= SENTENCES:
        return pairs["sentence"].tolist()
    different = pairs[pairs["p_adjusted"] < LEVEL]
    largest = different.loc[different["difference"].abs().sort_values(ascending=False, kind="stable").index]
    count = f"{len(different)} of {len(pairs)} pairs of networks differ"
    if len(different) > SENTENCES:
        count += f", of which those with the {SENTENCES} largest differences are listed"
    if len(different) < len(pairs):
        count += "; no difference can be shown between the others"
    return [*largest["sentence"].head(SENTENCES), f"{count}; the table in report.html has all pairs"]


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
    except FileNotFoundError:
        raise DataError(f"{path}: not found; run `dvc repro` first") from None
