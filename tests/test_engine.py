"""Engines: the same results in this process, in several and on a cluster, whatever dies; and who may reach them."""

import asyncio
import logging
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dask.config
import psutil
import pytest
from distributed import Client, Security

from pipeline.core import machine
from pipeline.core.errors import ClusterError, ConfigError, TrainingError
from pipeline.core.sections import Runtime
from pipeline.engine import engine, placement
from pipeline.engine.engine import Engine, InProcess

from .conftest import ROOT, Project, write_records
from .tasks import Survivor
from .test_search import RULE

CPU = Runtime(device="cpu", precision="float32", threads=1, replicas=1)
TASKS = "tests.tasks"


def run(used: Engine, function: str, *arguments: Any, on_message: Callable[[Any], bool] = lambda _: True) -> list[Any]:
    """Run tasks side by side; the results in the order of the arguments."""

    async def one(argument: Any) -> Any:
        async with used.slot():
            return await used.run(f"{TASKS}:{function}", argument, on_message)

    async def everything() -> list[Any]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(argument)) for argument in arguments]
        return [task.result() for task in tasks]

    return engine.complete(everything())


@pytest.fixture(scope="module")
def light_processes() -> Iterator[None]:
    """Workers of this machine do not load TensorFlow."""
    with dask.config.set({"distributed.worker.preload": [TASKS]}):
        yield


@pytest.fixture(scope="module")
def local(light_processes: None) -> Iterator[Engine]:
    """Two processes of this machine."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv(placement.WORKERS, "2")
        environment.delenv(placement.SCHEDULER, raising=False)
        environment.setenv("PYTHONPATH", str(ROOT))
        with placement.start(CPU, fits=9) as used:
            used.share("the data")
            yield used


@pytest.fixture(params=["in process", "local"])
def used(request: pytest.FixtureRequest) -> Engine:
    if request.param == "local":
        return request.getfixturevalue("local")
    here = InProcess(CPU)
    here.share("the data")
    return here


def test_tasks_report_and_return(used: Engine):
    heard: list[Any] = []
    arguments = [{"name": name, "steps": 2} for name in "abc"]
    found = run(used, "steps", *arguments, on_message=lambda message: heard.append(message) or True)
    assert found == [(name, "the data") for name in "abc"]
    assert sorted(step for step, _ in heard) == [0, 0, 0, 1, 1, 1]
    assert (os.getpid() in {process for _, process in heard}) == isinstance(used, InProcess)
    if not isinstance(used, InProcess):  # TensorFlow may be running in this one
        assert used.device.kind == "cpu"


def test_a_task_that_is_stopped_has_no_result_and_frees_its_process(used: Engine):
    heard: list[Any] = []

    def until_second(message: Any) -> bool:
        heard.append(message)
        return message[0] < 1

    assert run(used, "steps", {"name": "a", "steps": 600, "seconds": 0.05}, on_message=until_second) == [None]
    assert [step for step, _ in heard] == [0, 1]
    assert run(used, "steps", *[{"name": name, "steps": 0} for name in "ab"]) == [("a", "the data"), ("b", "the data")]


def test_errors_of_a_task_are_those_of_the_caller(used: Engine):
    with pytest.raises(TrainingError, match="as asked"):
        run(used, "steps", {"name": "a", "steps": 1, "fails": True})


def test_a_task_whose_process_is_killed_is_repeated_once(local: Engine, tmp_path: Path):
    assert run(local, "deadly", tmp_path / "first") == [("alive", "the data")]
    with pytest.raises(TrainingError, match="its worker was killed 2 times"):
        run(local, "deadly", None)


def test_all_processes_may_die_at_once(local: Engine):
    pids = set()

    def kill_all(message: Any) -> bool:
        pids.add(message[1])
        if len(pids) == 2:
            for worker in [child for child in psutil.Process().children(recursive=True) if child.pid in pids]:
                worker.kill()
            pids.add(0)
        return True

    arguments = [{"name": name, "steps": 20, "seconds": 0.05} for name in "ab"]
    assert run(local, "steps", *arguments, on_message=kill_all) == [("a", "the data"), ("b", "the data")]


def test_processes_may_die_before_a_task_begins(local: Any, tmp_path_factory: pytest.TempPathFactory):
    local.share(Survivor(tmp_path_factory.mktemp("data")))
    assert run(local, "steps", {"name": "a", "steps": 0}) == [("a", "the data")]
    local.share("the data")
    assert local._repeated(local._submit(f"{TASKS}:survivor", tmp_path_factory.mktemp("device"))) == "the data"


def test_a_process_may_die_while_it_starts(light_processes: None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(placement.WORKERS, "2")
    monkeypatch.delenv(placement.SCHEDULER, raising=False)
    own, killed = psutil.Process(), []
    before = set(own.children())

    def kill_first() -> None:
        while not killed:
            for child in set(own.children()) - before:
                with suppress(psutil.Error):
                    if "spawn_main" in " ".join(child.cmdline()) and not killed:
                        child.kill()
                        killed.append(child)

    with ThreadPoolExecutor() as thread:
        watching = thread.submit(kill_first)
        with placement.start(CPU, fits=2) as used:
            watching.result()
            used.share("the data")
            assert run(used, "steps", {"name": "a", "steps": 0}) == [("a", "the data")]


def test_code_that_another_stage_has_replaced_is_refused(local: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(local, "shipped", "convpipe-code-0123.zip")
    with pytest.raises(ClusterError, match="another stage uses the same cluster with other code"):
        run(local, "steps", {"name": "a", "steps": 0})


def test_strangers_cannot_reach_the_local_cluster(local: Any):
    address = local._client.scheduler.address
    assert address.startswith("tls://127.0.0.1:")
    security = Security.temporary()  # certificates of its own
    for attempt in (security, Security()):
        with pytest.raises((OSError, TypeError, RuntimeError)):
            Client(address, timeout="2s", set_as_default=False, security=attempt)
    with pytest.raises(OSError, match=r"timed out|Timed out|expired|refused|Connection|during handshake"):
        Client(address.replace("tls://", "tcp://"), timeout="2s", set_as_default=False)
    join = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--no-nanny", "--death-timeout", "2"]
    assert subprocess.run(join, capture_output=True, cwd="/").returncode != 0
    own = {process.pid for process in [psutil.Process(), *psutil.Process().children(recursive=True)]}
    listening: list[Any] = [
        found for found in psutil.net_connections("inet") if found.pid in own and found.status == "LISTEN"
    ]
    assert listening
    assert {found.laddr.ip for found in listening} == {"127.0.0.1"}
    for found in listening:  # no page, no JSON
        with socket.create_connection(found.laddr, timeout=2) as peer:
            peer.sendall(b"GET /json/identity.json HTTP/1.0\r\n\r\n")
            with suppress(OSError):  # not even an answer
                assert b"200 OK" not in peer.recv(100)
    assert len(local._client.nthreads()) == 2


@pytest.mark.parametrize("value", ["two", "0", "²", "9" * 5000])
def test_invalid_numbers_of_workers_are_refused(value: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FIT_WORKERS", value)
    with pytest.raises(ConfigError, match=f"FIT_WORKERS: found {value[:9]}.*; allowed: a whole number from 1"):
        placement.workers(CPU, fits=4)


@pytest.mark.parametrize(
    ("changes", "cores", "gibibytes", "gpus", "count"),
    [
        ({}, 4, 64, None, 4),
        ({}, 1, 64, None, 1),
        ({}, 32, 64, None, 6),  # the number of fits
        ({}, 32, 5, None, 2),
        ({}, 32, 1, None, 1),
        ({"threads": 0}, 4, 64, None, 1),  # each fit uses all cores
        ({"device": "auto"}, 4, 64, "0,1", 2),
        ({"device": "gpu"}, 4, 64, "3", 1),
        ({"device": "auto"}, 4, 64, "", 4),
        ({}, 4, 64, "0,1", 4),  # not to be used
    ],
)
def test_the_default_is_one_process_per_gpu_or_core(
    changes: Any, cores: int, gibibytes: int, gpus: str | None, count: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("FIT_WORKERS", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if gpus is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda process: set(range(cores)), raising=False)
    monkeypatch.setattr(machine.psutil, "virtual_memory", lambda: SimpleNamespace(available=gibibytes * 2**30))
    assert placement.workers(CPU.model_copy(update=changes), fits=6) == count


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("nonsense://x", "unknown address scheme"),
        ("tcp://127.0.0.1:1", "Timed out|refused"),
        ("tls://127.0.0.1:1", "TLS"),
    ],
)
def test_a_cluster_that_cannot_be_reached_is_an_error(address: str, reason: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", address)
    with pytest.raises(ClusterError, match=f"DASK_SCHEDULER_ADDRESS: .*{address} cannot be reached: .*({reason})"):
        placement.start(CPU, 4).__enter__()


SMALL = {
    "models": {
        "model_1": {"blocks": [{"filters": [2]}], "head": {"dense": []}, "fit": {"epochs": 1}},
        "model_2": {"blocks": [{"filters": [4], "dropout": 0.1}], "head": {"dense": [8]}},
    },
    "evaluate": {"seeds": 2},
    "tune": {
        "trials": 6,
        "epochs": 4,
        "finalists": 2,
        "finalist_seeds": 2,
        "pruning": RULE.model_dump(),
        "space": {"blocks": {"dropout": [0.0, 0.1, 0.2], "filters": [[4], [6], [8]]}},
    },
}


def outputs(project: Project) -> dict[str, bytes]:
    """The files that must be the same wherever the fits ran."""
    folders = (project.paths.search, project.paths.replicates)
    files = [path for folder in folders for path in folder.rglob("*") if path.suffix in (".csv", ".keras", ".yaml")]
    return {str(path.relative_to(project.root)): path.read_bytes() for path in files}


@contextmanager
def cluster(folder: Path, workers: int = 3) -> Iterator[dict[str, str]]:
    """A scheduler and workers with TLS, each in an empty folder; yields the environment of its clients."""
    security = Security.temporary()
    ca = folder / "ca.pem"
    ca.write_text(str(security.tls_ca_file), encoding="utf-8")
    key = folder / "key.pem"
    key.write_text(str(security.tls_scheduler_key) + str(security.tls_scheduler_cert), encoding="utf-8")
    tls = {
        "DASK_DISTRIBUTED__COMM__TLS__CA_FILE": str(ca),
        **{f"DASK_DISTRIBUTED__COMM__TLS__{role}__CERT": str(key) for role in ("SCHEDULER", "WORKER", "CLIENT")},
        "DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION": "true",
        "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "1",
    }
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tls://127.0.0.1:{free.getsockname()[1]}"
    own = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH",)} | tls
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--no-dashboard", "--host", address]
    processes = []
    try:
        for number in range(workers + 1):
            empty = folder / f"process{number}"
            empty.mkdir()
            processes.append(psutil.Popen(command, cwd=empty, env=own, stderr=subprocess.DEVNULL))
            options = ["--nthreads", "1", "--no-dashboard", "--local-directory", str(empty), "--memory-limit", "0"]
            command = [sys.executable, "-m", "distributed.cli.dask_worker", address, *options]
        yield tls | {"DASK_SCHEDULER_ADDRESS": address}
    finally:
        for process in reversed(processes):
            process.terminate()
        _, alive = psutil.wait_procs(processes, timeout=20)
        for process in alive:  # a worker waits for a scheduler that has been killed
            process.kill()
            process.wait()


def test_a_scheduler_that_dies_is_one_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    logger = logging.getLogger("distributed.client")
    logger.addHandler(caplog.handler)  # it hands nothing on
    with cluster(tmp_path, workers=1) as environment:
        dask.config.refresh(env=environment)
        monkeypatch.setenv(placement.SCHEDULER, environment[placement.SCHEDULER])
        try:
            gone = pytest.raises(ClusterError, match="is gone; finished fits are kept")
            with gone, placement.start(CPU, 1) as started:
                used: Any = started
                for process in psutil.Process().children():
                    if "distributed.cli.dask_scheduler" in process.cmdline():
                        process.kill()
                while used._client.status != "closed":  # it tries to connect again
                    time.sleep(0.05)
                used.share("the data")
        finally:
            dask.config.refresh()
            logger.removeHandler(caplog.handler)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def searched(project: Project, *stages: str, **environment: Any) -> dict[str, bytes]:
    """Search and replicate; the outputs, and nothing left that another run could resume from."""
    for stage in stages or ("tune", "replicate"):
        project.stage(stage, **environment)
        shutil.rmtree(project.paths.resumable / stage, ignore_errors=True)
    return outputs(project)


def kill_within(project: Project, workers: int) -> None:
    """Start a search, kill one of its processes after the first trial, and the stage after the third."""
    command = [sys.executable, "-m", "pipeline.tune"]
    environment = project.environment(FIT_WORKERS=str(workers))

    def until(trials: int) -> None:
        while len(list(project.paths.resumable.glob("tune/*/trials/*.json"))) < trials:
            assert stage.poll() is None
            time.sleep(0.05)

    with psutil.Popen(command, cwd=project.root, env=environment, stdout=subprocess.DEVNULL) as stage:
        try:
            until(1)
            team = [child for child in stage.children(recursive=True) if child.memory_info().rss > 2**27]
            assert len(team) == workers
            team[0].kill()
            until(3)
            team = stage.children(recursive=True)
            stage.kill()
            _, alive = psutil.wait_procs(team, timeout=60)
            assert not alive
        finally:
            stage.kill()


@pytest.mark.pipeline
def test_the_result_is_the_same_in_one_process_on_a_cluster_and_after_kills(
    copy_of_validated: Project, tmp_path_factory: pytest.TempPathFactory
):
    project = copy_of_validated
    project.change(**SMALL)
    write_records(project)
    expected = searched(project, FIT_WORKERS="1")
    tables = {f"artifacts/tune/{name}" for name in ("trials.csv", "curves.csv", "finalists.csv", "best.yaml")}
    replicates = {f"artifacts/replicates/{name}/43/model.keras" for name in ("model_1", "model_2", "tuned")}
    assert set(expected) >= {*tables, *replicates, "artifacts/tune/tuned/model.keras"}
    kill_within(project, 2)
    assert searched(project, "tune", FIT_WORKERS="2") == expected
    with cluster(tmp_path_factory.mktemp("cluster"), workers=2) as environment:
        assert searched(project, **environment) == expected
