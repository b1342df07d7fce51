"""Trials in several processes: the same search, whatever becomes of the workers."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from keras_tuner.src.distribute.oracle_client import OracleClient

from pipeline import config, search, workers
from pipeline.config import Params, Tune
from pipeline.errors import ConfigError, TrainingError

from .conftest import Project
from .test_search import RULE, loss

ALL = workers.Settings(2, "127.0.0.1", 0)
ADDRESS = "127.0.0.1:7000"


@pytest.fixture
def params(project: Project) -> Params:
    project.change(tune={"trials": 6, "epochs": 9, "pruning": RULE.model_dump()})
    return config.load(project.paths)


@pytest.fixture
def base(params: Params) -> dict[str, Any]:
    return params.base.model_dump(mode="json")


def client(monkeypatch: pytest.MonkeyPatch, address: str, name: str, asked: Any) -> OracleClient:
    host, port = address.split(":")
    for key, value in {"TUNER_ID": name, "ORACLE_IP": host, "ORACLE_PORT": port}.items():
        monkeypatch.setenv(f"KERASTUNER_{key}", value)
    return OracleClient(asked)


@pytest.mark.parametrize("tuner", ["random", "grid"])
def test_workers_over_the_network_come_to_the_same_search(
    params: Params, base: dict[str, Any], tuner: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    space = {"fit": {"learning_rate": {"min": 1e-4, "max": 1e-2, "log": True}}, "blocks": params.tune.space["blocks"]}
    tune: Tune = params.tune.model_copy(update={"tuner": tuner, "space": space})
    alone = search.search(tune, base, 7, tmp_path / "alone", loss)
    asked = search.oracle(tune, base, 7, tmp_path / "shared")
    with workers._served(asked, ALL) as address:
        clients = {name: client(monkeypatch, address, name, asked) for name in ("one", "other")}
        threads = [threading.Thread(target=search.work, args=(c, name, tune, loss)) for name, c in clients.items()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [replace(trial, note=None) for trial in search.trials(asked)] == alone


def test_a_silent_worker_costs_its_trial_only(
    params: Params, base: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    tune = params.tune
    asked = search.oracle(tune, base, 7, tmp_path)
    late = asked.create_trial("far away")
    search.work(asked, "near", tune, loss)
    monkeypatch.setattr(workers, "SILENCE", 0.0)
    workers._attend(asked, [], ADDRESS)
    trials = search.trials(asked)
    assert [trial.status == "FAILED" for trial in trials] == [True, *[False] * 5]
    assert trials[0].error == "its worker far away fell silent"
    from_far = search.oracle(tune, base, 7, tmp_path / "other").create_trial("far away")
    from_far.hyperparameters.values[search.OUTCOME] = '{"status": "COMPLETED", "figures": {}, "curve": []}'
    asked.end_trial(from_far)  # it was alive after all
    assert late.trial_id == from_far.trial_id
    assert search.trials(asked) == trials


class Mortal:
    """A worker that is killed as often as it is told to be, then runs all trials."""

    def __init__(self, asked: Any, tune: Tune, status: int, deaths: int) -> None:
        self.name = "worker0"
        self.process = self
        self._asked, self._tune, self._status, self._deaths = asked, tune, status, deaths
        self.start()
        self.send(ADDRESS)

    def start(self) -> None:
        self._deaths -= 1

    def send(self, address: str) -> None:
        if self._deaths < 0:
            search.work(self._asked, self.name, self._tune, loss)
        else:
            self._asked.create_trial(self.name)

    def poll(self) -> int | None:
        return self._status if self._deaths >= 0 else None


@pytest.mark.parametrize(("status", "deaths", "failed"), [(-9, 1, []), (143, 1, []), (-9, 2, [0]), (-9, 4, [0, 1])])
def test_a_trial_whose_worker_was_killed_is_run_again_once(
    params: Params, base: dict[str, Any], tmp_path: Path, status: int, deaths: int, failed: list[int]
):
    asked = search.oracle(params.tune, base, 7, tmp_path)
    team: Any = [Mortal(asked, params.tune, status, deaths)]
    workers._attend(asked, team, ADDRESS)
    trials = search.trials(asked)
    assert [trial.number for trial in trials if trial.status == "FAILED"] == failed
    assert all("killed 2 times, by signal 9" in str(trials[number].error) for number in failed)
    if not failed:
        assert [replace(t, note=None) for t in trials] == search.search(params.tune, base, 7, tmp_path / "alone", loss)


def test_an_error_of_the_worker_itself_ends_the_search(params: Params, base: dict[str, Any], tmp_path: Path):
    asked = search.oracle(params.tune, base, 7, tmp_path)
    team: Any = [Mortal(asked, params.tune, 1, 1)]
    with pytest.raises(TrainingError, match="worker0 ended with status 1"):
        workers._attend(asked, team, ADDRESS)


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("TUNE_WORKERS", "two", "TUNE_WORKERS: found two; allowed: a whole number from 1"),
        ("TUNE_WORKERS", "0", "TUNE_WORKERS: found 0"),
        ("TUNE_LISTEN", "7000", "TUNE_LISTEN: found 7000; allowed: HOST:PORT"),
    ],
)
def test_settings_that_cannot_be_read_are_refused(
    params: Params, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, message: str
):
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError, match=message):
        workers.settings(params)


def test_settings_say_how_many_processes_and_where_others_may_come_from(
    params: Params, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("TUNE_WORKERS", "1")
    assert workers.settings(params).alone
    monkeypatch.setenv("TUNE_LISTEN", "0.0.0.0:7000")
    assert workers.settings(params) == workers.Settings(1, "0.0.0.0", 7000)
    assert not workers.settings(params).alone


@pytest.mark.parametrize(
    ("tune", "runtime", "cores", "gibibytes", "count"),
    [
        ({}, {}, 4, 64, 4),
        ({}, {}, 1, 64, 1),
        ({}, {}, 32, 64, 6),  # as many as there are trials
        ({}, {}, 32, 5, 2),
        ({}, {}, 32, 1, 1),
        ({"tuner": "grid"}, {}, 4, 64, 4),
        ({"tuner": "bayesian"}, {}, 4, 64, 1),  # what it tries next follows from what has ended
        ({"tuner": "hyperband"}, {}, 4, 64, 1),
        ({}, {"threads": 0}, 4, 64, 1),  # each would take all cores
    ],
)
def test_by_default_there_is_a_worker_for_each_core(
    params: Params, monkeypatch: pytest.MonkeyPatch, tune: Any, runtime: Any, cores: int, gibibytes: int, count: int
):
    monkeypatch.delenv("TUNE_WORKERS", raising=False)
    monkeypatch.setattr(workers.os, "sched_getaffinity", lambda process: set(range(cores)), raising=False)
    monkeypatch.setattr(workers.psutil, "virtual_memory", lambda: SimpleNamespace(available=gibibytes * 2**30))
    changed = {
        "tune": params.tune.model_copy(update=tune),
        "runtime": params.runtime.model_copy(update={"device": "cpu"} | runtime),
    }
    assert workers.settings(params.model_copy(update=changed)).count == count


def test_a_port_that_is_taken_is_said(params: Params, base: dict[str, Any], tmp_path: Path):
    asked = search.oracle(params.tune, base, 7, tmp_path)
    with workers._served(asked, ALL) as address:
        port = int(address.split(":")[1])
        with (
            pytest.raises(ConfigError, match=f"127.0.0.1:{port} is not free"),
            workers._served(asked, replace(ALL, port=port)),
        ):
            pass


@contextmanager
def searching(project: Project, count: int) -> Iterator[psutil.Popen]:
    """The stage at work with so many workers, once it has finished a trial."""
    command = [sys.executable, "-m", "pipeline.tune"]
    environment = project.environment(TUNE_WORKERS=str(count))
    with psutil.Popen(command, cwd=project.root, env=environment, stdout=subprocess.DEVNULL) as process:
        try:
            while not list(project.paths.unfinished.glob("tune/*/trials/*.json")):
                assert process.poll() is None
                time.sleep(0.05)
            yield process
        finally:
            process.kill()


def team_of(stage: psutil.Process) -> list[psutil.Process]:
    team = []
    for child in stage.children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # it has just been killed
            if "pipeline.workers" in child.cmdline():
                team.append(child)
    return team


@pytest.mark.pipeline
def test_killed_workers_and_a_killed_stage_change_nothing(copy_of_validated: Project, tmp_path: Path):
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
        while right in team_of(stage) and len(list(project.paths.unfinished.glob("tune/*/trials/*.json"))) < 3:
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
