"""The MLflow store, that of the environment or mlflow.db in the project's folder, and the guard around its calls.

Nothing that fails in MLflow, its database or its server ends a stage: `attempt` turns all of it into a StoreError. A
store that has failed is not tried again in the same process, since every attempt might wait.
"""

import logging
import os
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, unquote

import filelock
import mlflow
import requests
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError

from pipeline.core.errors import DataError
from pipeline.core.paths import Paths
from pipeline.core.redact import redact

PATIENCE = 120.0  # seconds to wait for other processes; one that creates the tables may take long on a busy machine
ARTIFACTS = "mlartifacts"
LOCATIONS = {  # the columns of MLflow's tables that hold addresses of artifacts
    "experiments": ("artifact_location",),
    "runs": ("artifact_uri",),
    "logged_models": ("artifact_location",),
    "model_versions": ("source", "storage_location"),
    "trace_tags": ("value",),
}
T = TypeVar("T")

_failed: dict[str, str] = {}  # the stores, by name, that failed in this process, and why


class StoreError(DataError, OSError):
    """MLflow, its database or its server failed. `gone`: the store itself, and not one request."""

    def __init__(self, reason: str, gone: bool = True) -> None:
        super().__init__(reason)
        self.gone = gone


def address(paths: Paths) -> str:
    """The URI of the store that MLFLOW_TRACKING_URI names; empty for the default store, which `mlflow run` names."""
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    file = paths.home / unquote(uri.removeprefix("sqlite:///"))
    return "" if uri.startswith("sqlite:///") and file.resolve() == _database(paths) else uri


def name(paths: Paths) -> str:
    """The store as messages name it, without credentials."""
    return redact(address(paths)) or str(_database(paths))


def attempt(store: str, call: Callable[..., T], *args: Any, opening: bool = False) -> T:
    """Call MLflow.

    Args:
        store: its name.
        opening: whether nothing else can succeed where this call fails.

    Raises:
        StoreError: the call failed, for whatever reason; or the store has failed before in this process.
    """
    if store in _failed:
        raise StoreError(_failed[store])
    try:
        return call(*args)
    except Exception as error:  # MLflow passes on those of its database, its server and a dozen libraries
        gone = opening or _of_store(error)
        lines = redact(str(error)).strip().splitlines() or [type(error).__name__]
        raise (_give_up(store, lines[0]) if gone else StoreError(lines[0], gone=False)) from error


def _give_up(store: str, reason: str) -> StoreError:
    _failed[store] = reason
    return StoreError(reason)


def _of_store(error: BaseException | None) -> bool:
    """Return whether the database or server failed, rather than one request."""
    while error is not None:
        if isinstance(error, StoreError):
            return error.gone
        if isinstance(error, IntegrityError):  # what was sent contradicts what is there
            return False
        if isinstance(error, DBAPIError | SQLAlchemyError | sqlite3.Error | requests.RequestException):
            return True
        error = error.__cause__ or error.__context__
    return False


@contextmanager
def connect(paths: Paths) -> Iterator[str | None]:
    """Set the store, and yield the URI for its artifacts; None where the store chooses it.

    The default store is locked during the block: two first writers would both create its tables.

    Raises:
        StoreError: the default store is damaged, or stays locked by another process; or it has failed before.
    """
    if name(paths) in _failed:
        raise StoreError(_failed[name(paths)])
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # it logs tracebacks of what it raises
    if address(paths):
        mlflow.set_tracking_uri(address(paths))
        yield None
        return
    database = _database(paths)
    mlflow.set_tracking_uri(_uri(database))
    os.environ.pop("MLFLOW_TRACKING_URI", None)  # where MLflow puts it, as if the user had chosen the store
    lock = filelock.FileLock(f"{database}.lock", timeout=PATIENCE)
    try:
        lock.acquire()
    except filelock.Timeout:
        reason = (
            f"{database}.lock: held by another process for more than {PATIENCE:.0f} s; end that process "
            f"(`fuser {database}.lock` names it)"
        )
        raise _give_up(name(paths), reason) from None
    except OSError as error:
        raise _give_up(name(paths), f"{database}.lock: {error.strerror}") from None
    try:
        # Absolute: the default is relative to a working directory that DVC deletes after an experiment.
        artifacts = (database.parent / ARTIFACTS).as_uri()
        if database.exists() and database.stat().st_size:
            try:
                _check_and_relocate(database, artifacts)
            except sqlite3.Error as error:
                reason = (
                    f"{database}: {error}; if a program holds it open, close it; if the file is damaged, restore a "
                    "copy, or rename it to begin with an empty one"
                )
                raise _give_up(name(paths), reason) from None
        yield artifacts
    finally:
        lock.release()


def _database(paths: Paths) -> Path:
    return paths.home.resolve() / "mlflow.db"


def _uri(database: Path) -> str:
    """The database as a URI. MLflow makes the folder of an escaped path, so such a path is given as a relative one."""
    if quote(str(database)) == str(database):
        return f"sqlite:///{database}"
    return f"sqlite:///{quote(os.path.relpath(database))}"


def _check_and_relocate(database: Path, artifacts: str) -> None:
    """Check the database, which MLflow would retry for minutes, and follow a project folder that was moved or copied.

    Locations of artifacts are absolute. Those of another folder would lead a copy of the project to write into the
    original, and a moved project to look in vain.
    """
    with closing(sqlite3.connect(database, timeout=PATIENCE, isolation_level=None)) as connection:
        tables = {table for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if "experiments" not in tables:
            return
        rows = connection.execute("SELECT name, artifact_location FROM experiments").fetchall()
        own = [location.removesuffix(f"/{experiment}") for experiment, location in rows if location]
        old = {root for root in own if re.fullmatch(rf"file://.*/{ARTIFACTS}", root) and root != artifacts}
        if old:
            _relocate(connection, tables, old, artifacts)
    for root in sorted(old):
        print(f"MLflow: the project was moved or copied; artifacts of {root} are now those of {artifacts}", flush=True)


def _relocate(connection: sqlite3.Connection, tables: set[str], old: set[str], artifacts: str) -> None:
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        for table in tables & LOCATIONS.keys():
            for column in LOCATIONS[table]:
                for root in old:
                    connection.execute(
                        f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",
                        (artifacts, len(root) + 1, len(root) + 1, f"{root}/"),
                    )
