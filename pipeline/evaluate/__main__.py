"""Measure every network on the test images:  python -m pipeline.evaluate

Writes metrics, tables and explanations into artifacts/evaluation, adds the test metrics to the MLflow run of each
network, and registers the network with the best validation metrics if it is better than the registered champion. Warns
if that network does not beat the baselines.
"""

import argparse

from pipeline.core import command, config
from pipeline.core.paths import Paths
from pipeline.runtime.startup import load_tensorflow


def run(_: argparse.Namespace) -> None:
    """Evaluate the networks of params.yaml and the search's winner."""
    stopwatch, paths = command.Stopwatch(), Paths()
    params = config.load(paths)
    with stopwatch("imports"):  # after the parameters are known to be valid
        load_tensorflow()
        from pipeline.evaluate.evaluate import evaluate
        from pipeline.runtime import device

        used = device.start(params.runtime)
    evaluate(params, paths, used, stopwatch)
    stopwatch.report("evaluate")


def main() -> None:
    command.main(run, command.parser(__doc__))


if __name__ == "__main__":
    main()
