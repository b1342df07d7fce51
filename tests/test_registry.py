"""The registered champion: who becomes it, where it came from, and what happens when two arrive at once."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import keras
import mlflow
import numpy as np
import pytest
from mlflow.entities.model_registry import ModelVersion

from pipeline import artifacts, tracking
from pipeline.dataset import Card
from pipeline.errors import DataError
from pipeline.paths import Paths
from pipeline.stage import Stopwatch
from pipeline.tracking import registry

CARD = Card("digits", (2, 2, 1), ("a", "b"), {"train": 1, "validation": 1, "test": 1}, "0" * 32)

pytestmark = pytest.mark.usefixtures("no_store")


def candidate(root: Path, name: str, accuracy: float, loss: float = 0.5, **about) -> registry.Candidate:
    """A network of its own bytes, logged in the project's store as training does."""
    file = root / f"{name}.keras"
    model = keras.Sequential([keras.Input((2, 2, 1)), keras.layers.Flatten(), keras.layers.Dense(2, "softmax")])
    sha256 = artifacts.save(model, file)
    with tracking.run(Paths(root), CARD, name, "train", Stopwatch(), tags={}) as run:
        run.model(name, file, np.zeros((1, 2, 2, 1), np.float32), np.zeros((1, 2)), {"dataset": "digits"})
    record = {
        "sha256": sha256,
        "params": "1" * 32,
        "parameters": {"parameters": 10},
        "commit": "c" * 40,
        "changed": "no",
        "stage": f"train@{name}",
        "validation": {"accuracy": accuracy, "loss": loss},
    }
    return registry.Candidate(name, run.id, run.model_uri, record | about, {"accuracy": 0.5, "loss": 1.0})


def register(root: Path, *candidates: registry.Candidate, card: Card = CARD) -> None:
    registry.register(Paths(root), card, list(candidates), Stopwatch())


def versions(root: Path) -> list[ModelVersion]:
    found = mlflow.MlflowClient(f"sqlite:///{root / 'mlflow.db'}").search_model_versions("name = 'digits'")
    return sorted(found, key=lambda version: int(version.version))


def champion(root: Path) -> str:
    return (
        mlflow.MlflowClient(f"sqlite:///{root / 'mlflow.db'}").get_model_version_by_alias("digits", "champion").version
    )


def test_the_best_by_validation_is_registered_and_can_be_traced(tmp_path: Path):
    better = candidate(tmp_path, "better", 0.9, 0.3)
    register(tmp_path, candidate(tmp_path, "worse", 0.9, 0.4), better, candidate(tmp_path, "worst", 0.8, 0.1))
    [version] = versions(tmp_path)
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert (version.run_id, version.source, champion(tmp_path)) == (better.run_id, better.model_uri, version.version)
    tags = version.tags
    assert (tags["git.commit"], tags["dvc.stage"], tags["data.digest"]) == ("c" * 40, "train@better", CARD.digest)
    assert (tags["model.sha256"], tags["validation.loss"], tags["test.accuracy"]) == (
        better.about["sha256"],
        "0.3",
        "0.5",
    )
    assert "accuracy 90.00%, loss 0.3000 on the validation images" in str(version.description)
    assert client.get_run(str(better.run_id)).data.tags["convpipe.registered"] == "digits/1"
    logged = client.get_logged_model(str(better.model_uri).removeprefix("models:/"))
    assert '"version": "1"' in logged.tags["mlflow.modelVersions"].replace(": 1", ': "1"')


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


def test_a_champion_of_other_data_gives_way_and_it_is_said(tmp_path: Path, capsys):
    register(tmp_path, candidate(tmp_path, "first", 0.9))
    register(tmp_path, candidate(tmp_path, "second", 0.5), card=replace(CARD, digest="2" * 32))
    assert champion(tmp_path) == 2
    assert "version 1 before it was trained on other data" in capsys.readouterr().out


def test_two_evaluations_at_once_register_one_version(tmp_path: Path):
    same = candidate(tmp_path, "same", 0.9)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: register(tmp_path, same), range(2)))
    assert (len(versions(tmp_path)), champion(tmp_path)) == (1, 1)


def test_without_a_lock_the_later_of_two_versions_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    same = candidate(tmp_path, "same", 0.9)
    looked_up = registry._versions

    def overtaken(client: mlflow.MlflowClient, card: Card, best: registry.Candidate) -> list[ModelVersion]:
        """Finds none; right afterwards another evaluation registers the network."""
        monkeypatch.setattr(registry, "_versions", looked_up)
        registry._version(client, card, best)
        return []

    monkeypatch.setattr(registry, "_versions", overtaken)
    register(tmp_path, same)
    assert ([version.version for version in versions(tmp_path)], champion(tmp_path)) == ([1], 1)


def test_a_store_out_of_reach_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    known = candidate(tmp_path, "net", 0.9)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    register(tmp_path, known)
    register(tmp_path, replace(known, run_id=None, model_uri=None))
    said = capsys.readouterr().err
    assert said.count("warning: net is not registered: MLflow") == 2


def test_a_model_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(DataError, match="models:/digits@champion: not found in MLflow at sqlite"):
        registry.load(Paths(tmp_path), "models:/digits@champion")
