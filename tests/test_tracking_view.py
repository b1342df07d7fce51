"""MLflow's UI: the saved view that compares networks, and the names and descriptions of runs."""

import json
from argparse import Namespace
from pathlib import Path

import mlflow
import pytest

from pipeline.core import baseline, config
from pipeline.core.paths import Paths
from pipeline.tracking import __main__ as catching_up
from pipeline.tracking import view
from pipeline.tracking.description import KIND, NOTE, Kind
from pipeline.train.train import Job, Trainer

from .conftest import Here, Project
from .test_tracking import opened, stored, tracker

KINDS: tuple[Kind, ...] = ("network", "replicate", "trial", "finalist")

pytestmark = pytest.mark.usefixtures("no_store")


def tags_of(client: mlflow.MlflowClient, experiment: str = "digits") -> dict[str, str]:
    found = client.get_experiment_by_name(experiment)
    assert found
    return found.tags


def test_the_view_shows_networks_and_is_renewed(tmp_path: Path):
    for kind in ("trial", "network"):
        with opened(tmp_path, kind) as run:
            run.tags({KIND: kind})
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    state = json.loads(tags_of(client)[view.TAG])
    [found] = client.search_runs(["1"], state["searchFilter"], order_by=[f"{state['orderByKey']} DESC"])
    assert found.info.run_name == "network"

    client.set_experiment_tag("1", view.TAG, "of an earlier version")
    client.set_experiment_tag("1", NOTE, "by the user")
    with opened(tmp_path):
        pass
    assert json.loads(tags_of(client)[view.TAG]) == state
    assert tags_of(client)[NOTE] == "by the user"


def test_a_view_that_cannot_be_saved_costs_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with opened(tmp_path):
        pass
    monkeypatch.setitem(view.EXPERIMENT_TAGS, view.TAG, "another")
    monkeypatch.setattr(mlflow.MlflowClient, "set_experiment_tag", lambda *_: 1 / 0)
    with opened(tmp_path) as run:
        run.metrics({"loss": 1.0})
    assert [found.info.status for found in stored(tmp_path)] == ["FINISHED", "FINISHED"]


def test_make_ui_prints_the_link(project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.chdir(project.root)
    catching_up.run(Namespace(port=5003))
    assert "no run of mnist_5k yet" in capsys.readouterr().out
    mlflow.MlflowClient().create_experiment("other")
    number = mlflow.MlflowClient().create_experiment("mnist_5k")
    catching_up.run(Namespace(port=5003))
    printed = (
        f"http://127.0.0.1:5003/#/experiments/{number}/runs?workflowType=machine_learning&viewStateShareKey=compare"
    )
    assert capsys.readouterr().out.splitlines()[-1].endswith(f": {printed}")
    assert view.TAG in tags_of(mlflow.MlflowClient(), "mnist_5k")


def test_the_run_of_mlflow_run_is_described(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"  # as `mlflow run` exports it
    client = mlflow.MlflowClient(uri)
    started = {"mlflow.project.entryPoint": "train"}
    parent = client.create_run("0", tags=started, run_name="bold-hare-1").info.run_id
    client.log_param(parent, "model", "net")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_RUN_ID", parent)
    monkeypatch.chdir(tmp_path)
    catching_up.run(Namespace(port=None))
    assert "up to date" in client.get_run(parent).data.tags[NOTE]
    with opened(tmp_path):
        pass
    found = client.get_run(parent)
    assert found.info.run_name == "mlflow run train model=net"
    assert found.data.tags[KIND] == "project"
    assert view.link("1") in found.data.tags[NOTE]
    [run] = client.search_runs(["1"])
    assert run.data.tags["mlflow.parentRunId"] == parent
    assert str(run.info.artifact_uri).startswith((tmp_path / "mlartifacts").as_uri()), "the store is the default one"


@pytest.fixture
def experiment(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project whose parameters a DVC experiment has changed."""
    project.run("git", "init", "--quiet")
    for name in ("name", "email"):
        project.run("git", "config", f"user.{name}", "tester")
    project.commit("first")
    monkeypatch.setenv("DVC_EXP_BASELINE_REV", project.run("git", "rev-parse", "HEAD").stdout.strip())
    model = project.params()["models"]["model_2"]
    model["blocks"][1]["dropout"] = model["blocks"][2]["dropout"] = model["head"]["dropout"] = 0.5
    project.change(models={"model_2": model, "model_3": model}, fit={"learning_rate": 0.01})
    return project


def changes(project: Project, name: str) -> str:
    return baseline.changes(project.paths, name, config.load(project.paths).models[name])


def test_changes_of_an_experiment_are_those_since_its_baseline(
    experiment: Project, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
):
    assert changes(experiment, "model_1") == "learning rate 0.01"
    assert changes(experiment, "model_2") == "dropout 0.5, learning rate 0.01"
    assert changes(experiment, "model_3") == "", "the baseline has no such network"
    network = config.load(experiment.paths).models["model_2"]
    monkeypatch.setenv("DVC_ROOT", str(experiment.root))
    elsewhere = Paths(tmp_path_factory.mktemp("temporary"))
    assert baseline.changes(elsewhere, "model_2", network) == "dropout 0.5, learning rate 0.01"
    monkeypatch.setenv("DVC_EXP_BASELINE_REV", "0" * 40)
    assert changes(experiment, "model_2") == ""


def test_runs_are_named_after_the_change_and_described(experiment: Project):
    params = config.load(experiment.paths)
    here = Here(params.runtime)
    trainer = Trainer(params, experiment.paths, None, here, tracker(experiment.root))  # type: ignore[arg-type]
    network = params.models["model_2"]
    assert trainer.title("model_2", network) == "model_2 · dropout 0.5, learning rate 0.01"
    found = {kind: trainer.description(Job("model_2", trainer.spec(network, 43), kind=kind)) for kind in KINDS}
    assert {kind: description.tags[KIND] for kind, description in found.items()} == {kind: kind for kind in KINDS}
    assert found["network"].params == {
        "summary": "pooling max·max·max → flatten | dropout 0·0.5·0.5·0.5",
        "pooling": "max",
        "dropout": "0·0.5·0.5·0.5",
    }
    note = found["network"].tags[NOTE]
    assert note.startswith("pooling max·max·max → flatten | dropout 0·0.5·0.5·0.5\n")
    assert "Changed in the DVC experiment: dropout 0.5, learning rate 0.01." in note
    assert "`artifacts/train/model_2/record.json`" in note
    assert "`artifacts/replicates/model_2/43/record.json`" in found["replicate"].tags[NOTE]
    assert "Differences from model_2: none." in found["trial"].tags[NOTE]
