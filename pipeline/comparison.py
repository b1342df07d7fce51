"""All networks side by side: the files that evaluation leaves, and the table that people read."""

import json
from typing import Any

import pandas as pd

from pipeline import atomic
from pipeline.dataset import Card
from pipeline.paths import Paths
from pipeline.provenance import requirements
from pipeline.scoring import Scored
from pipeline.trained import About

Figures = dict[str, Any]  # one entry of results/metrics.json


def write(
    paths: Paths, scored: dict[str, Scored], tables: dict[str, pd.DataFrame], figures: dict[str, Figures], text: str
) -> None:
    """Replace results/evaluation, results/metrics.json and results/report.md; a table becomes a file of its name."""
    with atomic.folder(paths.evaluation) as folder:
        (folder / "confusion").mkdir()
        for name, each in scored.items():
            each.evaluation.answers.to_csv(folder / "confusion" / f"{name}.csv", index=False)
        for name, table in tables.items():
            table.to_csv(folder / f"{name}.csv", index=False)
    atomic.write_text(paths.metrics, json.dumps(figures, indent=2) + "\n")
    atomic.write_text(paths.report, text)


def stacked(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """The tables of all networks as one, with the network in a first column, `model`."""
    return pd.concat(tables, names=["model"]).reset_index(level="model").reset_index(drop=True)


def cost_table(figures: dict[str, Figures], costs: dict[str, dict[str, float]], paths: Paths) -> pd.DataFrame:
    """One row per network: parameters, multiply-adds of one image, size of its file, and what `cost` measured."""
    return pd.DataFrame(
        {
            "model": name,
            "parameters": figures[name]["parameters"],
            "multiply_adds": figures[name]["multiply_adds"],
            "file_bytes": paths.model(name).stat().st_size,
            **cost,
        }
        for name, cost in costs.items()
    )


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


def over_seeds(scores: pd.DataFrame) -> pd.DataFrame:
    """One row per network, from the rows model, seed, accuracy: seeds, mean and standard deviation of the accuracy."""
    grouped = scores.groupby("model", sort=False)["accuracy"]
    return grouped.agg(seeds="size", mean="mean", deviation="std").reset_index()


def seeds_section(summary: pd.DataFrame, comparisons: pd.DataFrame) -> str:
    """What several seeds say, as Markdown."""
    return "\n".join(
        [
            "| network | seeds | mean test accuracy | standard deviation |",
            "|---|---|---|---|",
            *[
                f"| {row['model']} | {row['seeds']} | {row['mean']:.2%} | {100 * row['deviation']:.2f} |"
                for row in summary.to_dict("records")
            ],
            "",
            *[f"- {sentence}." for sentence in comparisons["sentence"]],
            "",
        ]
    )


def provenance(trained: dict[str, About], card: Card, seed: int) -> dict[str, Any]:
    """Where every number comes from, to read."""
    used = next(iter(trained.values()))
    commits = {
        name: f"{about['commit']}{', with changes' * (about['changed'] == 'yes')}"
        for name, about in trained.items()
        if "commit" in about
    }
    return {
        "data": f"{card.dataset}, digest {card.digest}",
        "images": card.images,
        "seed": seed,
        "hardware": f"{used['name']}, {used['precision']}",
        "versions": ", ".join(requirements()),
        "commit": commits,
        "DVC stage": {name: about["stage"] for name, about in trained.items()},
        "MLflow run": {name: about["run_id"] for name, about in trained.items()},
    }


def report(figures: dict[str, Figures], comparisons: pd.DataFrame, trained: dict[str, About], card: Card) -> str:
    """The comparison as Markdown: a row per network, the data, the seed and the hardware, a sentence per pair."""
    rows = [
        f"| {name} | {row['parameters']:,} | {row['validation_accuracy']:.2%} "
        f"| {row['accuracy']:.2%} ({100 * row['accuracy_low']:.2f} to {100 * row['accuracy_high']:.2f}) "
        f"| {row['loss']:.4f} | {row['f1']:.4f} | {row['ece']:.2%} |"
        for name, row in figures.items()
    ]
    used = next(iter(trained.values()))
    counts = ", ".join(f"{count:,} {split}" for split, count in card.images.items())
    return "\n".join(
        [
            "| network | parameters | validation accuracy | test accuracy (95 % interval) | test loss "
            "| test F1 (macro) | calibration error |",
            "|---|---|---|---|---|---|---|",
            *rows,
            "",
            f"{card.dataset} ({counts} images); one seed; {used['name']}, {used['precision']}.",
            "",
            *[f"- {sentence}." for sentence in comparisons["sentence"]],
            "",
        ]
    )
