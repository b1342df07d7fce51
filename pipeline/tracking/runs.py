"""Runs: what training, search and evaluation record as they go."""

import getpass
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import mlflow
import numpy as np
import pandas as pd
import psutil
from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.data.meta_dataset import MetaDataset
from mlflow.entities import DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.models import Model, infer_signature

from pipeline import provenance
from pipeline.paths import Paths
from pipeline.stage import Stopwatch
from pipeline.tracking.store import connect

if TYPE_CHECKING:
    from pipeline.dataset import Card

TAGS = {
    "mlflow.experimentKind": "custom_model_development",  # which of its faces the UI shows
    "mlflow.note.content": "One run for each trained network; trials are nested under their search.",
}
PARENT = "mlflow.parentRunId"
PROCESS = "convpipe.process"  # host, process id and its start: how a run is known to have been killed
TRAINED_BY = "convpipe.trained_by"  # the run, in another store, that trained the network
MAX_PARAM = 6000  # characters that MLflow keeps of one parameter
T = TypeVar("T")


class Run:
    """One MLflow run. Every method records something; what cannot be recorded is remembered, not raised."""

    def __init__(self, run_id: str | None, stopwatch: Stopwatch, failure: str | None = None) -> None:
        self.id = run_id
        self.model_uri: str | None = None
        self._client = mlflow.MlflowClient()
        self._failure = failure
        self._lost: dict[str, int] = {}
        self._stopwatch = stopwatch

    def params(self, values: Mapping[str, Any]) -> None:
        """Parameters by dotted name."""
        params = [Param(name, str(value)[:MAX_PARAM]) for name, value in values.items()]
        for start in range(0, len(params), 100):  # the most that one request may hold
            part = params[start : start + 100]
            self._record("parameters", lambda run_id, part: self._client.log_batch(run_id, params=part), part)

    def tags(self, values: Mapping[str, str]) -> None:
        tags = [RunTag(name, value) for name, value in values.items()]
        self._record("tags", lambda run_id: self._client.log_batch(run_id, tags=tags))

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        now = int(time.time() * 1000)
        metrics = [Metric(name, float(value), now, step) for name, value in values.items()]
        self._record("metrics", lambda run_id: self._client.log_batch(run_id, metrics=metrics))

    def epoch(self, number: int, figures: Mapping[str, float]) -> None:
        """The figures of one epoch; MLflow counts them from 1, as the progress bar does."""
        self.metrics(figures, step=number + 1)

    def table(self, name: str, rows: pd.DataFrame) -> None:
        """A table that the MLflow UI shows beside those of other runs."""
        self._record(name, lambda run_id: self._client.log_table(run_id, rows, f"{name}.json"))

    def file(self, path: Path) -> None:
        """A file or folder, as an artifact of its own name."""
        log = self._client.log_artifacts if path.is_dir() else self._client.log_artifact
        args = (path, path.name) if path.is_dir() else (path,)
        self._record(path.name, lambda run_id: log(run_id, *map(str, args)))

    def dataset(self, card: "Card", context: str) -> None:
        """The data that the run used, with its digest."""
        source = CodeDatasetSource({"mlflow.source.name": "pipeline.validate"})
        data = MetaDataset(source, name=card.dataset, digest=card.digest)
        entity = DatasetInput(data._to_mlflow_entity(), [InputTag("mlflow.data.context", context)])
        self._record("the data set", lambda run_id: self._client.log_inputs(run_id, datasets=[entity]))

    def model(
        self, name: str, file: Path, example: np.ndarray, probabilities: np.ndarray, about: Mapping[str, Any]
    ) -> None:
        """A trained network with its signature, an input example, its requirements and the code to load it with.

        Args:
            file: the saved network.
            example: images of shape (n, height, width, channels), float32 in [0, 1].
            probabilities: what the network makes of them, (n, classes).
            about: what someone needs to know who has the model alone, such as the names of the classes.
        """

        self.model_uri = self._record("the model", log_model, name, file, example, probabilities, about)

    def close(self, status: str) -> None:
        """End the run: FINISHED, FAILED or KILLED."""
        self._record("the end of the run", lambda run_id: self._client.set_terminated(run_id, status))
        self.report()

    def report(self) -> None:
        """Say what was not recorded."""
        if self._lost:
            lost = ", ".join(f"{what} ({count} times)" if count > 1 else what for what, count in self._lost.items())
            store = mlflow.get_tracking_uri()
            reason = f"\n  {self._failure}" if self._failure else ""
            print(f"warning: not recorded in MLflow at {store}: {lost}{reason}", file=sys.stderr, flush=True)

    def _record(self, what: str, log: Callable[..., T], *args: Any) -> T | None:
        with self._stopwatch("tracking"):
            try:
                if self._failure is None and self.id is not None:
                    return log(self.id, *args)
            except (MlflowException, OSError) as error:
                print(f"warning: MLflow: {what}: {error}", file=sys.stderr, flush=True)
                self._failure = None if self._reachable() else str(error).splitlines()[0]
        self._lost[what] = self._lost.get(what, 0) + 1
        return None

    def _reachable(self) -> bool:
        """Whether the store still answers: else nothing more is sent, since each attempt waits for it to come back."""
        try:
            self._client.get_run(self.id or "")
        except (MlflowException, OSError):
            return False
        return True


def log_model(
    run_id: str, name: str, file: Path, example: np.ndarray, probabilities: np.ndarray, about: Mapping[str, Any]
) -> str:
    """Log a network for a run, see Run.model; returns its URI."""
    client = mlflow.MlflowClient()
    # Made here: Model.log itself would put it into MLflow's current experiment, not into that of the run.
    of = client.get_run(run_id)
    entry = client.create_logged_model(of.info.experiment_id, name, run_id, params=of.data.params)
    served = Path(__file__).with_name("served.py")
    logged = Model.log(
        artifact_path=None,
        model_id=entry.model_id,
        flavor=_Served,
        run_id=run_id,
        metadata=dict(about),
        loader_module=served.stem,
        data_path=str(file),
        code_paths=[str(served), str(served.parents[2] / "models")],
        signature=infer_signature(example, probabilities.astype(np.float32)),
        input_example=example,
        pip_requirements=provenance.requirements(),
        validate_serving_input=False,
    )
    return logged.model_uri


class _Served:
    """mlflow.pyfunc, which does not know of an option that Model.log hands on."""

    __name__ = "mlflow.pyfunc"

    @staticmethod
    def save_model(validate_serving_input: bool, **kwargs: Any) -> None:
        mlflow.pyfunc.save_model(**kwargs)


@contextmanager
def run(
    paths: Paths,
    card: "Card",
    name: str,
    stage: str,
    stopwatch: Stopwatch,
    *,
    tags: Mapping[str, str],
    parent: str | None = None,
    again: str | None = None,
) -> Iterator[Run]:
    """A run in the experiment of the dataset; it ends FINISHED, FAILED or KILLED, as the block does.

    Args:
        tags: beside the commit, the DVC stage and experiment, and the data's digest, which every run has.
        parent: the run that this one belongs under; the run of `mlflow run`, where that started the stage, otherwise.
        again: a run that was interrupted, to go on with, if the store still has it.
    """
    every = _tags(paths, card, stage, tags, parent or os.environ.get("MLFLOW_RUN_ID"))
    with stopwatch("tracking"):
        try:
            run_id, failure = _start(paths, card.dataset, name, every, again), None
        except (MlflowException, OSError) as error:
            run_id, failure = None, str(error).splitlines()[0]
    opened = Run(run_id, stopwatch, failure)
    try:
        yield opened
    except (KeyboardInterrupt, SystemExit):
        opened.close("KILLED")
        raise
    except BaseException:
        opened.close("FAILED")
        raise
    opened.close("FINISHED")


@contextmanager
def ended_run(
    paths: Paths,
    card: "Card",
    name: str,
    stage: str,
    run_id: str | None,
    stopwatch: Stopwatch,
    *,
    tags: Mapping[str, str],
) -> Iterator[Run]:
    """A run that has ended, to add to; its status stays as it is. A new one where the store does not have it."""
    with stopwatch("tracking"):
        known = run_id is not None and _known(paths, run_id)
    if known:
        opened = Run(run_id, stopwatch)
        yield opened
        opened.report()
        return
    print(f"{name}: the run that trained it is not in this MLflow store; its figures get a run of their own")
    with run(paths, card, name, stage, stopwatch, tags={**tags, TRAINED_BY: str(run_id)}) as opened:
        yield opened


def _known(paths: Paths, run_id: str) -> bool:
    try:
        with connect(paths):
            mlflow.MlflowClient().get_run(run_id)
    except (MlflowException, OSError):
        return False
    return True


def _tags(paths: Paths, card: "Card", stage: str, tags: Mapping[str, str], parent: str | None) -> dict[str, str]:
    git = provenance.commit(paths.root)
    return {
        "mlflow.user": getpass.getuser(),
        "mlflow.source.name": f"pipeline.{stage}",
        PROCESS: _process(psutil.Process()),
        "data.digest": card.digest,
        **{f"dvc.{key}": value for key, value in provenance.dvc(stage).items()},
        **{f"git.{key}": value for key, value in git.items()},
        **({"mlflow.source.git.commit": git["commit"]} if git else {}),
        **({PARENT: parent} if parent else {}),
        **tags,
    }


def _start(paths: Paths, experiment: str, name: str, tags: dict[str, str], again: str | None) -> str:
    with connect(paths) as artifacts:
        client = mlflow.MlflowClient()
        known = client.get_experiment_by_name(experiment)
        location = f"{artifacts}/{experiment}" if artifacts else None
        experiment_id = known.experiment_id if known else client.create_experiment(experiment, location, TAGS)
    close_killed_runs()
    if again and client.search_runs([experiment_id], f"attributes.run_id = '{again}'"):
        client.log_batch(again, tags=[RunTag(key, value) for key, value in tags.items()])
        client.update_run(again, status="RUNNING")
        return again
    return client.create_run(experiment_id, run_name=name, tags=tags).info.run_id


def close_killed_runs() -> int:
    """Mark as KILLED what a process of this machine left RUNNING when it was killed; how many there were."""
    client = mlflow.MlflowClient()
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    running = client.search_runs(experiments, f"attributes.status = 'RUNNING' and tags.`{PROCESS}` LIKE '{_host()}:%'")
    dead = [found for found in running if not _alive(found.data.tags[PROCESS])]
    for found in dead:
        client.set_terminated(found.info.run_id, "KILLED")
    return len(dead)


def _host() -> str:
    return socket.gethostname()


def _process(process: psutil.Process) -> str:
    return f"{_host()}:{process.pid}:{process.create_time():.2f}"


def _alive(process: str) -> bool:
    number = int(process.split(":")[1])
    try:
        return _process(psutil.Process(number)) == process
    except psutil.NoSuchProcess:
        return False
