"""MLflow stores that are damaged, locked, out of date, hanging, moved or copied: no stage ends, and little is lost."""

import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import filelock
import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.artifacts import download_artifacts

from pipeline import tracking
from pipeline.core.paths import Paths
from pipeline.tracking import ModelToLog, journal, processes, store

from .conftest import ROOT, without_stores
from .test_tracking import INFO, opened, stored, tracker

pytestmark = pytest.mark.usefixtures("no_store")


@pytest.fixture(autouse=True)
def little_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "PATIENCE", 0.5)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a run, an artifact and a registered model; not to be changed."""
    root = tmp_path_factory.mktemp("original")
    network = root / "network.keras"
    network.write_bytes(b"a network")
    with pytest.MonkeyPatch.context() as environment:
        without_stores(environment)
        with opened(root) as run:
            run.table("layers", pd.DataFrame({"layer": ["dense"]}))
            run.model(ModelToLog("net", network, np.zeros((1, *INFO.image), np.uint8), INFO))
        client = mlflow.MlflowClient()
        client.create_registered_model("digits")
        assert run.model_uri
        client.create_model_version("digits", run.model_uri, run.id, model_id=run.model_uri.rpartition("/")[2])
    return root


@pytest.fixture
def copied(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "copy"))


def kept(root: Path) -> list[Path]:
    return sorted((root / ".cache" / "tracking").glob("*.jsonl"))


def forget_failures() -> None:
    """As a new process does."""
    store._failed.clear()


def files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


def test_a_copied_project_leaves_the_original_alone(original: Path, copied: Path, capsys: pytest.CaptureFixture[str]):
    before = files(original / "mlartifacts")
    with opened(copied) as run:
        run.table("layers", pd.DataFrame({"layer": ["conv"]}))
    assert files(original / "mlartifacts") == before
    assert (copied / "mlartifacts" / "digits" / str(run.id) / "artifacts" / "layers.json").is_file()
    assert "the project was moved or copied" in capsys.readouterr().out
    with opened(copied):
        pass
    assert "moved or copied" not in capsys.readouterr().out


def test_a_moved_project_finds_runs_and_models(copied: Path):
    moved = copied.rename(copied.with_name("it's moved to 100%"))
    tracking.catch_up(Paths(moved))
    client = mlflow.MlflowClient()
    [run] = client.search_runs(["1"])
    assert client.list_artifacts(run.info.run_id)
    downloaded = Path(download_artifacts("models:/digits/1"))
    assert (downloaded / "MLmodel").is_file()
    with sqlite3.connect(moved / "mlflow.db") as database:
        dump = "\n".join(database.iterdump())
    assert f"{copied.parent.as_uri()}/copy/" not in dump
    assert "mlartifacts" in dump


def test_locations_outside_of_the_project_stay(copied: Path):
    elsewhere = "s3://bucket/mlartifacts/other"
    mlflow.MlflowClient(f"sqlite:///{copied}/mlflow.db").create_experiment("other", elsewhere)
    tracking.catch_up(Paths(copied))
    found = mlflow.MlflowClient().get_experiment_by_name("other")
    assert found
    assert found.artifact_location == elsewhere


def damaged(root: Path) -> None:
    (root / "mlflow.db").write_bytes(b"no database" * 1000)


def out_of_date(root: Path) -> None:
    with sqlite3.connect(root / "mlflow.db") as database:
        database.execute("UPDATE alembic_version SET version_num = 'c48cb773bb87'")


@pytest.mark.parametrize(
    ("damage", "reason"), [(damaged, "file is not a database"), (out_of_date, "mlflow db upgrade")]
)
def test_a_store_that_fails_ends_nothing_and_gets_everything_later(
    copied: Path, damage, reason: str, capsys: pytest.CaptureFixture[str]
):
    shutil.copyfile(copied / "mlflow.db", copied / "backup")
    damage(copied)
    began = time.monotonic()
    with opened(copied, "first") as run:
        run.params({"fit.epochs": 3})
        run.epoch(0, {"loss": float("nan")})
        run.tags({"digest": "d"})
        run.table("layers", pd.DataFrame({"layer": ["dense"]}))
    with pytest.raises(KeyboardInterrupt), opened(copied, "second"):
        raise KeyboardInterrupt
    assert time.monotonic() - began < 20
    assert run.id is None
    output = capsys.readouterr().err
    assert reason in output
    assert "`python -m pipeline.tracking`: parameters, metrics, tags\n  lost: layers\n" in output
    assert len(kept(copied)) == 2
    shutil.copyfile(copied / "backup", copied / "mlflow.db")
    forget_failures()
    assert tracking.catch_up(Paths(copied)) == (0, 2)
    found = {run.info.run_name: run for run in stored(copied)}
    assert (found["first"].info.status, found["second"].info.status) == ("FINISHED", "KILLED")
    assert found["first"].data.params == {"fit.epochs": "3"}
    assert np.isnan(found["first"].data.metrics["loss"])
    assert found["first"].data.tags["digest"] == "d"
    assert tracking.catch_up(Paths(copied)) == (0, 0)


def test_metrics_for_a_run_that_ended_are_added_to_it_later(copied: Path):
    [run] = stored(copied)
    shutil.copyfile(copied / "mlflow.db", copied / "backup")
    damaged(copied)
    with tracker(copied).reopen("net", run.info.run_id) as again:
        again.metrics({"test_accuracy": 0.5})
    shutil.copyfile(copied / "backup", copied / "mlflow.db")
    forget_failures()
    assert tracking.catch_up(Paths(copied)) == (0, 1)
    [found] = stored(copied)
    assert (found.data.metrics["test_accuracy"], found.info.end_time) == (0.5, run.info.end_time)


def test_an_interrupted_sending_creates_no_second_run(copied: Path, monkeypatch: pytest.MonkeyPatch):
    described = journal.Described("digits", "net", {})
    note = journal.Journal(Paths(copied), described, None)
    assert note.keep({"metrics": [("loss", 1.0, 0, 1)]})
    note.end("FINISHED")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(journal, "log", interrupted)
        with pytest.raises(KeyboardInterrupt):
            tracking.catch_up(Paths(copied))
    assert tracking.catch_up(Paths(copied)) == (0, 1)
    assert len(stored(copied)) == 2


def test_what_a_live_process_keeps_is_sent_after_its_end(copied: Path, monkeypatch: pytest.MonkeyPatch):
    note = journal.Journal(Paths(copied), journal.Described("digits", "net", {}), None)
    note.keep({"metrics": [("loss", 1.0, 0, 1)]})
    assert tracking.catch_up(Paths(copied)) == (0, 0)
    with kept(copied)[0].open("a") as file:
        file.write('{"metrics": [["loss", 2')  # killed while it wrote
    monkeypatch.setattr(processes, "alive", lambda process: False)
    assert tracking.catch_up(Paths(copied)) == (0, 1)
    assert {run.info.status for run in stored(copied)} == {"FINISHED", "KILLED"}


def test_what_is_kept_for_another_store_waits_for_it(copied: Path, monkeypatch: pytest.MonkeyPatch):
    with monkeypatch.context() as server:
        server.setenv("MLFLOW_TRACKING_URI", "http://someone:secret@127.0.0.1:9")
        server.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        with opened(copied) as run:
            run.metrics({"loss": 1.0})
    assert tracking.catch_up(Paths(copied)) == (0, 0)
    [file] = kept(copied)
    assert "secret" not in file.read_text()


def test_a_lock_that_another_process_holds_is_waited_for_a_short_time(copied: Path, capsys: pytest.CaptureFixture[str]):
    with filelock.FileLock(copied / "mlflow.db.lock"), opened(copied) as run:
        run.metrics({"loss": 1.0})
    output = capsys.readouterr().err
    assert "mlflow.db.lock: held by another process for more than" in output
    assert kept(copied)


def test_a_database_that_another_program_locks_costs_one_wait(copied: Path, monkeypatch: pytest.MonkeyPatch):
    other = sqlite3.connect(copied / "mlflow.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    began = time.monotonic()
    for _ in range(3):
        with opened(copied) as run:
            run.metrics({"loss": 1.0})
    assert time.monotonic() - began < 5
    other.close()
    forget_failures()
    assert tracking.catch_up(Paths(copied)) == (0, 3)


@pytest.fixture
def hanging() -> Iterator[tuple[str, list[socket.socket]]]:
    """A server that accepts connections and never answers; its URI, and the connections so far."""
    connections: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            while True:
                try:
                    connections.append(server.accept()[0])
                except OSError:
                    return

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield f"http://someone:secret@127.0.0.1:{server.getsockname()[1]}", connections
        server.shutdown(socket.SHUT_RDWR)
        thread.join(timeout=10)
    for connection in connections:
        connection.close()


def test_a_hanging_server_costs_one_time_out_and_names_no_password(
    tmp_path: Path, hanging, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    uri, connections = hanging
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    for _ in range(3):
        with opened(tmp_path) as run:
            run.metrics({"loss": 1.0})
            run.file(tmp_path)
    with tracker(tmp_path).reopen("net", "c" * 32) as run:
        run.metrics({"loss": 1.0})
    assert len(connections) == 1
    output = "".join(capsys.readouterr())
    assert output.count("not recorded in MLflow at http://***@127.0.0.1") == 4
    assert "secret" not in output
    assert len(kept(tmp_path)) == 4


class Finished(BaseHTTPRequestHandler):
    """A server whose answer to every request is a run that has ended."""

    def do_GET(self) -> None:
        info = {"run_id": "c" * 32, "run_name": "net", "experiment_id": "1", "status": "FINISHED"}
        answer = json.dumps({"run": {"info": info, "data": {}}, "run_info": info}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_POST = do_GET  # noqa: N815


def test_the_end_of_a_run_prints_no_password():
    code = (
        "import sys; from pipeline.tracking import journal, runs\n"
        "journal.log(runs.mlflow.MlflowClient(sys.argv[1]), 'c' * 32, {'end': 'FINISHED', 'time': 1})"
    )
    with HTTPServer(("127.0.0.1", 0), Finished) as server:
        threading.Thread(target=server.serve_forever).start()
        command = [sys.executable, "-c", code, f"http://someone:secret@127.0.0.1:{server.server_port}"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        server.shutdown()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_user_without_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda number: {}[number])
    assert tracker(tmp_path)._tags(None)["mlflow.user"] == str(os.getuid())


@pytest.mark.parametrize("name", ["100%20 really?", 'it\'s "quoted" #1 é'])
def test_any_folder_name_will_do(original: Path, tmp_path: Path, name: str):
    """In a process of its own, whose working directory is the project's folder, as in a stage."""
    root = Path(shutil.copytree(original, tmp_path / name))
    code = (
        "from pathlib import Path; import pandas; from tests.test_tracking import opened\n"
        "with opened(Path()) as run: run.table('layers', pandas.DataFrame({'layer': ['dense']}))\n"
        "print(run.id)"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, env=environment, capture_output=True, text=True, check=True
    )
    assert "warning" not in done.stderr
    run_id = done.stdout.split()[-1]
    assert (root / "mlartifacts" / "digits" / run_id / "artifacts" / "layers.json").is_file()
    with sqlite3.connect(root / "mlflow.db") as database:
        assert database.execute("SELECT status FROM runs WHERE run_uuid = ?", [run_id]).fetchall() == [("FINISHED",)]
    assert [path.name for path in tmp_path.iterdir()] == [name], "nothing beside the project"


def test_a_step_of_the_clock_does_not_end_a_run(monkeypatch: pytest.MonkeyPatch):
    mine = processes.own()
    monkeypatch.setattr("psutil.Process.create_time", lambda process: time.time())
    assert processes.alive(mine)
    assert processes.own() == mine


def test_without_proc_processes_are_identified_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(processes, "PROC", tmp_path)
    assert processes.alive(processes.own())
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert not processes.alive(f"{processes.host()}:{ended.pid}:1.00")


def test_a_process_of_before_a_restart_of_the_machine_is_dead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    boot, stat = tmp_path / "sys/kernel/random/boot_id", tmp_path / str(os.getpid()) / "stat"
    for path, text in ((boot, "first"), (stat, Path("/proc/self/stat").read_text())):
        path.parent.mkdir(parents=True)
        path.write_text(text)
    monkeypatch.setattr(processes, "PROC", tmp_path)
    mine = processes.own()
    assert processes.alive(mine)
    boot.write_text("second")
    assert not processes.alive(mine)


def test_a_killed_process_that_its_parent_has_not_waited_for_is_dead():
    with subprocess.Popen(["sleep", "600"]) as child:
        identity = f"{processes.host()}:{child.pid}:{processes._start(child.pid)}"
        assert processes.alive(identity)
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert not processes.alive(identity)


def test_the_default_store_is_not_handed_to_subprocesses_as_a_choice(copied: Path):
    """Else a second connection of the same process would neither lock it nor say where its artifacts go."""
    for _ in range(2):
        with store.connect(Paths(copied)) as artifacts:
            assert artifacts == (copied / "mlartifacts").as_uri()
    assert "MLFLOW_TRACKING_URI" not in os.environ


def test_what_the_store_refuses_is_set_aside(copied: Path, capsys: pytest.CaptureFixture[str]):
    note = journal.Journal(Paths(copied), journal.Described("digits", "net", {}), None)
    note.keep({"params": [("a", "1"), ("a", "2")]})
    note.end("FINISHED")
    assert tracking.catch_up(Paths(copied)) == (0, 0)
    assert "MLflow refuses what was kept for it" in capsys.readouterr().out
    assert not kept(copied)
    assert json.loads(next((copied / ".cache" / "tracking").glob("*.refused")).read_text().splitlines()[0])
