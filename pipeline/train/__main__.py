"""Train one network of params.yaml:  python -m pipeline.train model_1

Writes model.keras, history.csv and record.json to artifacts/train/NAME, and logs one MLflow run. A killed training
resumes from its last checkpoint when it is started again.
"""

import argparse

from pipeline.core import command, config
from pipeline.core.paths import Paths
from pipeline.engine import engine, placement


def run(arguments: argparse.Namespace) -> None:
    """Train the named network."""
    stopwatch, paths = command.Stopwatch(), Paths()
    params = config.load(paths)
    network = params.network(arguments.name)
    with placement.start(params.runtime, fits=1) as used:
        with stopwatch("imports"):  # after the parameters are known to be valid
            from pipeline.train.train import Trainer, train_network

        trainer = Trainer.create("train", params, paths, used, stopwatch)
        with stopwatch("fit"):
            engine.complete(train_network(arguments.name, network, trainer))
    stopwatch.report(f"train {arguments.name}")


def main() -> None:
    parser = command.parser(__doc__)
    parser.add_argument(
        "name", help="a network: a key of `models` in params.yaml, or one of its grid (model_2-average-0.5)"
    )
    command.main(run, parser)


if __name__ == "__main__":
    main()
