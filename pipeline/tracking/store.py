"""The MLflow store: that of the environment, or mlflow.db in the project's folder."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mlflow
from filelock import FileLock

from pipeline.core.paths import Paths


@contextmanager
def connect(paths: Paths) -> Iterator[str | None]:
    """Set the store, and yield the URI for its artifacts; None where the store chooses it.

    The default store is locked during the block: two first writers would both create its tables.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    if uri:
        mlflow.set_tracking_uri(uri)
        yield None
        return
    home = Path(os.environ.get("DVC_ROOT") or paths.root).resolve()
    mlflow.set_tracking_uri(f"sqlite:///{home / 'mlflow.db'}")
    with FileLock(home / "mlflow.db.lock"):
        # Absolute: the default is relative to a working directory that DVC deletes after an experiment.
        yield (home / "mlartifacts").as_uri()
