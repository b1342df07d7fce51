"""The texts of the report as Markdown: results/report.md and results/search.md."""

from collections.abc import Iterable, Sequence
from math import isnan
from typing import Any

from pipeline.report.effects import Analysis, Scale
from pipeline.report.ranking import SHOWN, Ranking
from pipeline.report.results import Results, sentences
from pipeline.report.search_analysis import SearchAnalysis

NO_SEARCH = "No search: `tune` is null in params.yaml."


def comparison(results: Results) -> str:
    """The headline, the ranked table with the baselines, the networks, sentences on pairs and effects, warnings."""
    ranking = results.ranking
    device = next(iter(results.networks.values())).device
    counts = ", ".join(f"{count:,} {split}" for split, count in results.info.images.items())
    head, rows = ranked(ranking)
    summaries = [f"{row['name']}: {row['summary']}{_variant(row)}" for row in ranking.table.to_dict("records")]
    evidence = [f"{sentence}." for sentence in sentences(ranking.pairs)] + list(ranking.warnings)
    lines = [f"{ranking.headline}.", "", *_table(head, rows), ""]
    lines += [f"{results.info.dataset} ({counts} images); {device.name}, {device.precision}.", ""]
    lines += [*_list(summaries), "", *_list(evidence), "", *_list(results.effects.summary)]
    if len(results.effects.importance):
        lines += ["", *_importance("factor", results.effects)]
    return "\n".join(lines) + "\n"


def ranked(ranking: Ranking) -> tuple[list[str], list[list[str]]]:
    """Head and rows of the ranked table, the baselines last."""
    over = f"mean of {ranking.seeds} seeds ± std" if ranking.seeds > 1 else "95 % interval"
    head = ["rank", "network", *SHOWN, "parameters", "validation accuracy", f"test accuracy ({over})", "test loss"]
    rows = [
        [
            row["group"],
            row["name"],
            *(row[factor] for factor in SHOWN),
            f"{row['parameters']:,}",
            f"{row['validation_accuracy']:.2%}",
            f"{row['score']:.2%} {spread(row)}" if row["seeds"] > 1 else f"{row['score']:.2%} ({spread(row)})",
            f"{row['loss']:.4f}",
        ]
        for row in ranking.table.to_dict("records")
    ]
    for row in ranking.baselines.to_dict("records"):
        scores = [f"{row['validation_accuracy']:.2%}", f"{row['accuracy']:.2%}", f"{row['loss']:.4f}"]
        rows.append(["baseline", row["baseline"], *("" for _ in SHOWN), "", *scores])
    return head, rows


def spread(row: Any) -> str:
    """Of a row of the ranked table: the interval of a single training, in percent, or the std over seeds, in pp."""
    return f"± {100 * row['std']:.2f}" if row["seeds"] > 1 else f"{100 * row['low']:.2f} to {100 * row['high']:.2f}"


def search(analysis: SearchAnalysis | None) -> str:
    """The summary of a search, and a row per dimension: verdict, share of variance and effects."""
    if analysis is None:
        return f"{NO_SEARCH}\n"
    return "\n".join(["# Search", "", *_list(analysis.summary), "", *_importance("dimension", analysis)]) + "\n"


def _variant(row: Any) -> str:
    return f" ({row['base']} with {row['differences']})" if row["differences"] else ""


def _importance(kind: str, analysis: Analysis) -> list[str]:
    """A table with a row per factor or dimension."""
    effects = analysis.effects.to_dict("records")
    rows = [
        [
            f"`{row['dimension']}`",
            row["verdict"],
            "" if isnan(row["share"]) else f"{row['share']:.0%} ({row['low']:.0%} to {row['high']:.0%})",
            "; ".join(effect(each, analysis.scale) for each in effects if each["dimension"] == row["dimension"]),
        ]
        for row in analysis.importance.to_dict("records")
    ]
    return _table([kind, "verdict", "share of variance (95 % interval)", "effects (95 % interval)"], rows)


def effect(row: Any, scale: Scale) -> str:
    """Of a row of the table of effects: the change, its effect and interval."""
    change = f"{row['change']} instead of {row['reference']}" if row["reference"] else row["change"]
    if isnan(row["effect"]):
        return f"{change}: not identifiable"
    return f"{change}: {scale.text(row['effect'])} ({scale.text(row['low'])} to {scale.text(row['high'])})"


def _list(items: Iterable[str]) -> list[str]:
    return [f"- {item}" for item in items]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    first, *others = ["".join(f"| {cell} " for cell in row) + "|" for row in (head, *rows)]
    return [first, "|---" * len(head) + "|", *others]
