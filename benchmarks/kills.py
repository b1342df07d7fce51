"""Kill processes of a search with SIGKILL at random moments:  python -m benchmarks.kills --what worker

The search and the replicates of its networks must leave the same files as without a kill, no process, and no MLflow run
that is RUNNING. `--what` names the victims:

    everything  DVC, the stage and its workers; `dvc repro` resumes
    stage       the process of the stage alone; `dvc repro` resumes
    worker      one of the workers; the stage goes on
    workers     all of them; the stage goes on
    scheduler   of a cluster; the stage ends with an error, and `dvc repro` resumes on a new cluster

Prints a line for each kill: after how many seconds it came, when `dvc repro` ended, and what had been kept by then.

"""

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.project import parser
from pipeline.core import records
from tests import test_engine
from tests.conftest import Project, copy_project, write_records

SMALL = {"blocks": [{"filters": [4], "dropout": 0.1}], "head": {"dense": [8]}}
SPACE = {"blocks": {"dropout": [0.0, 0.1, 0.3], "pooling": {"kind": ["max", "lp"], "p": [2.0, 4.0]}}}
STAGES = ("tune", "replicate")
COMMAND = ("dvc", "repro", "--single-item")
SIGNS = {"worker": "multiprocessing.spawn", "workers": "multiprocessing.spawn", "scheduler": "dask_scheduler"}
LIMIT = 900.0  # seconds until the end of a stage that goes on, or has lost its scheduler


def create(folder: Path, tuner: str) -> Project:
    """A DVC project with validated data, a small search and replicates."""
    project = copy_project(folder)
    tune = {
        "base": "small",
        "tuner": tuner,
        "trials": 4,
        "epochs": 2,
        "finalists": 2,
        "finalist_seeds": 1,
        "space": SPACE,
    }
    tune |= {"pruning": {"min_trials": 2, "min_epochs": 1}}
    project.change(models={"small": SMALL}, tune=tune, evaluate={"seeds": 2})
    project.run("git", "init", "--quiet")
    project.run("dvc", "repro", "validate")
    write_records(project)
    return project


@contextmanager
def workers(folder: Path, clustered: bool, count: str) -> Iterator[dict[str, str]]:
    """The environment of a stage whose fits run on this machine, or on a cluster of its own."""
    if not clustered:
        yield {"FIT_WORKERS": count}
        return
    with test_engine.cluster(Path(tempfile.mkdtemp(dir=folder))) as environment:
        yield environment


def outputs(project: Project) -> dict[str, bytes]:
    """The files of the search and the replicates by name; without the IDs of MLflow runs."""
    search = records.load_search(project.paths)
    assert search
    record = search.model_copy(update={"run_id": None}).model_dump_json()
    return test_engine.outputs(project) | {"record": record.encode()}


def kept(project: Project) -> str:
    patterns = {
        "trials": "tune/*/trials/*.json",
        "fits of finalists": "tune/*/finalists/*.json",
        "replicates": "replicate/*/record.json",
    }
    return ", ".join(f"{len(list(project.paths.resumable.glob(path)))} {name}" for name, path in patterns.items())


def victims(what: str) -> list[psutil.Process]:
    """The processes to kill, some of those started from here."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            words = process.cmdline()
            if what == "stage":
                match = any(f"pipeline.{stage}" in words for stage in STAGES)
            else:
                match = SIGNS[what] in " ".join(words) and "resource_tracker" not in " ".join(words)
            if match:
                found.append(process)
    return found


def strike(dvc: psutil.Popen, what: str, moments: random.Random) -> bool:
    """Kill the victims, as soon as there are any; False if DVC has ended before."""
    if what == "everything":
        os.killpg(dvc.pid, signal.SIGKILL)
        return True
    while dvc.poll() is None:
        if found := victims(what):
            for process in [moments.choice(found)] if what == "worker" else found:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            return True
        time.sleep(0.02)
    return False


@dataclass(frozen=True)
class Process:
    """`dvc repro` of one stage."""

    project: Project
    stage: str
    environment: dict[str, str]
    log: Path

    def run(self, what: str, after: float, moments: random.Random) -> tuple[int, float | None]:
        """Run the stage, and kill after so many seconds.

        Returns:
            The status of DVC, and how many seconds after the kill it ended; None if it ended before.
        """
        environment = self.project.environment(**self.environment)
        with (
            self.log.open("wb") as output,
            psutil.Popen(
                [*COMMAND, self.stage],
                cwd=self.project.root,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            ) as dvc,
        ):
            try:
                return dvc.wait(after), None
            except psutil.TimeoutExpired:
                if not strike(dvc, what, moments):
                    return dvc.wait(), None
            struck = time.perf_counter()
            return dvc.wait(LIMIT), time.perf_counter() - struck

    def require_expected(self, what: str, later: float | None) -> None:
        """Require that a failure follows from the kill; that of a scheduler must give one clear error."""
        text = self.log.read_text(encoding="utf-8", errors="replace")
        clear = text.count("error: ") == 1 and "Traceback" not in text
        if later is None or what in ("worker", "workers") or (what == "scheduler" and not clear):
            sys.exit(f"{self.stage} failed:\n{text}")


def undisturbed(project: Project, environment: dict[str, str]) -> tuple[dict[str, float], dict[str, bytes]]:
    """Run the stages without a kill; returns the seconds of each, and the files."""
    seconds = {}
    for stage in STAGES:
        began = time.perf_counter()
        project.run(*COMMAND, stage, check=True, **environment)
        seconds[stage] = time.perf_counter() - began
    found = outputs(project)
    forget(project)
    return seconds, found


def require_equal(expected: dict[str, bytes], found: dict[str, bytes], when: str) -> None:
    different = [name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name)]
    if different:
        sys.exit(f"{when}: not the same: {', '.join(sorted(different))}")


def require_no_process(folder: Path) -> None:
    """Wait for the end of all processes that work in a folder."""
    left = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if Path(process.cwd()).is_relative_to(folder):
                left.append(process)
    _, alive = psutil.wait_procs(left, timeout=60)
    if alive:
        sys.exit(f"left: {alive}")


def require_ended_runs(project: Project) -> None:
    with sqlite3.connect(project.root / "mlflow.db") as store:
        statuses = dict(store.execute("SELECT status, COUNT(*) FROM runs GROUP BY status").fetchall())
    if "RUNNING" in statuses:
        sys.exit(f"MLflow runs: {statuses}")


def forget(project: Project) -> None:
    """Remove the search and all that DVC and the stages know of it."""
    paths = project.paths
    for path in (paths.resumable, paths.search, paths.replicates, project.root / ".dvc/cache/runs"):
        shutil.rmtree(path, ignore_errors=True)
    (project.root / "dvc.lock").unlink()


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--what", choices=("everything", "stage", *SIGNS), default="everything")
    arguments.add_argument("--cluster", action="store_true", help="on a scheduler and three workers, with TLS")
    arguments.add_argument("--kills", type=int, default=10)
    arguments.add_argument("--in-a-row", type=int, default=1, help="kills of one stage before it may finish")
    arguments.add_argument("--seed", type=int, default=1, help="of the moments")
    arguments.add_argument("--tuner", default="random", help="random, bayesian, hyperband or grid")
    arguments.add_argument("--workers", default="2", help="of the killed searches; the whole one has one")
    given = arguments.parse_args()
    clustered = given.cluster or given.what == "scheduler"
    moments = random.Random(given.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        project = create(folder / "project", given.tuner)
        _, whole = undisturbed(project, {"FIT_WORKERS": "1"})
        with workers(folder, clustered, given.workers) as environment:
            seconds, found = undisturbed(project, environment)
        require_equal(whole, found, "without a kill")
        print(f"without a kill: {sum(seconds.values()):.0f} s, {len(whole)} files", flush=True)
        searches = kills = 0
        longest = 0.0
        while kills < given.kills:
            for stage in STAGES:
                in_a_row, status = 0, 1
                while status:
                    again = kills < given.kills and in_a_row < given.in_a_row
                    after = moments.uniform(0, seconds[stage]) if again else 3600.0
                    with workers(folder, clustered, given.workers) as environment:
                        process = Process(project, stage, environment, folder / "output.txt")
                        status, later = process.run(given.what, after, moments)
                        require_no_process(project.root)
                    require_no_process(folder)
                    if status:
                        process.require_expected(given.what, later)
                    if later is not None:
                        kills, in_a_row, longest = kills + 1, in_a_row + 1, max(longest, later)
                        moment = f"kill {kills}, {after:.1f} s after the start of {stage}, ended {later:.1f} s later"
                        print(f"{moment}; kept: {kept(project)}", flush=True)
            require_ended_runs(project)
            require_equal(whole, outputs(project), f"after {kills} kills")
            searches += 1
            forget(project)
        print(f"{kills} kills of {given.what}, {searches} searches completed, all files the same as without a kill")
        print(f"dvc repro ended at most {longest:.1f} s after a kill")


if __name__ == "__main__":
    main()
