"""One process for each stage, which ends when DVC dies. The stage here is one that only waits."""

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from .conftest import Project

WAITING = """
import os, time
from pathlib import Path
from pipeline.core import command

def run(_):
    Path("number").write_text(str(os.getpid()))
    Path("number").rename("started")
    try:
        time.sleep(60)
    except SystemExit:
        Path("closed").touch()
        raise

command.main(run, command.parser(None))
"""
# As DVC starts a stage: in a shell, and waiting for its end.
STARTER = "import subprocess, sys; subprocess.run(['bash', '-c', sys.argv[1]])"


@pytest.fixture
def waiting(project: Project) -> Iterator[Project]:
    """A project with a stage `waiting`, which is killed at the end."""
    folder = project.root / "pipeline" / "waiting"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "__main__.py").write_text(WAITING)
    yield project
    started = project.root / "started"
    if started.exists() and psutil.pid_exists(number := int(started.read_text())):
        os.kill(number, signal.SIGKILL)


def eventually(condition: Callable[[], bool], seconds: float = 60) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()


def started(project: Project, shell: str, **environment: str) -> tuple[subprocess.Popen, int]:
    """The process that stands for DVC, and the number of the stage that it started."""
    starter = subprocess.Popen(
        [sys.executable, "-c", STARTER, shell], cwd=project.root, env=project.environment(**environment)
    )
    assert eventually((project.root / "started").exists)
    return starter, int((project.root / "started").read_text())


@pytest.mark.parametrize("shell", ["exec python -m pipeline.waiting", "python -m pipeline.waiting; true"])
def test_a_stage_ends_when_dvc_is_killed_alone(waiting: Project, shell: str):
    """The second shell stays between DVC and the stage, and survives DVC."""
    dvc, number = started(waiting, shell, DVC_STAGE="waiting")
    dvc.kill()
    dvc.wait()
    assert eventually(lambda: not psutil.pid_exists(number), 20)
    assert (waiting.root / "closed").exists(), "it closed its files"


def test_a_stage_started_by_hand_survives_its_terminal(waiting: Project):
    terminal, number = started(waiting, "exec python -m pipeline.waiting")
    terminal.kill()
    terminal.wait()
    time.sleep(1.5)
    assert psutil.Process(number).status() != psutil.STATUS_ZOMBIE


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({}, "waiting: interrupted; the same command resumes here"),
        ({"DVC_STAGE": "grid@lp-0"}, "grid@lp-0: interrupted; the same command resumes here"),
        (
            {"DVC_STAGE": "tune", "DVC_ROOT": "/"},
            "tune: interrupted; the same command restores the finished stages and repeats this one",
        ),
    ],
)
def test_an_interrupted_stage_tells_that_it_resumes(waiting: Project, environment: dict[str, str], told: str):
    stage = subprocess.Popen(
        [sys.executable, "-m", "pipeline.waiting"],
        cwd=waiting.root,
        env=waiting.environment(**environment),
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored where a shell runs in the background
    )
    with stage:
        try:
            assert eventually((waiting.root / "started").exists)
            stage.send_signal(signal.SIGINT)
            _, errors = stage.communicate(timeout=60)
        finally:
            stage.kill()
    assert errors.split("\n") == ["", told, ""]
    assert stage.returncode == 128 + signal.SIGINT


def test_a_second_process_of_a_stage_is_refused(waiting: Project):
    starter, number = started(waiting, "exec python -m pipeline.waiting")
    began = time.monotonic()
    refused = waiting.stage("waiting", check=False)
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"error: waiting: already running in this folder, as process {number}; ")
    assert time.monotonic() - began < 30
    os.kill(number, signal.SIGKILL)
    starter.wait(timeout=60)
    waiting.stage("config")  # another stage; and the lock of a killed process is free:
    with (waiting.root / ".cache" / "locks" / "waiting.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_the_trainings_of_two_networks_run_at_the_same_time(project: Project):
    """The lock of one network is taken; the other is refused for a reason of its own."""
    folder = project.root / ".cache" / "locks"
    folder.mkdir(parents=True)
    with (folder / "train%20model_1.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        first = project.stage("train", "model_1", check=False)
        other = project.stage("train", "model_9", check=False)
    assert "train model_1: already running in this folder, as process unknown" in first.stderr
    assert "already running" not in other.stderr


def test_a_folder_that_cannot_hold_locks_is_no_error(project: Project):
    (project.root / ".cache").write_text("a file")
    done = project.stage("config")
    assert "warning: config: not protected against a second process" in done.stderr
    assert Path(project.paths.checked).is_file()
