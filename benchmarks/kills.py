"""Kill a search with SIGKILL at random moments, and resume it with `dvc repro`:  python -m benchmarks.kills

Every search must leave the same files as one that was not killed; then another one begins. Prints a line for each kill:
after how many seconds it came, and what had been kept by then. Takes about half a minute a kill.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.project import parser
from pipeline.core import records
from tests.conftest import Project, copy_project

SMALL = {"blocks": [{"filters": [4], "dropout": 0.1}], "head": {"dense": [8]}}
SPACE = {"blocks": {"dropout": [0.0, 0.1, 0.3], "pooling": {"kind": ["max", "lp"], "p": [2.0, 4.0]}}}
OUTPUTS = (
    "artifacts/tune/*.csv",
    "artifacts/tune/best.yaml",
    "artifacts/tune/tuned/*.csv",
    "artifacts/tune/tuned/*.keras",
)


def create(folder: Path, tuner: str) -> Project:
    """A DVC project with validated data and a small search."""
    project = copy_project(folder)
    tune = {"base": "small", "tuner": tuner, "trials": 6, "epochs": 3, "finalist_seeds": 2, "space": SPACE}
    project.change(models={"small": SMALL}, tune=tune | {"pruning": {"min_trials": 2, "min_epochs": 1}})
    project.run("git", "init", "--quiet")
    project.run("dvc", "repro", "validate")
    return project


def outputs(project: Project) -> dict[str, bytes]:
    """The files of a search by name, without the ID of its MLflow run."""
    paths = [path for pattern in OUTPUTS for path in project.root.glob(pattern)]
    search = records.load_search(project.paths)
    assert search
    record = search.model_copy(update={"run_id": None}).model_dump_json()
    return {str(path.relative_to(project.root)): path.read_bytes() for path in paths} | {"record": record.encode()}


def kept(project: Project) -> str:
    folders = [f"tune/*/{name}/*.json" for name in ("trials", "finalists/trials")]
    trials, fits = (len(list(project.paths.resumable.glob(pattern))) for pattern in folders)
    return f"{trials} trials and {fits} fits of finalists"


def killed(project: Project, workers: str, seconds: float) -> bool:
    """Run `dvc repro`, kill it and everything it started after so many seconds; False if it ended before."""
    environment = project.environment(FIT_WORKERS=workers)
    command, nowhere = ["dvc", "repro", "tune"], subprocess.DEVNULL
    with subprocess.Popen(
        command, cwd=project.root, env=environment, stdout=nowhere, stderr=nowhere, start_new_session=True
    ) as process:
        try:
            status = process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return True
    if status:
        sys.exit(f"dvc repro ended with {status}; the project is {project.root}")
    return False


def forget(project: Project) -> None:
    """Remove the search and all that DVC and the stage know of it."""
    paths = project.paths
    for path in (paths.resumable, paths.search, project.root / ".dvc/cache/runs"):
        shutil.rmtree(path, ignore_errors=True)
    (project.root / "dvc.lock").unlink()
    project.run("dvc", "commit", "--force", "config", "download", "validate")


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--kills", type=int, default=10)
    arguments.add_argument("--in-a-row", type=int, default=1, help="kills of one search before it may finish")
    arguments.add_argument("--seed", type=int, default=1, help="of the moments")
    arguments.add_argument("--tuner", default="random", help="random, bayesian, hyperband or grid")
    arguments.add_argument("--workers", default="2", help="of the killed searches; the whole one has one")
    given = arguments.parse_args()
    moments = random.Random(given.seed)
    with tempfile.TemporaryDirectory() as folder:
        project = create(Path(folder), given.tuner)
        began = time.perf_counter()
        project.run("dvc", "repro", "tune")
        seconds = time.perf_counter() - began
        whole = outputs(project)
        print(f"a whole search: {seconds:.0f} s, {len(whole)} files", flush=True)
        forget(project)
        searches = kills = in_a_row = 0
        while kills < given.kills or in_a_row:
            again = kills < given.kills and in_a_row < given.in_a_row
            after = moments.uniform(0, seconds) if again else 3600.0
            if killed(project, given.workers, after):
                kills, in_a_row = kills + 1, in_a_row + 1
                print(f"kill {kills} after {after:.1f} s: {kept(project)} kept", flush=True)
                continue
            searches, in_a_row = searches + 1, 0
            found = outputs(project)
            different = [name for name in whole.keys() | found.keys() if whole.get(name) != found.get(name)]
            if different:
                sys.exit(f"search {searches}, after {kills} kills: not the same: {', '.join(sorted(different))}")
            forget(project)
        print(f"{kills} kills, {searches} searches completed, all with the same files as one that was not killed")


if __name__ == "__main__":
    main()
