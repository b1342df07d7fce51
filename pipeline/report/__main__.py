"""Render the results of all stages:  python -m pipeline.report

Reads the tables that training, the search and evaluation have stored, and writes results/: report.html (one page that
needs no other file), report.md, search.md (the analysis of the search), best.yaml (its winner), metrics.json, and the
data of DVC's plots. Prints the ranked networks and next steps. It takes about three seconds, and needs neither
TensorFlow nor MLflow.
"""

import argparse
import os

from pipeline.core import command, config
from pipeline.core.paths import Paths


def run(_: argparse.Namespace) -> None:
    stopwatch, paths = command.Stopwatch(), Paths()
    params = config.load(paths)
    with stopwatch("imports"):
        from rich.console import Console

        from pipeline.report.report import report
        from pipeline.report.terminal import terminal

    found = report(paths, params, stopwatch)
    Console(highlight=False).print(terminal(found, _page(paths)))
    stopwatch.report("report")


def _page(paths: Paths) -> str:
    page = "results/report.html"
    experiment = os.environ.get("DVC_EXP_NAME")
    if experiment and paths.home.resolve() != paths.root.resolve():  # a temporary copy, which DVC deletes
        return f"dvc get . {page} --rev {experiment} -o {experiment}.html"
    return page


if __name__ == "__main__":
    command.main(run, command.parser(__doc__))
