"""Render all pages, texts and the data of plots, and write them into results/."""

from contextlib import ExitStack

from pipeline.core import atomic
from pipeline.core.command import Stopwatch
from pipeline.core.config import Params
from pipeline.core.paths import Paths
from pipeline.report import markdown, page, results

PLOTTED = ("comparisons", "confusion", "corruption", "reliability", "shift")  # tables that DVC plots


def report(paths: Paths, params: Params, stopwatch: Stopwatch) -> str:
    """Write results/ and return the comparison of the networks as Markdown. After a failure results/ is unchanged.

    Raises:
        DataError: a stage has not run, or ran with other data or another search space.
    """
    with stopwatch("tables"):
        found = results.load(paths, params.dimensions)
    comparison = markdown.comparison(found)
    with stopwatch("page"):
        html = page.page(found)
    copies = [paths.evaluation / "metrics.json", paths.search / "best.yaml"]
    copies += [paths.evaluation / f"{name}.csv" for name in PLOTTED]
    files = {path.name: path.read_text(encoding="utf-8") for path in copies} | {
        "learning_curves.csv": found.curves.to_csv(index=False),
        "report.md": comparison,
        "search.md": markdown.search(found.search),
        "report.html": html,
    }
    with stopwatch("writing"), ExitStack() as stack:  # which gives the files their names only when all are complete
        for name, text in files.items():
            stack.enter_context(atomic.file(paths.results / name)).write_text(text, encoding="utf-8")
    return comparison
