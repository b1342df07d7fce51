"""The texts of the report as Markdown: results/report.md and results/search.md."""

from collections.abc import Iterable, Sequence
from math import isnan
from typing import Any

from pipeline.report.results import Results, sentences
from pipeline.report.search_analysis import Scale, SearchAnalysis


def comparison(results: Results) -> str:
    """The networks in a table, the data and the hardware, and a few sentences on pairs; the same over seeds, if any."""
    head = ["network", "parameters", "validation accuracy", "test accuracy (95 % interval)", "test loss"]
    rows = [
        [
            name,
            f"{row['parameters']:,}",
            f"{row['validation_accuracy']:.2%}",
            f"{row['accuracy']:.2%} ({100 * row['accuracy_low']:.2f} to {100 * row['accuracy_high']:.2f})",
            f"{row['loss']:.4f}",
            f"{row['f1']:.4f}",
            f"{row['ece']:.2%}",
        ]
        for name, row in results.metrics.items()
    ]
    lines = _table([*head, "test F1 (macro)", "calibration error"], rows)
    device = next(iter(results.networks.values())).device
    counts = ", ".join(f"{count:,} {split}" for split, count in results.info.images.items())
    lines += ["", f"{results.info.dataset} ({counts} images); one seed; {device.name}, {device.precision}.", ""]
    lines += [f"- {sentence}." for sentence in sentences(results.tables["comparisons"])]
    if "replicates" in results.tables:
        rows = [
            [row["model"], str(row["seeds"]), f"{row['mean']:.2%}", f"{100 * row['std']:.2f}"]
            for row in results.tables["replicates"].to_dict("records")
        ]
        lines += ["", *_table(["network", "seeds", "mean test accuracy", "standard deviation, pp"], rows), ""]
        lines += [f"- {sentence}." for sentence in sentences(results.tables["seed_comparisons"])]
    return "\n".join(lines) + "\n"


def search(analysis: SearchAnalysis) -> str:
    """The summary of a search, and a row per dimension: verdict, share of variance and effects."""
    effects = analysis.effects.to_dict("records")
    rows = [
        [
            f"`{row['dimension']}`",
            row["verdict"],
            "" if isnan(row["share"]) else f"{row['share']:.0%} ({row['low']:.0%} to {row['high']:.0%})",
            "; ".join(_effect(each, analysis.scale) for each in effects if each["dimension"] == row["dimension"]),
        ]
        for row in analysis.importance.to_dict("records")
    ]
    head = ["dimension", "verdict", "share of variance (95 % interval)", "effects (95 % interval)"]
    summary = [f"- {sentence}" for sentence in analysis.summary]
    return "\n".join(["# Search", "", *summary, "", *_table(head, rows)]) + "\n"


def _effect(row: Any, scale: Scale) -> str:
    change = f"{row['change']} instead of {row['reference']}" if row["reference"] else row["change"]
    if isnan(row["effect"]):
        return f"{change}: not identifiable"
    return f"{change}: {scale.text(row['effect'])} ({scale.text(row['low'])} to {scale.text(row['high'])})"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    first, *others = ["".join(f"| {cell} " for cell in row) + "|" for row in (head, *rows)]
    return [first, "|---" * len(head) + "|", *others]
