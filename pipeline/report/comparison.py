"""The comparison of the networks on the page: ranked table, sentences or matrix of pairs, figure of differences."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from pipeline.report import figures, tables
from pipeline.report.figures import Looks
from pipeline.report.ranking import BEST, SHOWN, WITHIN_NOISE, WORSE, Ranking, oriented
from pipeline.report.results import Results, sentences
from pipeline.report.tables import DARKEST, MISSING
from pipeline.report.verdicts import ALPHA

FEW = 4  # networks whose pairs are described by sentences; those of more are a matrix
FACTORS = 2  # columns of factors at most, beside pooling and dropout
LONGEST = 12  # characters of the levels of a factor with a column
MARKS = {BEST: ("★", "good"), WITHIN_NOISE: ("≈", "doubt"), WORSE: ("▼", "bad")}  # sign and class of a group
SAME = "="


@dataclass(frozen=True)
class Cell:
    """A pair in the matrix: the network of the row minus that of the column. `shade` is negative where it is worse."""

    text: str
    shade: int = 0
    significant: bool = False
    title: str = ""


def ranked(ranking: Ranking) -> dict[str, Any]:
    """The ranked table: networks with their groups, scores, varying factors and cost, then the baselines."""
    others = [factor for factor in ranking.factors if factor not in SHOWN]
    short = [factor for factor in others if ranking.table[factor].str.len().max() <= LONGEST]
    columns = {
        **{factor: (factor, "") for factor in SHOWN},
        "parameters": ("parameters", ",.0f"),
        "multiply_adds": ("multiply-adds", ",.0f"),
        "latency_p50_ms": ("latency, ms", ".2f"),
        **{factor: (factor, "") for factor in short[:FACTORS]},
    }
    columns = {key: column for key, column in columns.items() if key in ranking.table}
    ends = ranking.table[["score", "low", "high"]]
    left, right = float(np.nanmin(ends)), float(np.nanmax(ends))
    scale = 100 / max(right - left, 1e-12)
    networks = []
    for row in ranking.table.to_dict("records"):
        sign, style = MARKS[row["group"]]
        low, high = (row[end] if np.isfinite(row[end]) else row["score"] for end in ("low", "high"))
        networks.append(
            {
                **{key: row[key] for key in ("name", "group", "summary")},
                "sign": sign,
                "style": style,
                "score": f"{100 * row['score']:.2f} %",
                "interval": tables.interval(100 * row["low"], 100 * row["high"], ".2f"),
                "dot": round(scale * (row["score"] - left), 1),
                "left": round(scale * (low - left), 1),
                "width": round(scale * (high - low), 1),
                "cells": [tables.text(row[key], form) for key, (_, form) in columns.items()],
            }
        )
    return {
        "score": f"test accuracy{f', mean of {ranking.seeds} seeds' * (ranking.seeds > 1)}",
        "axis": f"{100 * left:.2f} to {100 * right:.2f} %",
        "head": [title for title, _ in columns.values()],
        "networks": networks,
        "baselines": [
            {"name": row["baseline"], "score": f"{100 * row['accuracy']:.2f} %"}
            for row in ranking.baselines.to_dict("records")
        ],
    }


def compared(results: Results, looks: Looks) -> dict[str, Any]:
    """The pairs of networks over seeds where there are several, else over images; with seeds, also over images."""
    ranking, images = results.ranking, results.info.images["test"]
    names, over = ranking.table["name"].tolist(), "seeds" if ranking.seeds > 1 else "images"
    best = ranking.pairs[ranking.pairs["a"] == ranking.best].rename(columns={"b": "network"})
    title = f"Difference of {ranking.best} from the other networks over {over}, with simultaneous 95 % intervals"
    found: dict[str, Any] = {
        "sentences": sentences(ranking.pairs) if len(names) <= FEW else None,
        "matrix": matrix(ranking.pairs, names) if len(names) > FEW else None,
        "names": names,
        "figure": figures.differences(best, looks, title) if len(best) else None,
        "table": _pairs(ranking.pairs, over),
        "baselines": ranking.baselines["sentence"].dropna().tolist(),
        "seeds": None,
        "over_images": None,
    }
    if ranking.seeds > 1:
        replicates = results.tables["replicates"]
        order = {name: place for place, name in enumerate(names)}
        replicates = replicates.sort_values("model", key=lambda models: models.map(order))
        replicates = replicates.assign(std=100 * replicates["std"])
        found["seeds"] = tables.table("Accuracy over seeds", replicates, tables.REPLICATES)
        found["over_images"] = _pairs(oriented(results.tables["comparisons"], names, images), "images")
    return found


def matrix(pairs: pd.DataFrame, names: list[str]) -> list[tuple[str, list[Cell]]]:
    """A row and a column per network."""
    largest = max(float(pairs["difference"].abs().max()), 1e-12)
    cells = {(name, name): Cell("") for name in names}
    for row in pairs.to_dict("records"):
        for sign, a, b in ((1, row["a"], row["b"]), (-1, row["b"], row["a"])):
            cells[a, b] = _cell(row, sign, f"{a} - {b}", largest)
    return [(name, [cells.get((name, other), Cell(MISSING)) for other in names]) for name in names]


def _cell(row: dict[Any, Any], sign: int, pair: str, largest: float) -> Cell:
    if row["same"]:
        return Cell(SAME, title=f"{pair}: the same prediction for every image")
    low, high = sorted((sign * row["low"], sign * row["high"]))
    difference = round(sign * row["difference"], 2) + 0.0  # never -0.00
    interval = tables.interval(low, high, "+.2f")
    return Cell(
        f"{difference:+.2f}",
        round(DARKEST * difference / largest),
        row["p_adjusted"] < ALPHA,
        f"{pair}: {difference:+.2f} pp ({interval}), adjusted p {tables.text(row['p_adjusted'], tables.P)}",
    )


def _pairs(pairs: pd.DataFrame, over: str) -> tables.Table:
    shown = pairs.assign(interval=tables.intervals(pairs, "+.2f"))
    return tables.table(f"Pairs of networks, over {over}", shown, tables.PAIRS)
