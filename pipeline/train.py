"""Train one network of params.yaml:  python -m pipeline.train model_1

Writes artifacts/models/NAME.keras and results/train/NAME, and one MLflow run. Killed, it goes on from its last
checkpoint when it is started again.
"""

from pipeline import config, stage
from pipeline.paths import Paths


def train(name: str, paths: Paths) -> None:
    """Train the named network."""
    stopwatch = stage.Stopwatch()
    params = config.load(paths)
    network = params.model(name)
    with stopwatch("imports"):  # after the parameters are known to be good
        from pipeline import runtime

        used = runtime.start(params.runtime)
        from pipeline import training_run
    training_run.complete(name, network, params, paths, used, "train", stopwatch)
    stopwatch.report(f"train {name}")


def main() -> None:
    parser = stage.parser(__doc__)
    parser.add_argument("name", help="a network: a key of `models` in params.yaml")
    stage.main(lambda arguments: train(arguments.name, Paths()), parser)


if __name__ == "__main__":
    main()
