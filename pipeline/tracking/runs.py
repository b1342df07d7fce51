"""MLflow runs: parameters, metrics, tables, files and models of training, search and evaluation."""

import getpass
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import mlflow
import pandas as pd
import psutil
from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.data.meta_dataset import MetaDataset
from mlflow.entities import DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from pipeline.core import provenance
from pipeline.core.command import Stopwatch
from pipeline.core.dataset import DatasetInfo
from pipeline.core.paths import Paths
from pipeline.tracking.logged_model import ModelToLog, log_model
from pipeline.tracking.store import connect

TAGS = {
    "mlflow.experimentKind": "custom_model_development",  # which of its faces the UI shows
    "mlflow.note.content": "One run for each trained network; trials are nested under their search.",
}
PARENT = "mlflow.parentRunId"
PROCESS = "convpipe.process"  # host, process id and start time, to recognise runs of killed processes
TRAINED_BY = "convpipe.trained_by"  # the run, in another store, that trained the network
MAX_PARAM = 6000  # characters, MLflow's limit
T = TypeVar("T")


class Run:
    """One MLflow run. Failures to log are collected and reported, never raised."""

    def __init__(self, run_id: str | None, stopwatch: Stopwatch, failure: str | None = None) -> None:
        self.id = run_id
        self.model_uri: str | None = None
        self._client = mlflow.MlflowClient()
        self._failure = failure
        self._lost: dict[str, int] = {}
        self._stopwatch = stopwatch

    def params(self, values: Mapping[str, Any]) -> None:
        """Log parameters by dotted name."""
        params = [Param(name, str(value)[:MAX_PARAM]) for name, value in values.items()]
        for start in range(0, len(params), 100):  # MLflow's limit for one request
            part = params[start : start + 100]
            self._record("parameters", lambda run_id, part: self._client.log_batch(run_id, params=part), part)

    def tags(self, values: Mapping[str, str]) -> None:
        tags = [RunTag(name, value) for name, value in values.items()]
        self._record("tags", lambda run_id: self._client.log_batch(run_id, tags=tags))

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        now = int(time.time() * 1000)
        metrics = [Metric(name, float(value), now, step) for name, value in values.items()]
        self._record("metrics", lambda run_id: self._client.log_batch(run_id, metrics=metrics))

    def epoch(self, number: int, metrics: Mapping[str, float]) -> None:
        """Log the metrics of one epoch; steps count from 1, as the progress bar does."""
        self.metrics(metrics, step=number + 1)

    def table(self, name: str, rows: pd.DataFrame) -> None:
        """Log a table, which the MLflow UI shows beside those of other runs."""
        self._record(name, lambda run_id: self._client.log_table(run_id, rows, f"{name}.json"))

    def file(self, path: Path) -> None:
        """Log a file or folder as an artifact of its own name."""
        log = self._client.log_artifacts if path.is_dir() else self._client.log_artifact
        args = (path, path.name) if path.is_dir() else (path,)
        self._record(path.name, lambda run_id: log(run_id, *map(str, args)))

    def dataset(self, info: DatasetInfo, context: str) -> None:
        """Log the dataset of the run, with its digest."""
        source = CodeDatasetSource({"mlflow.source.name": "pipeline.validate"})
        data = MetaDataset(source, name=info.dataset, digest=info.digest)
        entity = DatasetInput(data._to_mlflow_entity(), [InputTag("mlflow.data.context", context)])
        self._record("the data set", lambda run_id: self._client.log_inputs(run_id, datasets=[entity]))

    def model(self, model: ModelToLog) -> None:
        """Log a trained network, and keep its URI as `model_uri`."""
        self.model_uri = self._record("the model", log_model, model)

    def close(self, status: str) -> None:
        """End the run: FINISHED, FAILED or KILLED."""
        self._record("the end of the run", lambda run_id: self._client.set_terminated(run_id, status))
        self.report()

    def report(self) -> None:
        """Print what was not logged."""
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
        """Return whether the store still answers; if not, nothing more is sent, since every attempt would wait."""
        try:
            self._client.get_run(self.id or "")
        except (MlflowException, OSError):
            return False
        return True


@dataclass(frozen=True)
class Tracker:
    """Opens the MLflow runs of one stage, in the experiment of the dataset.

    `tags` are set on every run, beside the commit, the DVC stage and experiment, and the digest of the data.
    """

    paths: Paths
    info: DatasetInfo
    stage: str
    stopwatch: Stopwatch
    tags: Mapping[str, str]

    @contextmanager
    def run(self, name: str, *, parent: str | None = None, resume: str | None = None) -> Iterator[Run]:
        """Open a run; it ends FINISHED, FAILED or KILLED, as the block does.

        Args:
            parent: the run to nest this one under; by default that of `mlflow run`, where it started the stage.
            resume: an interrupted run to continue, if the store still has it.
        """
        tags = self._tags(parent or os.environ.get("MLFLOW_RUN_ID"))
        with self.stopwatch("tracking"):
            try:
                run_id, failure = _start(self.paths, self.info.dataset, name, tags, resume), None
            except (MlflowException, OSError) as error:
                run_id, failure = None, str(error).splitlines()[0]
        opened = Run(run_id, self.stopwatch, failure)
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
    def reopen(self, name: str, run_id: str | None) -> Iterator[Run]:
        """Add to a run that has ended, whose status stays as it is; to a new run where the store does not have it."""
        with self.stopwatch("tracking"):
            known = run_id is not None and _known(self.paths, run_id)
        if known:
            opened = Run(run_id, self.stopwatch)
            yield opened
            opened.report()
            return
        print(f"{name}: the run that trained it is not in this MLflow store; its metrics go to a new run")
        moved = replace(self, tags={**self.tags, TRAINED_BY: str(run_id)})
        with moved.run(name) as opened:
            yield opened

    def _tags(self, parent: str | None) -> dict[str, str]:
        origin = provenance.origin(self.paths.root, self.stage)
        return {
            "mlflow.user": getpass.getuser(),
            "mlflow.source.name": f"pipeline.{self.stage}",
            PROCESS: _process(psutil.Process()),
            "data.digest": self.info.digest,
            **origin.tags(),
            **({"mlflow.source.git.commit": origin.commit} if origin.commit else {}),
            **({PARENT: parent} if parent else {}),
            **self.tags,
        }


def _known(paths: Paths, run_id: str) -> bool:
    try:
        with connect(paths):
            mlflow.MlflowClient().get_run(run_id)
    except (MlflowException, OSError):
        return False
    return True


def _start(paths: Paths, experiment: str, name: str, tags: dict[str, str], resume: str | None) -> str:
    with connect(paths) as artifacts:
        client = mlflow.MlflowClient()
        known = client.get_experiment_by_name(experiment)
        location = f"{artifacts}/{experiment}" if artifacts else None
        experiment_id = known.experiment_id if known else client.create_experiment(experiment, location, TAGS)
    close_killed_runs()
    if resume and client.search_runs([experiment_id], f"attributes.run_id = '{resume}'"):
        client.log_batch(resume, tags=[RunTag(key, value) for key, value in tags.items()])
        client.update_run(resume, status="RUNNING")
        return resume
    return client.create_run(experiment_id, run_name=name, tags=tags).info.run_id


def close_killed_runs() -> int:
    """Mark the runs that killed processes of this machine left RUNNING as KILLED; return their number."""
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
