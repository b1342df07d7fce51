"""The model registry: choice of the champion, its lineage, and concurrent registration."""

import shutil
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import keras
import mlflow
import numpy as np
import pytest
from mlflow.entities.model_registry import ModelVersion

from pipeline import tracking
from pipeline.core import config
from pipeline.core.command import Stopwatch
from pipeline.core.dataset import DatasetInfo
from pipeline.core.errors import DataError
from pipeline.core.paths import Paths
from pipeline.core.provenance import Origin
from pipeline.core.records import Counts, Device, Scores, TrainingRecord
from pipeline.runtime import saved_model
from pipeline.tracking import ModelToLog, registered, registry, store

from .conftest import ROOT

INFO = DatasetInfo("digits", (2, 2, 1), ("a", "b"), {"train": 1, "validation": 1, "test": 1}, "0" * 32)

pytestmark = pytest.mark.usefixtures("no_store")


def client(root: Path) -> mlflow.MlflowClient:
    return mlflow.MlflowClient(f"sqlite:///{root / 'mlflow.db'}")


def candidate(root: Path, name: str, accuracy: float, loss: float = 0.5) -> registry.Candidate:
    """A network with random weights, logged in the project's store as training does."""
    file = root / f"{name}.keras"
    model = keras.Sequential([keras.Input((2, 2, 1)), keras.layers.Flatten(), keras.layers.Dense(2, "softmax")])
    file.write_bytes(saved_model.content(model))
    sha256 = saved_model.digest(file)
    with tracking.Tracker(Paths(root), INFO, "train", Stopwatch(), tags={}).run(name) as run:
        run.metrics({"validation_accuracy": accuracy})
        run.model(ModelToLog(name, file, np.zeros((1, 2, 2, 1), np.uint8), INFO))
    record = TrainingRecord(
        name=name,
        network=next(iter(config.load(Paths(ROOT)).models.values())),
        base=None,
        seed=1,
        dataset=INFO.dataset,
        data_digest=INFO.digest,
        settings_digest="1" * 32,
        key="",
        device=Device(kind="cpu", name="a processor", precision="float32", threads=0),
        origin=Origin(stage=f"train@{name}", experiment=None, baseline=None, commit="c" * 40, changed=False),
        sha256=sha256,
        counts=Counts(parameters=10, trainable_parameters=10, non_trainable_parameters=0, multiply_adds=8),
        validation=Scores(accuracy=accuracy, loss=loss),
        run_id=run.id,
        model_uri=run.model_uri,
    )
    return registry.Candidate(record, run.id, run.model_uri, {"accuracy": 0.5, "loss": 1.0, "ece": 0.1})


def register(root: Path, *candidates: registry.Candidate, info: DatasetInfo = INFO) -> None:
    registry.register(Paths(root), info, list(candidates), Stopwatch())


def versions(root: Path) -> list[ModelVersion]:
    found = client(root).search_model_versions("name = 'digits'")
    return sorted(found, key=lambda version: int(version.version))


def champion(root: Path) -> str:
    return client(root).get_model_version_by_alias("digits", "champion").version


def test_the_best_by_validation_is_registered_with_its_lineage(tmp_path: Path):
    better = candidate(tmp_path, "better", 0.9, 0.3)
    register(tmp_path, candidate(tmp_path, "worse", 0.9, 0.4), better, candidate(tmp_path, "worst", 0.8, 0.1))
    [version] = versions(tmp_path)
    assert (version.run_id, version.source, champion(tmp_path)) == (better.run_id, better.model_uri, version.version)
    assert version.tags == {
        "model": "better",
        "summary": better.record.summary,
        "model.sha256": better.record.sha256,
        "data.digest": INFO.digest,
        "params.digest": "1" * 32,
        "parameters": "10",
        "git.commit": "c" * 40,
        "git.changed": "no",
        "dvc.stage": "train@better",
        "validation.accuracy": "0.9",
        "validation.loss": "0.3",
        "test.accuracy": "0.5",
        "test.loss": "1.0",
        "test.ece": "0.1",
    }
    assert "by which it was chosen: accuracy 90.00%, loss 0.3000" in str(version.description)
    assert client(tmp_path).get_run(str(better.run_id)).data.tags["convpipe.registered"] == "digits/1"
    logged = client(tmp_path).get_logged_model(str(better.model_uri).removeprefix("models:/"))
    assert '"version": "1"' in logged.tags["mlflow.modelVersions"].replace(": 1", ': "1"')


def test_a_champion_that_does_not_beat_the_baselines_is_tagged_with_a_warning(tmp_path: Path, capsys):
    weak = replace(candidate(tmp_path, "weak", 0.9), unbeaten="linear classifier (+0.50 pp, p = 0.21)")
    better = replace(candidate(tmp_path, "worse", 0.8), unbeaten=None)  # beats them, but is not the best
    register(tmp_path, weak, better)
    expected = "not better than linear classifier (+0.50 pp, p = 0.21)"
    warning = f"warning: weak: the best network is {expected} on the validation images; try more epochs than "
    assert warning in capsys.readouterr().err
    [version] = versions(tmp_path)
    assert (version.tags["model"], version.tags["convpipe.baselines"]) == ("weak", expected)
    register(tmp_path, weak)
    assert warning in capsys.readouterr().err, "also where it stays champion"
    register(tmp_path, candidate(tmp_path, "strong", 0.95))
    assert "warning" not in capsys.readouterr().err
    assert "convpipe.baselines" not in versions(tmp_path)[1].tags


def test_a_logged_model_belongs_to_its_run_and_predicts(tmp_path: Path):
    net = candidate(tmp_path, "net", 0.9)
    run = client(tmp_path).get_run(str(net.run_id))
    logged = client(tmp_path).get_logged_model(str(net.model_uri).removeprefix("models:/"))
    assert (logged.status, logged.experiment_id, logged.source_run_id) == ("READY", run.info.experiment_id, net.run_id)
    assert [(metric.key, metric.value) for metric in logged.metrics or []] == [("validation_accuracy", 0.9)]
    assert run.info.status == "FINISHED"
    assert mlflow.active_run() is None
    loaded = mlflow.pyfunc.load_model(str(net.model_uri))
    np.testing.assert_allclose(loaded.predict(np.zeros((3, 2, 2, 1), np.float32)), np.full((3, 2), 0.5))


@pytest.mark.parametrize(("accuracy", "loss"), [(0.9, 0.3), (0.9, 0.4), (0.8, 0.1)])
def test_an_equal_or_worse_network_leaves_the_champion(tmp_path: Path, accuracy: float, loss: float, capsys):
    register(tmp_path, candidate(tmp_path, "first", 0.9, 0.3))
    register(tmp_path, candidate(tmp_path, "second", accuracy, loss))
    assert (len(versions(tmp_path)), champion(tmp_path)) == (1, 1)
    assert "digits: version 1, first, stays champion" in capsys.readouterr().out


@pytest.mark.parametrize(("accuracy", "loss"), [(0.95, 0.9), (0.9, 0.2)])
def test_a_better_network_becomes_champion(tmp_path: Path, accuracy: float, loss: float, capsys):
    register(tmp_path, candidate(tmp_path, "first", 0.9, 0.3))
    register(tmp_path, candidate(tmp_path, "second", accuracy, loss))
    assert (len(versions(tmp_path)), champion(tmp_path)) == (2, 2)
    assert "version 2, second, is the champion" in capsys.readouterr().out


def test_a_champion_of_other_data_is_replaced_with_a_notice(tmp_path: Path, capsys):
    register(tmp_path, candidate(tmp_path, "first", 0.9))
    register(tmp_path, candidate(tmp_path, "second", 0.5), info=replace(INFO, digest="2" * 32))
    assert champion(tmp_path) == 2
    assert "replaces version 1, which was trained on other data" in capsys.readouterr().out


def test_concurrent_evaluations_register_one_version(tmp_path: Path):
    same = candidate(tmp_path, "same", 0.9)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: register(tmp_path, same), range(2)))
    assert (len(versions(tmp_path)), champion(tmp_path)) == (1, 1)


def test_without_a_lock_the_later_of_two_versions_is_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    same = candidate(tmp_path, "same", 0.9)
    versions_of = registry._versions

    def overtaken(client: mlflow.MlflowClient, info: DatasetInfo, best: registry.Candidate) -> list[ModelVersion]:
        """Find none; right afterwards another evaluation registers the network."""
        monkeypatch.setattr(registry, "_versions", versions_of)
        registry._version(client, info, best)
        return []

    monkeypatch.setattr(registry, "_versions", overtaken)
    register(tmp_path, same)
    assert ([version.version for version in versions(tmp_path)], champion(tmp_path)) == ([1], 1)


def test_an_unreachable_store_causes_only_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    known = candidate(tmp_path, "net", 0.9)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    register(tmp_path, known)
    register(tmp_path, replace(known, run_id=None, model_uri=None))
    assert capsys.readouterr().err.count("warning: net: not registered: MLflow") == 2


def saved_files(root: Path) -> list[Path]:
    return list((root / "mlartifacts").rglob("*.keras"))


def test_the_file_of_the_champion_is_downloaded_and_verified(tmp_path: Path):
    net = candidate(tmp_path, "net", 0.9)
    register(tmp_path, net)
    for uri in ("models:/digits@champion", "models:/digits/1"):
        folder = tmp_path / uri.replace("/", "-")
        found = registered.download(Paths(tmp_path), uri, folder)
        assert (found.dataset, found.sha256) == ("digits", net.record.sha256)
        assert found.file.is_relative_to(folder)
        assert saved_model.digest(found.file) == net.record.sha256


def test_a_replaced_file_is_refused(tmp_path: Path):
    register(tmp_path, candidate(tmp_path, "net", 0.9))
    [file] = saved_files(tmp_path)
    model = keras.Sequential([keras.Input((2, 2, 1)), keras.layers.Flatten(), keras.layers.Dense(2, "sigmoid")])
    model.save(file)
    with pytest.raises(DataError, match="the network stored for version 1 was replaced after it was registered"):
        registered.download(Paths(tmp_path), "models:/digits@champion", tmp_path / "download")


def test_missing_files_are_reported_with_the_way_out(tmp_path: Path):
    register(tmp_path, candidate(tmp_path, "net", 0.9))
    shutil.rmtree(tmp_path / "mlartifacts")
    with pytest.raises(DataError, match=r"the file of version 1 cannot be read.*`dvc repro --single-item --force eva"):
        registered.download(Paths(tmp_path), "models:/digits@champion", tmp_path / "download")


def test_a_version_that_this_project_did_not_register_is_refused(tmp_path: Path):
    net = candidate(tmp_path, "net", 0.9)
    client(tmp_path).create_registered_model("digits")
    client(tmp_path).create_model_version("digits", str(net.model_uri))
    with pytest.raises(DataError, match=r"version 1 has no tag model\.sha256"):
        registered.download(Paths(tmp_path), "models:/digits/1", tmp_path / "download")


@pytest.mark.parametrize(
    "uri", ["models:/m-0123", "models:/", "models:/digits@", "models:/digits/", "models:/@champion"]
)
def test_a_uri_that_names_no_version_is_refused(tmp_path: Path, uri: str):
    with pytest.raises(DataError, match="not a registered version; allowed: models:/NAME@ALIAS, models:/NAME/VERSION"):
        registered.download(Paths(tmp_path), uri, tmp_path / "download")


def lost(file: Path) -> None:
    file.unlink()


def changed(file: Path) -> None:
    file.write_bytes(b"another network")


@pytest.mark.parametrize("damage", [lost, changed])
def test_a_champion_without_its_file_is_replaced(tmp_path: Path, damage: Callable[[Path], None], capsys):
    first = candidate(tmp_path, "first", 0.9)
    register(tmp_path, first)
    [file] = saved_files(tmp_path)
    damage(file)
    register(tmp_path, candidate(tmp_path, "second", 0.8))
    assert champion(tmp_path) == 2
    assert "replaces version 1, whose file is missing from the store or was changed" in capsys.readouterr().out


def test_the_same_network_is_registered_anew_after_its_file_was_lost(tmp_path: Path, capsys):
    first = candidate(tmp_path, "first", 0.9)
    register(tmp_path, first)
    [file] = saved_files(tmp_path)
    assert registry.is_logged(Paths(tmp_path), first.record)
    file.unlink()
    assert not registry.is_logged(Paths(tmp_path), first.record)
    register(tmp_path, first)
    assert (
        "warning: first: not registered: MLflow: the network is missing from its logged model"
        in capsys.readouterr().err
    )
    again = candidate(tmp_path, "first", 0.9)
    register(tmp_path, again)
    assert champion(tmp_path) == 2
    registered.download(Paths(tmp_path), "models:/digits@champion", tmp_path / "download")


def test_code_in_the_registry_is_not_run(tmp_path: Path):
    register(tmp_path, candidate(tmp_path, "net", 0.9))
    [file] = saved_files(tmp_path)
    code = file.parents[1] / "code"
    for script in code.rglob("*.py"):
        script.write_text(
            "import pathlib; pathlib.Path('/proc/self/cwd/run').touch(); raise SystemExit", encoding="utf-8"
        )
    assert list(code.rglob("*.py"))
    registered.download(Paths(tmp_path), "models:/digits@champion", tmp_path / "download")
    assert [each.suffix for each in (tmp_path / "download").rglob("*")] == [".keras"]


def broken_database(root: Path) -> str:
    (root / "mlflow.db").write_bytes(b"This is no database. " * 1000)
    return "not a database"


def locked_database(root: Path) -> str:
    held.append(sqlite3.connect(root / "mlflow.db", isolation_level=None))
    held[-1].execute("BEGIN EXCLUSIVE")
    return "locked"


def emptied_database(root: Path) -> str:
    with closing(sqlite3.connect(root / "mlflow.db")) as database, database:
        database.execute("DROP TABLE model_versions")
    return ""


held: list[sqlite3.Connection] = []


@pytest.mark.parametrize("damage", [broken_database, locked_database, emptied_database])
def test_a_store_that_cannot_be_used_is_reported(
    tmp_path: Path, damage: Callable[[Path], str], monkeypatch: pytest.MonkeyPatch, capsys
):
    monkeypatch.setattr(store, "PATIENCE", 0.5)
    known = candidate(tmp_path, "net", 0.9)
    register(tmp_path, known)
    message = damage(tmp_path)
    try:
        with pytest.raises(DataError, match=f"models:/digits@champion: not found in MLflow at /.*{message}"):
            registered.download(Paths(tmp_path), "models:/digits@champion", tmp_path / "download")
        register(tmp_path, known)
        assert "warning: net: not registered: MLflow: " in capsys.readouterr().err
    finally:
        while held:
            held.pop().close()


def test_a_missing_model_is_reported(tmp_path: Path):
    with pytest.raises(DataError, match="models:/digits@champion: not found in MLflow at /"):
        registered.download(Paths(tmp_path), "models:/digits@champion", tmp_path / "download")
