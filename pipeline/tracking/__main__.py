"""Mark runs of killed processes as KILLED, and send what was kept while MLflow failed:  python -m pipeline.tracking

`make ui` adds --port, to print the address at which MLflow's UI compares the networks. `mlflow run` starts this command
before the stages, to describe its own run.
"""

import argparse

import mlflow

from pipeline import tracking
from pipeline.core import command, config
from pipeline.core.errors import ConfigError
from pipeline.core.paths import Paths
from pipeline.tracking import project, store, view


def run(arguments: argparse.Namespace) -> None:
    paths = Paths()
    name = store.name(paths)
    killed, sent = store.attempt(name, tracking.catch_up, paths, opening=True)
    print(f"runs marked as killed: {killed}; runs sent that were kept: {sent}")
    dataset, experiment_id = store.attempt(name, _experiment, paths)
    store.attempt(name, project.describe, mlflow.MlflowClient(), experiment_id, project.NOTHING_LOGGED)
    if arguments.port and experiment_id:
        print(
            f"comparison of the networks: {view.link(experiment_id, f'http://127.0.0.1:{arguments.port}/')}", flush=True
        )
    elif arguments.port:
        print(f"no run of {dataset or 'the dataset in params.yaml'} yet: run `dvc repro` first", flush=True)


def _experiment(paths: Paths) -> tuple[str | None, str | None]:
    """The dataset of params.yaml, and the id of its experiment, both None where they are unknown."""
    try:
        dataset = config.load(paths).data.dataset
    except ConfigError:
        return None, None
    client = mlflow.MlflowClient()
    known = client.get_experiment_by_name(dataset)
    if known:
        view.update(client, store.name(paths), known)
    return dataset, known.experiment_id if known else None


def main() -> None:
    parser = command.parser(__doc__)
    parser.add_argument("--port", type=int, help="print the address in a UI on this port of this machine")
    command.main(run, parser)


if __name__ == "__main__":
    main()
