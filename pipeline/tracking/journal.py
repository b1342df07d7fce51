"""Records that could not be sent to MLflow: kept in .cache/tracking, a file of JSON lines for each run, and sent later.

The first line describes the run. Each other line is one batch of parameters, metrics or tags, or the end of the run.
"""

import json
import time
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import mlflow
from filelock import FileLock, Timeout
from mlflow.entities import LifecycleStage, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode

from pipeline.core import provenance
from pipeline.core.paths import Paths
from pipeline.tracking import processes, store, view
from pipeline.tracking.store import StoreError

KEPT = "convpipe.kept"  # of a run that was created later: the name of its file here
TRAINED_BY = "convpipe.trained_by"  # of a run: the one, in another store, that trained the network
Batch = Mapping[str, Any]


@dataclass(frozen=True)
class Described:
    """The values that a run is created from."""

    experiment: str
    name: str
    tags: Mapping[str, str]
    began: int = field(default_factory=lambda: int(time.time() * 1000))

    def create(self, paths: Paths, artifacts: str | None, more: Mapping[str, str] | None = None) -> str:
        """Create the run, and its experiment if necessary; returns its id."""
        client = mlflow.MlflowClient()
        tags = {**self.tags, **(more or {})}
        return client.create_run(self._experiment(client, paths, artifacts), self.began, tags, self.name).info.run_id

    def _experiment(self, client: mlflow.MlflowClient, paths: Paths, artifacts: str | None) -> str:
        if known := client.get_experiment_by_name(self.experiment):
            view.update(client, store.name(paths), known)
            return known.experiment_id
        location = f"{artifacts}/{self.experiment}" if artifacts else None
        try:
            return client.create_experiment(self.experiment, location, view.EXPERIMENT_TAGS)
        except MlflowException:
            if known := client.get_experiment_by_name(self.experiment):  # a stage elsewhere created it meanwhile
                return known.experiment_id
            raise


class Journal:
    """Keeps what one run could not send."""

    def __init__(self, paths: Paths, run: Described, run_id: str | None) -> None:
        self._file = _folder(paths) / f"{uuid.uuid4().hex}.jsonl"
        self._first = {"store": _key(paths), "process": processes.own(), "run_id": run_id, "run": asdict(run)}
        self._begun = False

    def keep(self, batch: Batch) -> bool:
        """Append a batch; returns whether that was possible."""
        lines = [batch] if self._begun else [self._first, batch]
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with self._file.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(line) + "\n" for line in lines)
        except OSError:
            return False
        self._begun = True
        return True

    def end(self, status: str | None) -> None:
        """Mark the run as complete, so that it is sent; `status` is None if it stays as it is."""
        if status or self._begun:
            self.keep({"end": status, "time": int(time.time() * 1000)})


def log(client: mlflow.MlflowClient, run_id: str, batch: Batch) -> None:
    """Send one batch of parameters, metrics or tags, or the end of a run."""
    client.log_batch(
        run_id,
        metrics=[Metric(*values) for values in batch.get("metrics", ())],
        params=[Param(*values) for values in batch.get("params", ())],
        tags=[RunTag(*values) for values in batch.get("tags", ())],
    )
    if batch.get("end"):
        client.set_terminated(run_id, batch["end"], batch["time"])


def send(paths: Paths) -> int:
    """Send what earlier processes kept for this store; returns the number of runs.

    Raises:
        StoreError: the store failed again; what is left stays kept.
    """
    folder = _folder(paths)
    if not any(folder.glob("*.jsonl")):
        return 0
    sent = 0
    try:
        with FileLock(folder / "sending.lock", timeout=0):
            for file in sorted(folder.glob("*.jsonl")):
                lines = _read(file)
                if not lines or lines[0]["store"] != _key(paths):
                    continue
                if "end" not in lines[-1]:
                    if processes.alive(lines[0]["process"]):
                        continue
                    lines.append({"end": None if lines[0]["run_id"] else "KILLED", "time": None})
                try:
                    store.attempt(store.name(paths), _send, paths, file.stem, lines)
                except StoreError as error:
                    if error.gone:
                        raise
                    print(f"warning: MLflow refuses what was kept for it: {error}; see {file}.refused", flush=True)
                    file.rename(f"{file}.refused")
                    continue
                file.unlink()
                sent += 1
    except Timeout:  # another process sends them
        return 0
    return sent


def _send(paths: Paths, name: str, lines: list[dict[str, Any]]) -> None:
    first, *batches = lines
    run_id = _find_or_create(paths, name, Described(**first["run"]), first["run_id"])
    client = mlflow.MlflowClient()
    for batch in batches:
        log(client, run_id, batch)


def _find_or_create(paths: Paths, name: str, run: Described, run_id: str | None) -> str:
    """The run to send to: that which was kept from being completed, or one that an interrupted sending created."""
    with store.connect(paths) as artifacts:
        client = mlflow.MlflowClient()
        if run_id and exists(client, run_id):
            return run_id
        if known := client.get_experiment_by_name(run.experiment):
            found = client.search_runs([known.experiment_id], f"tags.`{KEPT}` = '{name}'")
            if found:
                return found[0].info.run_id
        return run.create(paths, artifacts, {KEPT: name, **({TRAINED_BY: run_id} if run_id else {})})


def exists(client: mlflow.MlflowClient, run_id: str) -> bool:
    """Return whether the store has a run, and it was not deleted."""
    try:
        return client.get_run(run_id).info.lifecycle_stage == LifecycleStage.ACTIVE
    except MlflowException as error:
        if error.error_code != ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
            raise
        return False


def _folder(paths: Paths) -> Path:
    return Paths(paths.home).resumable / "tracking"


def _key(paths: Paths) -> str:
    """Which store; as a digest, since an address may hold a password. Empty for the default one, which may move."""
    address = store.address(paths)
    return provenance.digest(address) if address else ""


def _read(file: Path) -> list[dict[str, Any]]:
    """The complete lines of a file; a killed process may have left half of one."""
    lines = []
    for text in file.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            lines.append(json.loads(text))
        except ValueError:
            break
    return lines
