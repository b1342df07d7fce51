"""Measure what a search costs beyond its fits, and the gain from further processes:  python -m benchmarks.search

Random trials of the project's own space on its own data (run `dvc repro validate` first), without pruning, in turns:
1. as bare fits in one process;
2. as a search in one process, with MLflow: its seconds over those of the bare fits;
3. as a search by several processes: trials per minute from the end of the first trial to that of the last. That leaves
   out the start of the processes, which matters less in a longer search; the seconds include it.
"""
# ruff: noqa: E402  load_tensorflow has to come before what imports TensorFlow

import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from benchmarks.project import ROOT, create, parser
from pipeline.runtime.startup import load_tensorflow

load_tensorflow()

from pipeline.core import config
from pipeline.core.command import Stopwatch
from pipeline.core.config import Params
from pipeline.core.paths import Paths
from pipeline.engine import engine, placement
from pipeline.train.fit import fit
from pipeline.train.train import Trainer
from pipeline.tune.search import Search
from pipeline.tune.trial import Trial
from pipeline.tune.trial_runner import TrialRunner


def cpu_seconds() -> float:
    """CPU time of this process, and of the processes that it started and that have ended."""
    return sum(os.times()[:4])


class Clock:
    """Wall and CPU time since its creation, and the times at which trials ended."""

    def __init__(self) -> None:
        self._began, self._cpu, self._ends = time.perf_counter(), cpu_seconds(), list[float]()
        self.wall = self.cpu = 0.0

    def on_end(self, trial: Trial) -> None:
        self._ends.append(time.perf_counter())

    def stop(self) -> None:
        self.wall, self.cpu = time.perf_counter() - self._began, cpu_seconds() - self._cpu

    def per_minute(self) -> float:
        return 60 * (len(self._ends) - 1) / (self._ends[-1] - self._ends[0])


def search(params: Params, paths: Paths, workers: int) -> tuple[Clock, list[Trial], TrialRunner]:
    """Search with a number of processes, with runs in MLflow."""
    os.environ[placement.WORKERS] = str(workers)
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder, placement.start(params.runtime, params.search.trials) as used:
        runner = TrialRunner(Trainer.create("tune", params, paths, used, Stopwatch()))
        base = params.base.model_dump(mode="json")
        space = Search(params.search, base, params.seed, Path(folder), clock.on_end)
        trials = engine.complete(space.run(runner.trial))
    clock.stop()
    return clock, trials, runner


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--trials", type=int, default=6, help="from 2")
    arguments.add_argument("--epochs", type=int, default=3)
    arguments.add_argument("--workers", type=int, default=2, help="from 2")
    arguments.add_argument("--rounds", type=int, default=1)
    given = arguments.parse_args()
    tune = {"tuner": "random", "trials": given.trials, "epochs": given.epochs, "pruning": None}
    with tempfile.TemporaryDirectory() as folder:
        paths = create(Path(folder), {"tune": tune})
        paths.validated.symlink_to(ROOT / "data" / "validated")
        os.environ |= {"PYTHONPATH": str(ROOT), "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}
        os.chdir(folder)
        params = config.load(paths)
        short = params.search.model_copy(update={"trials": 1, "epochs": 1})
        search(params.model_copy(update={"tune": short}), paths, 1)  # TensorFlow and MLflow start slowly
        print("| | s | CPU s | trials per minute |")
        print("|---|---|---|---|")
        for _ in range(given.rounds):
            one, trials, runner = search(params, paths, 1)
            bare = Clock()
            for trial in trials:
                fit(runner.trainer.spec(runner.network(trial)), runner.trainer.data)
            bare.stop()
            several, others, _ = search(params, paths, given.workers)
            print(f"| bare fits | {bare.wall:.1f} | {bare.cpu:.1f} | |")
            print(f"| search, one process | {one.wall:.1f} | {one.cpu:.1f} | {one.per_minute():.1f} |")
            name = f"search, {given.workers} processes"
            print(f"| {name} | {several.wall:.1f} | {several.cpu:.1f} | {several.per_minute():.1f} |")
            print(f"search over bare fits: {one.wall / bare.wall:.2f} (CPU time {one.cpu / bare.cpu:.2f})")
            same = [replace(trial, run_id=None) for trial in trials] == [
                replace(trial, run_id=None) for trial in others
            ]
            print(f"the same outcomes: {'yes' if same else 'no'}")
            print(f"{given.workers} processes over one: {several.per_minute() / one.per_minute():.2f}")
        os.chdir(ROOT)
    print(
        f"{os.cpu_count()} cores; load average {os.getloadavg()[0]:.1f}; {given.trials} trials of {given.epochs} epochs"
    )


if __name__ == "__main__":
    main()
