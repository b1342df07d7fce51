"""Projects to test in: copies of this one in temporary folders, with the real parameters made small."""

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from pipeline.core import config, dataset, records
from pipeline.core.command import Stopwatch
from pipeline.core.paths import Paths
from pipeline.core.provenance import Origin
from pipeline.engine.engine import InProcess

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # as commands set it, before a test imports TensorFlow

ROOT = Path(__file__).parent.parent
CODE = ("models", "own_networks", "pipeline", "data/catalog.yaml", "params.yaml")
TOOLS = ("dvc.yaml", "MLproject", ".dvc/config", ".dvc/.gitignore", ".dvc/plots", ".dvcignore", ".gitignore")
yaml = YAML(typ="safe", pure=True)
yaml.default_flow_style = False  # what DVC reads: libyaml refuses some values within brackets


@dataclass(frozen=True)
class Project:
    """A copy of the project to run commands in."""

    root: Path

    @property
    def paths(self) -> Paths:
        return Paths(self.root)

    def run(self, *command: str, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command as a user would, in the project's folder, with this environment's tools."""
        done = subprocess.run(
            command, cwd=self.root, capture_output=True, text=True, check=False, env=self.environment(**environment)
        )
        if check and done.returncode:
            pytest.fail(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
        return done

    def stage(self, name: str, *arguments: str, check: bool = True, **environment: str):
        return self.run(sys.executable, "-m", f"pipeline.{name}", *arguments, check=check, **environment)

    def environment(self, **more: str) -> dict[str, str]:
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("MLFLOW_", "DVC_", "GIT_")) and name != "DATASET_MIRROR"
        }
        tools = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        # One process for a search: starting more would take longer than these searches.
        return inherited | {"PATH": tools, "DVC_NO_ANALYTICS": "1", "FIT_WORKERS": "1"} | more

    def params(self) -> Any:
        return yaml.load(self.root / "params.yaml")

    def change(self, **sections: Any) -> None:
        """Overlay values on params.yaml."""
        yaml.dump(overlaid(self.params(), sections), self.root / "params.yaml")

    def commit(self, message: str) -> None:
        self.run("git", "add", "--all")
        self.run("git", "commit", "--quiet", "--message", message)


class Here(InProcess):
    """The tests' own process, with a device that is the same everywhere."""

    @property
    def device(self) -> records.Device:
        return records.Device(kind="cpu", name="a processor", precision="float32", threads=1)


def overlaid(values: Any, changes: Any) -> Any:
    """Merge nested mappings; those of `changes` win."""
    if not isinstance(values, dict) or not isinstance(changes, dict):
        return changes
    return values | {key: overlaid(values.get(key), value) for key, value in changes.items()}


def copy_project(root: Path) -> Project:
    """Copy the project's code and its real parameters, made small, to a folder."""
    for part in (*CODE, *TOOLS):
        source, target = ROOT / part, root / part
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(source, target)
    project = Project(root)
    project.change(**yaml.load(Path(__file__).parent / "smoke.yaml"))
    return project


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the files with the longest tests first: started last, they would leave the other processes without work."""
    pipeline = Counter(item.path for item in items if item.get_closest_marker("pipeline"))
    items.sort(key=lambda item: -pipeline[item.path])


def write_records(project: Project, **changes: Any) -> None:
    """Write the record of every network, as training leaves it, with some values changed."""
    params, info = config.load(project.paths), dataset.load_info(project.paths)
    for name in params.trained:
        record = records.TrainingRecord(
            name=name,
            network=params.base if name == config.TUNED else params.network(name),
            base=params.base_of(name),
            seed=params.seed,
            dataset=info.dataset,
            data_digest=info.digest,
            settings_digest="",
            key="",
            device=records.Device(kind="cpu", name="a processor", precision="float32", threads=1),
            origin=Origin(stage="train", experiment=None, baseline=None, commit=None, changed=None),
            sha256="",
            counts=records.Counts(parameters=1, trainable_parameters=1, non_trainable_parameters=0, multiply_adds=1),
            validation=records.Scores(accuracy=0.5, loss=1.0),
            run_id=None,
            model_uri=None,
        )
        record.model_copy(update=changes).write(project.paths.training(name))


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A fresh copy, without Git, DVC or data."""
    return copy_project(tmp_path)


@pytest.fixture(scope="session")
def validated(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A copy with validated data; not to be changed."""
    project = copy_project(tmp_path_factory.mktemp("validated"))
    project.stage("download")
    project.stage("validate")
    return project


@pytest.fixture
def copy_of_validated(validated: Project, tmp_path: Path) -> Project:
    """A copy with validated data, to be changed at will."""
    shutil.copytree(validated.root, tmp_path, dirs_exist_ok=True)
    return Project(tmp_path)


@pytest.fixture
def no_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """No MLflow or DVC settings from outside."""
    without_stores(monkeypatch)


def without_stores(environment: pytest.MonkeyPatch) -> None:
    """No settings from outside, and no store that failed in another test. The tables of new stores are copied."""
    for name in list(os.environ):
        if name.startswith(("MLFLOW_", "DVC_")):
            environment.delenv(name)
    environment.setattr("pipeline.tracking.store._failed", {})
    environment.setattr("mlflow.store.db.utils._initialize_tables", _copy_tables)
    environment.setattr("mlflow.store.db.utils._get_latest_schema_revision", _schema_revision)


def _copy_tables(engine: Any) -> None:
    connection = engine.raw_connection()
    with closing(connection), closing(sqlite3.connect(":memory:")) as tables:
        tables.deserialize(_tables())
        tables.backup(connection.driver_connection)


@cache
def _tables() -> bytes:
    """A database with MLflow's tables, as MLflow makes them, without runs."""
    from mlflow.store.db import utils
    from mlflow.store.tracking.dbmodels.initial_models import Base

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "tables.db"
        engine = utils.create_sqlalchemy_engine(f"sqlite:///{file}")
        Base.metadata.create_all(engine)
        utils._upgrade_db(engine)
        engine.dispose()
        return file.read_bytes()


@cache
def _schema_revision() -> str:
    with closing(sqlite3.connect(":memory:")) as tables:
        tables.deserialize(_tables())
        [(revision,)] = tables.execute("SELECT version_num FROM alembic_version")
        return revision


@pytest.fixture(scope="session")
def champion(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A copy whose network `own`, with custom pooling layers, was trained and registered; not to be changed."""
    from pipeline.tracking import registry  # not at the top: it takes seconds, and most tests go without

    project = copy_project(tmp_path_factory.mktemp("champion"))
    blocks = [{"filters": [16], "pooling": {"kind": "lp"}}, {"filters": [32], "pooling": {"kind": "blur"}}]
    own = {"blocks": blocks, "head": {"dense": [64], "output": "logits"}, "fit": {"epochs": 4}}
    project.change(data={"limit": None}, models={"own": own})
    project.stage("download")
    project.stage("validate")
    project.stage("train", "own")
    record = records.load_training(project.paths, "own")
    candidate = registry.Candidate(record, record.run_id, record.model_uri, record.validation.model_dump())
    with pytest.MonkeyPatch.context() as environment:
        without_stores(environment)
        registry.register(project.paths, dataset.load_info(project.paths), [candidate], Stopwatch())
        yield project
