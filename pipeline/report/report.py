"""Render all pages, texts and the data of plots, and write them into results/."""

import json
import math
from contextlib import ExitStack
from typing import Any

from pipeline.core import atomic
from pipeline.core.command import Stopwatch
from pipeline.core.config import Params
from pipeline.core.paths import Paths
from pipeline.report import markdown, page, results
from pipeline.report.ranking import BEST, WITHIN_NOISE, WORSE, Ranking, named
from pipeline.report.results import Results

PLOTTED = ("confusion", "corruption", "reliability", "shift")  # tables of the stage `evaluate` that DVC plots


def report(paths: Paths, params: Params, stopwatch: Stopwatch) -> Results:
    """Write results/ and return what it was written from. After a failure results/ is unchanged.

    Raises:
        DataError: a stage has not run, or ran with other data or another search space.
    """
    with stopwatch("tables"):
        found = results.load(paths, params.dimensions if params.tune else [])
    with stopwatch("page"):
        html = page.page(found)
    copies = [paths.evaluation / "metrics.json", *(paths.evaluation / f"{name}.csv" for name in PLOTTED)]
    copies += [paths.search / "best.yaml"] if found.search else []
    files = {path.name: path.read_text(encoding="utf-8") for path in copies} | {
        "comparisons.csv": found.ranking.pairs.to_csv(index=False),
        "learning_curves.csv": found.curves.to_csv(index=False),
        "ranking.json": json.dumps(best_network(found.ranking), indent=2, ensure_ascii=False) + "\n",
        "report.md": markdown.comparison(found),
        "search.md": markdown.search(found.search),
        "report.html": html,
    }
    files.setdefault("best.yaml", f"# {markdown.NO_SEARCH}\n")
    with stopwatch("writing"), ExitStack() as stack:  # which gives the files their names only when all are complete
        for name, text in files.items():
            stack.enter_context(atomic.file(paths.results / name)).write_text(text, encoding="utf-8")
    return found


def best_network(ranking: Ranking) -> dict[str, Any]:
    """The best network and its rivals in a line of metrics, by which DVC compares experiments."""
    row = ranking.table.iloc[0]
    return {
        "network": ranking.best,
        "summary": row["summary"],
        "accuracy": float(row["score"]),
        "accuracy_low": None if math.isnan(row["low"]) else float(row["low"]),
        "accuracy_high": None if math.isnan(row["high"]) else float(row["high"]),
        "seeds": ranking.seeds,
        "same": named(ranking.names(BEST)[1:]),
        "within_noise": named(ranking.names(WITHIN_NOISE)),
        "worse": named(ranking.names(WORSE)),
    }
