"""Networks trained side by side leave what `dvc repro` leaves, whatever fails or dies. The stages here only wait."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from pipeline import repro
from pipeline.core import config, machine
from pipeline.core.errors import ConfigError

from .conftest import ROOT, Project, copy_project, yaml

NETWORKS = ["first", "second", "third"]
# Waits for conditions that the test sets, then writes its output.
STAGE = """
import os, time
from pathlib import Path
import psutil
from pipeline.core import command
from pipeline.core.errors import TrainingError

def until(condition):
    end = time.monotonic() + 60
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)

def run(arguments):
    name = arguments.name
    dvc = [process.pid for process in psutil.Process().parents() if "--single-item" in process.cmdline()]
    Path(f"{name}.begun").write_text(str(dvc[0] if dvc else 0))
    mode = os.environ.get("MODE")
    try:
        if mode == "together":  # all run at the same time, and the first ends last
            until(lambda: all(Path(f"{other}.begun").exists() for other in ("first", "second", "third")))
            until(lambda: name != "first" or "train@third" in Path("dvc.lock").read_text())
        if mode == "hold":
            time.sleep(60)
        if mode == "failure" and name == "first":  # ends after the failure of the second
            until(Path("second.begun").exists)
            until(lambda: not psutil.pid_exists(int(Path("second.begun").read_text() or os.getpid())))
        if mode == "failure" and name == "second":
            raise TrainingError("the loss is not a number")
    except (KeyboardInterrupt, SystemExit):
        Path(f"{name}.closed").touch()
        raise
    print(f"{name} is trained")
    folder = Path("artifacts/train") / name
    folder.mkdir(parents=True)
    (folder / "out").write_text(name)

parser = command.parser(None)
parser.add_argument("name")
command.main(run, parser)
"""


def create(root: Path) -> Project:
    project = copy_project(root)
    params = project.params()
    params["models"] = dict.fromkeys(NETWORKS, params["models"]["model_1"])
    params["grid"]["base"], params["tune"] = "first", None
    yaml.dump(params, root / "params.yaml")
    stages = {
        "validate": {"cmd": "mkdir -p data/validated; touch data/validated/x", "outs": ["data/validated"]},
        "train": {
            "foreach": "${models}",
            "do": {
                "cmd": "python -m pipeline.stage ${key}",
                "deps": ["data/validated"],
                "outs": ["artifacts/train/${key}"],
            },
        },
        "report": {
            "cmd": "cat artifacts/train/*/out > artifacts/report",
            "deps": ["artifacts/train"],
            "outs": ["artifacts/report"],
        },
    }
    yaml.dump({"stages": stages}, root / "dvc.yaml")
    (root / "pipeline" / "stage").mkdir()
    (root / "pipeline" / "stage" / "__init__.py").touch()
    (root / "pipeline" / "stage" / "__main__.py").write_text(STAGE)
    project.run("git", "init", "--quiet")
    return project


def command(project: Project, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
    return project.run(sys.executable, "-m", "pipeline.repro", check=check, **environment)


def begun(project: Project) -> list[str]:
    """The stages that ran since the last call."""
    files = sorted(project.root.glob("*.begun"))
    for file in files:
        file.unlink()
    return [file.stem for file in files]


def locked(project: Project) -> str:
    return (project.root / "dvc.lock").read_text()


@pytest.fixture(scope="module")
def sequential(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = create(tmp_path_factory.mktemp("sequential"))
    project.run("dvc", "repro")
    return project


def test_networks_side_by_side_leave_the_files_of_dvc_repro(tmp_path: Path, sequential: Project):
    project = create(tmp_path)
    done = command(project, REPRO_JOBS="3", MODE="together")
    assert locked(project) == locked(sequential)
    assert (tmp_path / "artifacts/report").read_text() == "firstsecondthird"
    assert begun(project) == NETWORKS
    for name in NETWORKS:
        prefix = f"train@{name} "
        shown = [line.split(maxsplit=1)[1] for line in done.stdout.splitlines() if line.startswith(prefix)]
        assert shown[1:] == [
            f"> python -m pipeline.stage {name}",
            f"{name} is trained",
            "Updating lock file 'dvc.lock'",
        ]
    again = command(project, REPRO_JOBS="3")
    assert "at a time" not in again.stdout
    assert begun(project) == []

    (tmp_path / "artifacts/report").unlink()
    for name in NETWORKS:
        (tmp_path / "artifacts/train" / name / "out").unlink()
    (tmp_path / "dvc.lock").unlink()
    restored = command(project, REPRO_JOBS="3")  # by DVC, which needs no other processes
    assert "at a time" not in restored.stdout
    assert begun(project) == []
    assert locked(project) == locked(sequential)


def test_a_failure_lets_running_networks_finish(tmp_path: Path, sequential: Project):
    project = create(tmp_path)
    done = command(project, check=False, REPRO_JOBS="2", MODE="failure")
    assert done.returncode == 1
    message = done.stderr[done.stderr.index("error: train@second failed with status") :]
    assert "    error: the loss is not a number\n" in message
    assert begun(project) == ["first", "second"]
    assert "train@first" in locked(project)
    command(project, REPRO_JOBS="2")
    assert begun(project) == ["second", "third"]
    assert locked(project) == locked(sequential)


def test_all_stages_end_with_the_command(tmp_path: Path, sequential: Project):
    project = create(tmp_path)
    environment = project.environment(REPRO_JOBS="3", MODE="hold")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        with subprocess.Popen(
            [sys.executable, "-m", "pipeline.repro"],
            cwd=tmp_path,
            env=environment,
            # A shell makes its background processes ignore SIGINT.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        ) as started:
            try:
                until(lambda: len(list(tmp_path.glob("*.begun"))) == 3)
            finally:
                started.send_signal(number)
            status = started.wait(60)
        killed = number == signal.SIGKILL
        assert status == (-number if killed else 128 + number)
        until(lambda: not processes_in(tmp_path), seconds=60 if killed else 0)
        assert begun(project) == NETWORKS
        closed = sorted(tmp_path.glob("*.closed"))
        assert [file.stem for file in closed] == NETWORKS
        for file in closed:
            file.unlink()
    command(project, REPRO_JOBS="3")
    assert locked(project) == locked(sequential)


def until(condition, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() <= end
        time.sleep(0.05)


def processes_in(folder: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter(["cwd", "status"]):
        if process.info["cwd"] == str(folder) and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found


def test_the_search_joins_the_networks_but_not_on_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    project = copy_project(tmp_path)
    project.run("git", "init", "--quiet")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DASK_SCHEDULER_ADDRESS", raising=False)
    networks = ["train@model_1", "train@model_2"]
    for gpus, expected in {"": [*networks, "tune"], "0,1": networks}.items():
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)
        assert repro.Plan(config.load(project.paths)).names == expected


def test_default_number_of_networks(monkeypatch: pytest.MonkeyPatch):
    params = config.load(Project(ROOT).paths)
    for name in ("REPRO_JOBS", "DASK_SCHEDULER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(4), raising=False)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=6 * machine.MEMORY))
    assert [repro.jobs(params, stages) for stages in (0, 1, 2, 9)] == [1, 1, 2, 4]
    all_cores = params.model_copy(update={"runtime": params.runtime.model_copy(update={"threads": 0})})
    assert repro.jobs(all_cores, 9) == 1
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert repro.jobs(params, 9) == 2
    monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", "tls://somewhere:8786")  # the cluster does the work
    assert repro.jobs(params, 9) == 6
    monkeypatch.setenv("REPRO_JOBS", "8")
    assert repro.jobs(params, 9) == 8
    monkeypatch.setenv("REPRO_JOBS", "all")
    with pytest.raises(ConfigError, match="REPRO_JOBS: found all; allowed: a whole number"):
        repro.jobs(params, 9)
