"""The tables of evaluation, and the files in artifacts/evaluation."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from pipeline.core import atomic
from pipeline.core.explanations import Explanations
from pipeline.core.paths import Paths
from pipeline.core.records import TrainingRecord
from pipeline.evaluate.scoring import NetworkScores

COMPLETE = 100  # classes at most for which pairs that do not occur are stored, too

Tables = Mapping[str, pd.DataFrame]  # by the name of their file


def score_tables(scores: Mapping[str, NetworkScores]) -> dict[str, pd.DataFrame]:
    """The tables of the single networks, stacked: per_class, reliability, confusion."""
    return {
        "per_class": stacked({name: each.per_class for name, each in scores.items()}),
        "reliability": stacked({name: each.reliability for name, each in scores.items()}),
        "confusion": stacked({name: confusion_pairs(each.confusion) for name, each in scores.items()}),
    }


def stacked(tables: Tables) -> pd.DataFrame:
    """The tables of all networks as one, with the network in a first column, `model`."""
    return pd.concat(tables, names=["model"]).reset_index(level="model").reset_index(drop=True)


def confusion_pairs(confusion: pd.DataFrame) -> pd.DataFrame:
    """A row for each pair of classes: actual, predicted, count; of many classes, for each pair that occurs."""
    wide = confusion.set_index("actual")
    pairs = pd.MultiIndex.from_product([wide.index, wide.columns], names=["actual", "predicted"])
    found = pd.DataFrame({"count": wide.to_numpy().ravel()}, pairs).reset_index()
    return found if len(wide) <= COMPLETE else found[found["count"] > 0]


def cost_table(
    scores: Mapping[str, NetworkScores], trained: Mapping[str, TrainingRecord], paths: Paths
) -> pd.DataFrame:
    """One row per network: parameters, multiply-adds of one image, size of its file, and the columns of `cost`."""
    return pd.DataFrame(
        {
            "model": name,
            "parameters": trained[name].counts.parameters,
            "multiply_adds": trained[name].counts.multiply_adds,
            "file_bytes": paths.model(name).stat().st_size,
            **each.cost,
        }
        for name, each in scores.items()
    )


def over_seeds(scores: pd.DataFrame) -> pd.DataFrame:
    """One row per network, from the rows model, seed, accuracy: seeds, mean and standard deviation of the accuracy."""
    grouped = scores.groupby("model", sort=False)["accuracy"]
    return grouped.agg(seeds="size", mean="mean", std="std").reset_index()


def table_metrics(tables: Tables, name: str) -> dict[str, float]:
    """The metrics of one network that are computed for all networks together; without those that are not available."""

    def rows(table: str) -> pd.DataFrame:
        return tables[table][tables[table]["model"] == name]

    [summary] = rows("corruption_summary").to_dict("records")
    metrics = {
        "corruption_error": summary["mean_error"],
        "corruption_mce": summary["mce"],
        **{f"consistency_{row['shift']}px": row["consistency"] for row in rows("shift").to_dict("records")},
        **{f"auroc_{row['against']}": row["auroc"] for row in rows("out_of_distribution").to_dict("records")},
    }
    if "replicates" in tables:
        [replicates] = rows("replicates").to_dict("records")
        metrics |= {"accuracy_mean": replicates["mean"], "accuracy_std": replicates["std"]}
    return {metric: float(value) for metric, value in metrics.items() if not np.isnan(value)}


def complete(metrics: Mapping[str, dict[str, float]], trained: Mapping[str, TrainingRecord]) -> dict[str, Any]:
    """The content of metrics.json for each network: summary, test and validation metrics, counts, id of its run."""
    return {
        name: {"summary": record.summary, **metrics[name], **record.validation_metrics, "run_id": record.run_id}
        for name, record in trained.items()
    }


def write(paths: Paths, metrics: Mapping[str, Mapping[str, Any]], tables: Tables, explanations: Explanations) -> None:
    """Replace artifacts/evaluation: metrics.json, a CSV file for each table, explanations.npz."""
    with atomic.folder(paths.evaluation) as folder:
        text = json.dumps(metrics, indent=2, ensure_ascii=False)
        (folder / "metrics.json").write_text(f"{text}\n", encoding="utf-8")
        for name, table in tables.items():
            table.to_csv(folder / f"{name}.csv", index=False)
        explanations.save(folder / "explanations.npz")
