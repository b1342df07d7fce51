"""Render the results of all stages:  python -m pipeline.report

Reads the tables that training, the search and evaluation have stored, and writes results/: report.html (one page that
needs no other file), report.md, search.md (the analysis of the search), best.yaml (its winner), metrics.json, and the
data of DVC's plots. It takes about three seconds, and needs neither TensorFlow nor MLflow.
"""

import argparse

from pipeline.core import command, config
from pipeline.core.paths import Paths


def run(_: argparse.Namespace) -> None:
    stopwatch, paths = command.Stopwatch(), Paths()
    params = config.load(paths)
    with stopwatch("imports"):
        from pipeline.report.report import report

    print(report(paths, params, stopwatch))
    print(paths.results / "report.html")
    stopwatch.report("report")


if __name__ == "__main__":
    command.main(run, command.parser(__doc__))
