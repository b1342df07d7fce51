"""MLflow runs: parameters, metrics, tables, files and models of training, search and evaluation."""

import getpass
import os
import sys
import time
from asyncio import CancelledError
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import mlflow
import pandas as pd
from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.data.meta_dataset import MetaDataset
from mlflow.entities import DatasetInput, InputTag, RunTag

from pipeline.core import provenance
from pipeline.core.command import Stopwatch
from pipeline.core.dataset import DatasetInfo
from pipeline.core.paths import Paths
from pipeline.tracking import journal, processes, project, store
from pipeline.tracking.journal import TRAINED_BY, Batch, Described, Journal
from pipeline.tracking.logged_model import ModelToLog, log_model
from pipeline.tracking.store import StoreError, connect

PARENT = "mlflow.parentRunId"
PROCESS = "convpipe.process"  # host, process id and start, to recognise runs of killed processes
MAX_PARAM = 6000  # characters, MLflow's limit
T = TypeVar("T")


@dataclass
class Run:
    """One MLflow run. Nothing that fails to be logged is raised: it is kept to be sent later, or reported as lost.

    `id` is None where the run could not be opened.
    """

    id: str | None
    stopwatch: Stopwatch
    journal: Journal
    store: str  # as messages name it
    failure: str | None = None
    model_uri: str | None = field(default=None, init=False)
    _kept: dict[str, int] = field(default_factory=dict, init=False)
    _lost: dict[str, int] = field(default_factory=dict, init=False)

    def params(self, values: Mapping[str, Any]) -> None:
        """Log parameters by dotted name."""
        params = [(name, str(value)[:MAX_PARAM]) for name, value in values.items()]
        for start in range(0, len(params), 100):  # MLflow's limit for one request
            self._batch("parameters", {"params": params[start : start + 100]})

    def tags(self, values: Mapping[str, str]) -> None:
        self._batch("tags", {"tags": list(values.items())})

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        now = int(time.time() * 1000)
        self._batch("metrics", {"metrics": [(name, float(value), now, step) for name, value in values.items()]})

    def epoch(self, number: int, metrics: Mapping[str, float]) -> None:
        """Log the metrics of one epoch; steps count from 1, as the progress bar does."""
        self.metrics(metrics, step=number + 1)

    def table(self, name: str, rows: pd.DataFrame) -> None:
        """Log a table, which the MLflow UI shows beside those of other runs."""
        self._record(name, lambda run_id: _client().log_table(run_id, rows, f"{name}.json"))

    def file(self, path: Path) -> None:
        """Log a file or folder as an artifact of its own name."""

        def log(run_id: str) -> None:
            if path.is_dir():
                _client().log_artifacts(run_id, str(path), path.name)
            else:
                _client().log_artifact(run_id, str(path))

        self._record(path.name, log)

    def dataset(self, info: DatasetInfo, context: str) -> None:
        """Log the dataset of the run, with its digest."""

        def log(run_id: str) -> None:
            source = CodeDatasetSource({"mlflow.source.name": "pipeline.validate"})
            data = MetaDataset(source, name=info.dataset, digest=info.digest)
            entity = DatasetInput(data._to_mlflow_entity(), [InputTag("mlflow.data.context", context)])
            _client().log_inputs(run_id, datasets=[entity])

        self._record("the data set", log)

    def model(self, model: ModelToLog) -> None:
        """Log a trained network, and keep its URI as `model_uri`."""
        self.model_uri = self._record("the model", lambda run_id: log_model(run_id, model))

    def close(self, status: str) -> None:
        """End the run: FINISHED, FAILED or KILLED."""
        if self.failure is None:
            self._batch("the end of the run", {"end": status, "time": int(time.time() * 1000)})
        else:
            self.journal.end(status)
        self.report()

    def report(self) -> None:
        """Print what was not logged."""
        if not self._kept and not self._lost:
            return
        lines = [f"warning: not recorded in MLflow at {self.store}" + (f": {self.failure}" if self.failure else "")]
        if self._kept:
            lines.append(f"  kept, sent by the next stage or `python -m pipeline.tracking`: {_listed(self._kept)}")
        if self._lost:
            lines.append(f"  lost: {_listed(self._lost)}")
        print("\n".join(lines), file=sys.stderr, flush=True)

    def _batch(self, what: str, batch: Batch) -> None:
        """Send a batch, or keep it to be sent later."""
        self._record(what, lambda run_id: journal.log(_client(), run_id, batch), batch)

    def _record(self, what: str, log: Callable[[str], T], batch: Batch | None = None) -> T | None:
        with self.stopwatch("tracking"):
            if self.failure is None:
                try:
                    return store.attempt(self.store, log, str(self.id))
                except StoreError as error:
                    print(f"warning: MLflow: {what}: {error}", file=sys.stderr, flush=True)
                    self.failure = self._why_gone(error)
            gone = self.failure is not None
            missing = self._kept if batch and gone and self.journal.keep(batch) else self._lost
            missing[what] = missing.get(what, 0) + 1
        return None

    def _why_gone(self, error: StoreError) -> str | None:
        """Why the store no longer answers; None if only one request failed."""
        if not error.gone:
            try:
                store.attempt(self.store, _client().get_run, str(self.id), opening=True)
            except StoreError as probed:
                error = probed
        return str(error) if error.gone else None


def _client() -> mlflow.MlflowClient:
    return mlflow.MlflowClient()


def _listed(what: Mapping[str, int]) -> str:
    return ", ".join(f"{name} ({count} times)" if count > 1 else name for name, count in what.items())


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
        described = Described(self.info.dataset, name, self._tags(parent or project.run_id()))
        with self.stopwatch("tracking"):
            try:
                opened = self._opened(self._attempt(_start, described, resume), described)
            except StoreError as error:
                opened = self._opened(None, described, str(error))
        try:
            yield opened
        except (KeyboardInterrupt, SystemExit, CancelledError):
            opened.close("KILLED")
            raise
        except BaseException:
            opened.close("FAILED")
            raise
        opened.close("FINISHED")

    @contextmanager
    def reopen(self, name: str, run_id: str | None) -> Iterator[Run]:
        """Add to a run that has ended, whose status stays as it is; to a new run where the store does not have it."""
        known, failure = False, None
        if run_id is not None:
            with self.stopwatch("tracking"):
                try:
                    known = self._attempt(_known, run_id)
                except StoreError as error:
                    known, failure = True, str(error)  # what is kept is sent to it, if the store still has it then
        if known:
            opened = self._opened(run_id, Described(self.info.dataset, name, self._tags(None)), failure)
            yield opened
            opened.journal.end(None)
            opened.report()
            return
        print(f"{name}: the run that trained it is not in this MLflow store; its metrics go to a new run")
        moved = replace(self, tags={**self.tags, TRAINED_BY: str(run_id)})
        with moved.run(name) as opened:
            yield opened

    def _attempt(self, call: Callable[..., T], *args: Any) -> T:
        return store.attempt(store.name(self.paths), call, self.paths, *args, opening=True)

    def _opened(self, run_id: str | None, described: Described, failure: str | None = None) -> Run:
        kept = Journal(self.paths, described, run_id)
        return Run(run_id, self.stopwatch, kept, store.name(self.paths), failure)

    def _tags(self, parent: str | None) -> dict[str, str]:
        origin = provenance.origin(self.paths.root, self.stage)
        return {
            "mlflow.user": _user(),
            "mlflow.source.name": f"pipeline.{self.stage}",
            PROCESS: processes.own(),
            "data.digest": self.info.digest,
            **origin.tags(),
            **({"mlflow.source.git.commit": origin.commit} if origin.commit else {}),
            **({PARENT: parent} if parent else {}),
            **self.tags,
        }


def _known(paths: Paths, run_id: str) -> bool:
    with connect(paths):
        return journal.exists(_client(), run_id)


def _start(paths: Paths, run: Described, resume: str | None) -> str:
    catch_up(paths)
    client = _client()
    if resume and journal.exists(client, resume):
        client.log_batch(resume, tags=[RunTag(key, value) for key, value in run.tags.items()])
        client.update_run(resume, status="RUNNING")
        return resume
    with connect(paths) as artifacts:
        created = run.create(paths, artifacts)
    if run.tags.get(PARENT) == project.run_id():
        with suppress(StoreError):
            experiment_id = client.get_run(created).info.experiment_id
            store.attempt(store.name(paths), project.describe, client, experiment_id, project.LOGGED)
    return created


def catch_up(paths: Paths) -> tuple[int, int]:
    """Mark the runs that killed processes of this machine left RUNNING as KILLED, and send what was kept.

    Returns:
        The number of runs marked, and of runs sent.
    """
    with connect(paths):
        client = _client()
        experiments = [experiment.experiment_id for experiment in client.search_experiments()]
        condition = f"attributes.status = 'RUNNING' and tags.`{PROCESS}` LIKE '{processes.host()}:%'"
        running = client.search_runs(experiments, condition)
        dead = [found for found in running if not processes.alive(found.data.tags[PROCESS])]
    for found in dead:
        client.set_terminated(found.info.run_id, "KILLED")
    return len(dead), journal.send(paths)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user id without an entry in the password database, as in containers
        return str(os.getuid())
