"""Searches in several processes: the same result, even if workers are killed."""

import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from pipeline.core import config
from pipeline.core.config import Params, Tune
from pipeline.core.errors import ConfigError, TrainingError
from pipeline.tune import oracle_server, workers
from pipeline.tune.oracles import Oracle, make_oracle
from pipeline.tune.payload import finish
from pipeline.tune.search import run_trials, settled_trials
from pipeline.tune.trial import Outcome

from .conftest import Project
from .test_search import RULE, loss, searched

ADDRESS = "127.0.0.1:7000"


@pytest.fixture
def params(project: Project) -> Params:
    project.change(tune={"trials": 6, "epochs": 9, "pruning": RULE.model_dump()})
    return config.load(project.paths)


@pytest.fixture
def base(params: Params) -> dict[str, Any]:
    return params.base.model_dump(mode="json")


@pytest.fixture
def oracle(params: Params, base: dict[str, Any], tmp_path: Path) -> Oracle:
    return make_oracle(params.search, base, 7, tmp_path / "oracle")


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


@pytest.mark.parametrize(("tuner", "way"), [("random", "socket"), ("grid", "socket"), ("random", "TCP")])
def test_workers_over_the_network_give_the_same_search(
    params: Params, base: dict[str, Any], tuner: Any, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in ("TUNER_ID", "ORACLE_IP", "ORACLE_PORT"):
        monkeypatch.setenv(f"KERASTUNER_{name}", "")  # set by connect, and restored after the test
    space = {"fit": {"learning_rate": {"min": 1e-4, "max": 1e-2, "log": True}}, "blocks": params.search.space["blocks"]}
    tune: Tune = params.search.model_copy(update={"tuner": tuner, "space": space})
    oracle = make_oracle(tune, base, 7, tmp_path / "shared")
    listen = f"127.0.0.1:{free_port()}" if way == "TCP" else None
    with oracle_server.serve(oracle, listen) as own:
        address = listen or own
        clients = {name: oracle_server.connect(address, name) for name in ("one", "other")}
        threads = [threading.Thread(target=run_trials, args=(c, name, tune, loss)) for name, c in clients.items()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert settled_trials(oracle) == searched(tune, base, 7, tmp_path / "alone", loss)


def test_a_worker_without_heartbeat_loses_only_its_trial(
    params: Params, base: dict[str, Any], oracle: Oracle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    late = oracle.create_trial("far away")
    run_trials(oracle, "near", params.search, loss)
    monkeypatch.setattr(workers, "SILENCE", 0.0)
    workers.monitor(oracle, [], ADDRESS)
    trials = settled_trials(oracle)
    assert [trial.status == "FAILED" for trial in trials] == [True, *[False] * 5]
    assert trials[0].error == "no heartbeat from its worker far away"
    from_far = make_oracle(params.search, base, 7, tmp_path / "other").create_trial("far away")
    finish(from_far, Outcome("COMPLETED", {}, []))
    oracle.end_trial(from_far)  # the worker was alive after all
    assert late.trial_id == from_far.trial_id
    assert settled_trials(oracle) == trials


class Mortal:
    """A worker that is killed a given number of times, then runs all trials."""

    def __init__(self, oracle: Oracle, tune: Tune, status: int, deaths: int) -> None:
        self.name = "worker0"
        self.process = self
        self._oracle, self._tune, self._status, self._deaths = oracle, tune, status, deaths
        self.start()
        self.send(ADDRESS)

    def start(self) -> None:
        self._deaths -= 1

    def send(self, address: str) -> None:
        if self._deaths < 0:
            run_trials(self._oracle, self.name, self._tune, loss)
        else:
            self._oracle.create_trial(self.name)

    def poll(self) -> int | None:
        return self._status if self._deaths >= 0 else None


@pytest.mark.parametrize(("status", "deaths", "failed"), [(-9, 1, []), (143, 1, []), (-9, 2, [0]), (-9, 4, [0, 1])])
def test_the_trial_of_a_killed_worker_is_repeated_once(
    params: Params, base: dict[str, Any], oracle: Oracle, status: int, deaths: int, failed: list[int]
):
    workers.monitor(oracle, [Mortal(oracle, params.search, status, deaths)], ADDRESS)
    trials = settled_trials(oracle)
    assert [trial.number for trial in trials if trial.status == "FAILED"] == failed
    assert all("killed 2 times, by signal 9" in str(trials[number].error) for number in failed)
    if not failed:
        assert trials == searched(params.search, base, 7, oracle.folder.parent / "alone", loss)


def test_an_error_in_a_worker_ends_the_search(params: Params, oracle: Oracle):
    with pytest.raises(TrainingError, match="worker0 exited with status 1"):
        workers.monitor(oracle, [Mortal(oracle, params.search, 1, 1)], ADDRESS)


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("TUNE_WORKERS", "two", "TUNE_WORKERS: found two; allowed: a whole number from 1"),
        ("TUNE_WORKERS", "0", "TUNE_WORKERS: found 0"),
        ("TUNE_WORKERS", "²", "TUNE_WORKERS: found ²"),
        ("TUNE_WORKERS", "9" * 5000, "TUNE_WORKERS: found 9"),
        ("TUNE_LISTEN", "7000", "TUNE_LISTEN: found 7000; allowed: HOST:PORT"),
        ("TUNE_LISTEN", "127.0.0.1:99999", "TUNE_LISTEN: found 127.0.0.1:99999; allowed: HOST:PORT.* up to 65535"),
        ("TUNE_LISTEN", "127.0.0.1:0", "TUNE_LISTEN: found 127.0.0.1:0;"),
        ("TUNE_LISTEN", "no-such-host.invalid:7000", "TUNE_LISTEN: the host no-such-host.invalid is unknown"),
        ("TUNE_LISTEN", f"{'a' * 300}..:7000", "TUNE_LISTEN: the host a+.. is unknown"),
        ("TUNE_LISTEN", "192.0.2.1:7000", "TUNE_LISTEN: cannot listen at 192.0.2.1:7000: Cannot assign .* address;"),
    ],
)
def test_invalid_settings_are_refused(
    params: Params, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, message: str
):
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError, match=message):
        workers.settings(params)


def test_settings_are_read_from_the_environment(params: Params, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TUNE_WORKERS", "1")
    assert workers.settings(params).alone
    address = f"127.0.0.1:{free_port()}"
    monkeypatch.setenv("TUNE_LISTEN", address)
    assert workers.settings(params) == workers.Settings(1, address)
    assert not workers.settings(params).alone


@pytest.mark.parametrize(
    ("changes", "cores", "gibibytes", "count"),
    [
        ({}, 4, 64, 4),
        ({}, 1, 64, 1),
        ({}, 32, 64, 6),  # the number of trials
        ({}, 32, 5, 2),
        ({}, 32, 1, 1),
        ({"tune": {"tuner": "grid"}}, 4, 64, 4),
        ({"tune": {"tuner": "bayesian"}}, 4, 64, 1),  # its choices depend on finished trials
        ({"tune": {"tuner": "hyperband"}}, 4, 64, 1),
        ({"runtime": {"threads": 0}}, 4, 64, 1),  # each worker would use all cores
    ],
)
def test_the_default_is_one_worker_per_core(
    project: Project, monkeypatch: pytest.MonkeyPatch, changes: Any, cores: int, gibibytes: int, count: int
):
    project.change(tune={"trials": 6}, runtime={"device": "cpu"})
    project.change(**changes)
    monkeypatch.delenv("TUNE_WORKERS", raising=False)
    monkeypatch.setattr(workers.os, "sched_getaffinity", lambda process: set(range(cores)), raising=False)
    monkeypatch.setattr(workers.psutil, "virtual_memory", lambda: SimpleNamespace(available=gibibytes * 2**30))
    assert workers.settings(config.load(project.paths)).count == count


def test_a_port_in_use_is_refused(params: Params, oracle: Oracle, monkeypatch: pytest.MonkeyPatch):
    address = f"127.0.0.1:{free_port()}"
    with oracle_server.serve(oracle, address):
        monkeypatch.setenv("TUNE_LISTEN", address)
        with pytest.raises(ConfigError, match=f"cannot listen at {address}: Address already in use; allowed: another"):
            workers.settings(params)
        # Taken since then:
        with pytest.raises(ConfigError, match=f"{address} is not free"), oracle_server.serve(oracle, address):
            pass


def test_other_users_cannot_reach_the_search(oracle: Oracle):
    before = {connection.laddr for connection in psutil.Process().net_connections("inet")}
    with oracle_server.serve(oracle) as address:
        path = Path(address.removeprefix("unix:"))
        assert path.is_socket()
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert {connection.laddr for connection in psutil.Process().net_connections("inet")} == before
    assert not path.parent.exists()


def test_a_temporary_folder_whose_path_is_too_long_for_a_socket_is_refused(
    oracle: Oracle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    with pytest.raises(ConfigError, match="TMPDIR: cannot listen in"), oracle_server.serve(oracle):
        pass


@contextmanager
def searching(project: Project, count: int) -> Iterator[psutil.Popen]:
    """The running stage with a number of workers, once it has finished a trial."""
    command = [sys.executable, "-m", "pipeline.tune"]
    environment = project.environment(TUNE_WORKERS=str(count))
    with psutil.Popen(command, cwd=project.root, env=environment, stdout=subprocess.DEVNULL) as process:
        try:
            while not list(project.paths.resumable.glob("tune/*/trials/*.json")):
                assert process.poll() is None
                time.sleep(0.05)
            yield process
        finally:
            process.kill()


def team_of(stage: psutil.Process) -> list[psutil.Process]:
    team = []
    for child in stage.children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # just killed
            if "pipeline.tune.workers" in child.cmdline():
                team.append(child)
    return team


@pytest.mark.pipeline
def test_killed_workers_and_a_killed_stage_do_not_change_the_result(copy_of_validated: Project, tmp_path: Path):
    project = copy_of_validated
    project.change(
        models={"tiny": {"blocks": [{"filters": [4], "dropout": 0.1}], "head": {"dense": [8]}}},
        tune={
            "base": "tiny",
            "trials": 6,
            "epochs": 4,
            "finalists": 2,
            "finalist_seeds": 2,
            "pruning": RULE.model_dump(),
            "space": {"blocks": {"dropout": [0.0, 0.1, 0.2], "filters": [[4], [6], [8]]}},
        },
    )
    with searching(project, 2) as stage:
        left, right = team_of(stage)
        left.kill()
        while right in team_of(stage) and len(list(project.paths.resumable.glob("tune/*/trials/*.json"))) < 3:
            assert stage.poll() is None
            time.sleep(0.05)
        team = team_of(stage)
        stage.kill()
        psutil.wait_procs(team, timeout=60)
        assert not [worker for worker in team if worker.is_running()]
    project.stage("tune", TUNE_WORKERS="2")
    found = {path.name: path.read_bytes() for path in project.paths.search.glob("*.csv")}
    project.stage("tune", TUNE_WORKERS="1")
    assert found == {path.name: path.read_bytes() for path in project.paths.search.glob("*.csv")}
    assert {"trials.csv", "curves.csv", "finalists.csv"} <= set(found)
