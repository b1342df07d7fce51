"""MLflow: real runs in a real store, and failures of either."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mlflow
import pytest

from pipeline import tracking
from pipeline.core import records
from pipeline.core.command import Stopwatch
from pipeline.core.dataset import DatasetInfo
from pipeline.core.paths import Paths
from pipeline.tracking import Tracker, processes

from .conftest import ROOT, Project

INFO = DatasetInfo("digits", (28, 28, 1), ("a", "b"), {"train": 1, "validation": 1, "test": 1}, "0" * 32)

pytestmark = pytest.mark.usefixtures("no_store")


def tracker(root: Path) -> Tracker:
    return Tracker(Paths(root), INFO, "train", Stopwatch(), {"device": "none"})


def opened(root: Path, name: str = "net", **options):
    return tracker(root).run(name, **options)


def stored(root: Path) -> list:
    """Every run of a project's default store, read with a client of its own."""
    client = mlflow.MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    return client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])


def test_run_keeps_what_is_logged(tmp_path: Path):
    with opened(tmp_path) as run:
        run.params({"fit.epochs": 3, "blocks.0.pooling.stride": None} | {f"many.{number}": 0 for number in range(150)})
        run.epoch(0, {"loss": 2.0})
        run.epoch(1, {"loss": 1.0})
        run.dataset(INFO, "training")
    [found] = stored(tmp_path)
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert (found.info.status, found.info.run_name) == ("FINISHED", "net")
    assert len(found.data.params) == 152
    assert found.data.params["blocks.0.pooling.stride"] == "None"
    history = client.get_metric_history(found.info.run_id, "loss")
    assert [(metric.step, metric.value) for metric in history] == [(1, 2.0), (2, 1.0)]
    [data] = found.inputs.dataset_inputs
    assert (data.dataset.name, data.dataset.digest) == ("digits", INFO.digest)
    assert client.get_experiment(found.info.experiment_id).name == "digits"


def test_artifacts_go_to_an_absolute_path_beside_the_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with Tracker(Paths(), INFO, "train", Stopwatch(), {}).run("net"):
        pass
    [found] = stored(tmp_path)
    assert found.info.artifact_uri.startswith((tmp_path / "mlartifacts" / "digits").as_uri())


def test_experiment_in_a_temporary_copy_is_logged_to_the_parent_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    parent, elsewhere = tmp_path / "parent", tmp_path / "elsewhere"
    parent.mkdir()
    elsewhere.mkdir()
    for name, value in {"ROOT": str(parent), "EXP_NAME": "shaky-hare", "STAGE": "train@net"}.items():
        monkeypatch.setenv(f"DVC_{name}", value)
    with opened(elsewhere):
        pass
    [found] = stored(parent)
    assert (found.data.tags["dvc.experiment"], found.data.tags["dvc.stage"]) == ("shaky-hare", "train@net")
    assert not list(elsewhere.iterdir())


def test_the_run_of_mlflow_run_becomes_the_parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLFLOW_RUN_ID", "a" * 32)
    with opened(tmp_path) as run:
        assert run.id != "a" * 32
    [found] = stored(tmp_path)
    assert found.data.tags["mlflow.parentRunId"] == "a" * 32


@pytest.mark.parametrize(
    ("error", "status"), [(ValueError, "FAILED"), (KeyboardInterrupt, "KILLED"), (SystemExit, "KILLED")]
)
def test_run_that_fails_is_marked(tmp_path: Path, error: type[BaseException], status: str):
    with pytest.raises(error), opened(tmp_path):
        raise error
    [found] = stored(tmp_path)
    assert found.info.status == status


RUNNING = """
import signal, sys, time
from pathlib import Path
from pipeline.core import command
from tests.test_tracking import opened

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell makes its background processes ignore it

def run(_):
    with opened(Path(sys.argv[1])) as run:
        print(run.id, flush=True)
        time.sleep(120)

arguments = command.parser(None)
arguments.add_argument("folder")
command.main(run, arguments)
"""


@contextmanager
def killed_at_the_end(process: subprocess.Popen) -> Iterator[None]:
    try:
        yield
    finally:
        process.kill()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_killed_process_leaves_no_run_running(tmp_path: Path, number: signal.Signals, code: int):
    assert stored(tmp_path) == []  # makes the tables
    process = subprocess.Popen(
        [sys.executable, "-c", RUNNING, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    with process.stdout, killed_at_the_end(process):
        run_id = process.stdout.readline().strip()
        [running] = stored(tmp_path)
        assert (running.info.run_id, running.info.status) == (run_id, "RUNNING")
        with opened(tmp_path, "other"):
            assert stored(tmp_path)[-1].info.status == "RUNNING", "a run of a living process is left alone"
        process.send_signal(number)
        assert process.wait(timeout=120) == code
    if number == signal.SIGKILL:
        assert tracking.catch_up(Paths(tmp_path)) == (1, 0)  # as the next run, and `make ui`, do
    statuses = {run.info.run_id: run.info.status for run in stored(tmp_path)}
    assert statuses[run_id] == "KILLED"


def test_interrupted_run_resumes_as_the_same_run(tmp_path: Path):
    with pytest.raises(KeyboardInterrupt), opened(tmp_path) as first:
        raise KeyboardInterrupt
    with opened(tmp_path, resume=first.id) as second:
        assert second.id == first.id
    [found] = stored(tmp_path)
    assert found.info.status == "FINISHED"
    with opened(tmp_path, resume="b" * 32) as third:
        assert third.id not in (first.id, "b" * 32)


def test_metrics_are_added_to_a_run_that_has_ended(tmp_path: Path):
    with opened(tmp_path) as run:
        pass
    ended = stored(tmp_path)[0].info.end_time
    with tracker(tmp_path).reopen("net", run.id) as again:
        again.metrics({"test_accuracy": 0.5})
    [found] = stored(tmp_path)
    assert found.data.metrics["test_accuracy"] == 0.5
    assert (found.info.status, found.info.end_time) == ("FINISHED", ended)


def test_metrics_of_a_run_in_another_store_go_to_a_new_run(tmp_path: Path, capsys):
    with tracker(tmp_path).reopen("net", "c" * 32) as run:
        run.metrics({"test_accuracy": 0.5})
    [found] = stored(tmp_path)
    assert found.data.tags["convpipe.trained_by"] == "c" * 32
    assert "net: the run that trained it is not in this MLflow store" in capsys.readouterr().out


def test_unreachable_server_is_reported_and_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # the port "discard": nothing listens
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with opened(tmp_path) as run:
        assert run.id is None
        run.params({"fit.epochs": 3})
        run.epoch(0, {"loss": 2.0})
        run.epoch(1, {"loss": 1.0})
    output = capsys.readouterr().err
    assert "not recorded in MLflow at http://127.0.0.1:9: " in output
    assert "`python -m pipeline.tracking`: parameters, metrics (2 times)" in output


def test_server_that_goes_away_costs_one_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with opened(tmp_path) as run:
        run.metrics({"loss": 2.0})
        mlflow.set_tracking_uri("http://127.0.0.1:9")
        run.metrics({"loss": 1.0})
        run.params({"a": 1})
        run.params({"b": 1})
    output = capsys.readouterr().err
    assert output.count("warning: MLflow: ") == 1
    assert "metrics, parameters (2 times)" in output
    [found] = stored(tmp_path)
    assert found.data.metrics["loss"] == 2.0


def test_one_failed_record_does_not_lose_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with opened(tmp_path) as run:
        run.file(tmp_path / "missing")
        run.metrics({"loss": 1.0})
    [found] = stored(tmp_path)
    assert (found.info.status, found.data.metrics["loss"]) == ("FINISHED", 1.0)
    assert "not recorded in MLflow" in capsys.readouterr().err


def test_two_first_writers_share_a_new_store(tmp_path: Path):
    code = (
        "import sys; from pathlib import Path; from tests.test_tracking import opened\n"
        "with opened(Path(sys.argv[1])): pass"
    )
    writers = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for writer in writers:
        _, output = writer.communicate(timeout=60)
        assert (writer.returncode, "not recorded" in output) == (0, False), output
    assert [run.info.status for run in stored(tmp_path)] == ["FINISHED", "FINISHED"]


def test_two_first_writers_share_a_new_experiment_of_a_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The file lock covers the default store alone: elsewhere, another stage may come between look-up and creation."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'server.db'}")
    look_up = mlflow.MlflowClient.get_experiment_by_name

    def another_comes_first(client: mlflow.MlflowClient, name: str):
        if found := look_up(client, name):
            return found
        client.create_experiment(name)
        return None

    monkeypatch.setattr(mlflow.MlflowClient, "get_experiment_by_name", another_comes_first)
    with opened(tmp_path) as run:
        assert run.failure is None


def test_training_finishes_with_the_server_down(copy_of_validated: Project):
    project = copy_of_validated
    project.change(fit={"epochs": 1})
    done = project.stage(
        "train", "model_1", MLFLOW_TRACKING_URI="http://127.0.0.1:9", MLFLOW_HTTP_REQUEST_MAX_RETRIES="0"
    )
    assert project.paths.model("model_1").is_file()
    record = records.load_training(project.paths, "model_1")
    assert (record.run_id, record.model_uri) == (None, None)
    assert "not recorded in MLflow at http://127.0.0.1:9" in done.stderr
    assert "the model" in done.stderr


def test_process_of_a_run_is_identified_by_more_than_its_number():
    assert processes.alive(processes.own())
    process = f"{processes.host()}:{os.getpid()}:{time.time() - 1e6:.2f}"
    assert not processes.alive(process), "the number was given to another process since"
