"""A search in a DVC project, killed with SIGKILL at random moments and taken up each time by `dvc repro`.

  python benchmarks/kills.py [--kills 10] [--in-a-row 1] [--seed 1] [--tuner random] [--workers 2]

Every search has to leave the files of one that was not killed; then another one begins. Prints a line for each kill:
after how many seconds it came, and what had been kept by then. Takes about half a minute a kill.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from tests.conftest import Project, copy_project  # noqa: E402

SMALL = {"blocks": [{"filters": [4], "dropout": 0.1}], "head": {"dense": [8]}}
SPACE = {"blocks": {"dropout": [0.0, 0.1, 0.3], "pooling": {"kind": ["max", "lp"], "p": [2.0, 4.0]}}}
OUTCOMES = ("results/tune/*.csv", "results/tune/best.yaml", "artifacts/models/tuned.keras")


def project(folder: Path, tuner: str) -> Project:
    made = copy_project(folder)
    tune = {"base": "small", "tuner": tuner, "trials": 6, "epochs": 3, "finalist_seeds": 2, "space": SPACE}
    made.change(models={"small": SMALL}, tune=tune | {"pruning": {"min_trials": 2, "min_epochs": 1}})
    made.run("git", "init", "--quiet")
    made.run("dvc", "repro", "validate")
    return made


def outcome(made: Project) -> dict[str, bytes | str]:
    found: dict[str, bytes | str] = {
        str(path.relative_to(made.root)): path.read_bytes() for glob in OUTCOMES for path in made.root.glob(glob)
    }
    about = json.loads((made.paths.search / "run.json").read_text(encoding="utf-8"))
    return found | {"run.json": json.dumps(about | {"run_id": None})}


def kept(made: Project) -> str:
    kinds = ("trials", "finalists/trials")
    trials, fits = (len(list(made.paths.unfinished.glob(f"tune/*/{kind}/*.json"))) for kind in kinds)
    return f"{trials} trials and {fits} fits of finalists"


def killed(made: Project, workers: str, after: float) -> bool:
    """Whether `dvc repro` still ran after so many seconds; then it and all that it started have been killed."""
    command = ["dvc", "repro", "tune"]
    environment = made.environment(TUNE_WORKERS=workers)
    with subprocess.Popen(command, cwd=made.root, env=environment, stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL, start_new_session=True) as process:  # fmt: skip
        try:
            status = process.wait(after)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return True
    if status:
        sys.exit(f"dvc repro ended with {status}; the project is {made.root}")
    return False


def forget(made: Project) -> None:
    for path in (made.paths.unfinished, made.paths.search, made.paths.training("tuned"), made.root / ".dvc/cache/runs"):
        shutil.rmtree(path, ignore_errors=True)
    made.paths.model("tuned").unlink(missing_ok=True)
    (made.root / "dvc.lock").unlink()
    made.run("dvc", "commit", "--force", "download", "validate")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--in-a-row", type=int, default=1, help="kills of one search before it is left to end")
    parser.add_argument("--seed", type=int, default=1, help="of the moments")
    parser.add_argument("--tuner", default="random", help="random, bayesian, hyperband or grid")
    parser.add_argument("--workers", default="2", help="of the searches that are killed; the whole one has one")
    arguments = parser.parse_args()
    moments = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        made = project(Path(folder), arguments.tuner)
        began = time.perf_counter()
        made.run("dvc", "repro", "tune")
        seconds = time.perf_counter() - began
        whole = outcome(made)
        print(f"a whole search: {seconds:.0f} s, {len(whole)} files", flush=True)
        forget(made)
        searches = kills = row = 0
        while kills < arguments.kills or row:
            again = kills < arguments.kills and row < arguments.in_a_row
            after = moments.uniform(0, seconds) if again else 3600.0
            if killed(made, arguments.workers, after):
                kills, row = kills + 1, row + 1
                print(f"kill {kills} after {after:.1f} s: {kept(made)} kept", flush=True)
                continue
            searches, row = searches + 1, 0
            different = [name for name, content in outcome(made).items() if whole.get(name) != content]
            if different:
                sys.exit(f"search {searches}, after {kills} kills: other than the whole one: {', '.join(different)}")
            forget(made)
        print(f"{kills} kills, {searches} searches ended, all in the same files as one that was not killed")


if __name__ == "__main__":
    main()
