"""All networks side by side: the files that evaluation leaves, and the table that people read."""

import json
from typing import Any

import pandas as pd

from pipeline import atomic
from pipeline.dataset import Card
from pipeline.metrics import Evaluation
from pipeline.paths import Paths
from pipeline.trained import About

Figures = dict[str, Any]  # one entry of results/metrics.json


def write(paths: Paths, found: dict[str, Evaluation], figures: dict[str, Figures], table: str) -> None:
    """Replace results/evaluation, results/metrics.json and results/report.md."""
    with atomic.folder(paths.evaluation) as folder:
        (folder / "confusion").mkdir()
        for name, evaluation in found.items():
            evaluation.answers.to_csv(folder / "confusion" / f"{name}.csv", index=False)
        classes = {name: evaluation.per_class for name, evaluation in found.items()}
        pd.concat(classes, names=["model"]).droplevel(1).to_csv(folder / "per_class.csv")
        learning_curves(list(found), paths).to_csv(folder / "learning_curves.csv", index=False)
    atomic.write_text(paths.metrics, json.dumps(figures, indent=2) + "\n")
    atomic.write_text(paths.report, table)


def learning_curves(names: list[str], paths: Paths) -> pd.DataFrame:
    """The epochs of all networks: model, split (training or validation), epoch, loss, accuracy."""
    curves = []
    for name in names:
        history = pd.read_csv(paths.training(name) / "history.csv")
        for split, prefix in {"training": "", "validation": "val_"}.items():
            part = history[["epoch", f"{prefix}loss", f"{prefix}accuracy"]].set_axis(
                ["epoch", "loss", "accuracy"], axis=1
            )
            part.insert(0, "model", name)
            part.insert(1, "split", split)
            curves.append(part)
    return pd.concat(curves, ignore_index=True)


def results_table(figures: dict[str, Figures], trained: dict[str, About], card: Card) -> str:
    """The comparison as Markdown: one row per network, and under it the data, the seed and the hardware."""
    rows = [
        f"| {name} | {row['parameters']:,} | {row['validation_accuracy']:.2%} | {row['accuracy']:.2%} "
        f"| {row['loss']:.4f} | {row['f1']:.4f} |"
        for name, row in figures.items()
    ]
    used = next(iter(trained.values()))
    counts = ", ".join(f"{count:,} {split}" for split, count in card.images.items())
    return "\n".join(
        [
            "| network | parameters | validation accuracy | test accuracy | test loss | test F1 (macro) |",
            "|---|---|---|---|---|---|",
            *rows,
            "",
            f"{card.dataset} ({counts} images); one seed; {used['name']}, {used['precision']}.",
            "",
        ]
    )
