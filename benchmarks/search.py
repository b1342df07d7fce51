"""Measure what a search costs beyond its fits, and the gain from a second worker:  python -m benchmarks.search

Random trials of the project's own space on its own data (run `dvc repro validate` first), without pruning:
1. the same networks as trials of a search in one process, and as bare fits: wall and CPU time;
2. the search by several workers: trials per minute from the end of the first trial to that of the last. That leaves out
   the start of the workers, which matters less in a longer search; the seconds include it.
"""
# ruff: noqa: E402  load_tensorflow has to come before what imports TensorFlow

import os
import tempfile
import time
from pathlib import Path

from benchmarks.project import ROOT, create, parser
from pipeline.runtime.startup import load_tensorflow

load_tensorflow()

from pipeline.core import config
from pipeline.core.command import Stopwatch
from pipeline.runtime import device
from pipeline.train.fit import fit
from pipeline.tune import trial_runner, workers
from pipeline.tune.oracles import make_oracle
from pipeline.tune.search import all_fits, run_trials
from pipeline.tune.trial import Trial


def cpu_seconds() -> float:
    """CPU time of this process, and of the processes that it started and that have ended."""
    return sum(os.times()[:4])


class Clock:
    """Wall and CPU time since its creation, and the times at which trials ended."""

    def __init__(self) -> None:
        self._began, self._cpu, self._ends = time.perf_counter(), cpu_seconds(), list[float]()

    def on_end(self, trial: Trial) -> None:
        self._ends.append(time.perf_counter())

    def seconds(self) -> tuple[float, float]:
        return time.perf_counter() - self._began, cpu_seconds() - self._cpu

    def per_minute(self) -> float:
        return 60 * (len(self._ends) - 1) / (self._ends[-1] - self._ends[0])


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--trials", type=int, default=6, help="from 2")
    arguments.add_argument("--epochs", type=int, default=3)
    arguments.add_argument("--workers", type=int, default=2, help="from 2")
    given = arguments.parse_args()
    tune = {"tuner": "random", "trials": given.trials, "epochs": given.epochs, "pruning": None}
    with tempfile.TemporaryDirectory() as folder:
        paths = create(Path(folder), {"tune": tune})
        paths.validated.symlink_to(ROOT / "data" / "validated")
        os.environ |= {"PYTHONPATH": str(ROOT), "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}
        os.chdir(folder)  # the workers' folder too
        params = config.load(paths)
        runner = trial_runner.start(params, paths, device.start(params.runtime), Stopwatch())
        trainer, base = runner.trainer, params.base.model_dump(mode="json")
        runner.run(Trial(0, {}, 1, "RUNNING", {}, []), lambda curve: False, None)  # TensorFlow and MLflow start slowly

        one = Clock()
        oracle = make_oracle(params.search, base, params.seed, paths.root / "one", one.on_end)
        run_trials(oracle, "worker0", params.search, lambda trial, should_stop: runner.run(trial, should_stop, None))
        searched, trials = one.seconds(), all_fits(oracle)

        bare = Clock()
        for trial in trials:
            fit(trainer.spec(runner.network(trial.values, trial.epochs)), trainer.data)
        fitted = bare.seconds()

        several = Clock()
        note = {"search": runner.fingerprint, "parent": ""}
        oracle = make_oracle(params.search, base, params.seed, paths.root / "several", several.on_end, note)
        with workers.team(workers.Settings(given.workers)) as team:
            assert team
            team.run(oracle)
        distributed = several.seconds()
        same = [trial.metrics for trial in all_fits(oracle)] == [trial.metrics for trial in trials]
        os.chdir(ROOT)
    print(
        f"{os.cpu_count()} cores; load average {os.getloadavg()[0]:.1f}; {given.trials} trials of {given.epochs} epochs"
    )
    print("| | s | CPU s | trials per minute |")
    print("|---|---|---|---|")
    print(f"| bare fits | {fitted[0]:.1f} | {fitted[1]:.1f} | |")
    print(f"| search, one process | {searched[0]:.1f} | {searched[1]:.1f} | {one.per_minute():.1f} |")
    name = f"search, {given.workers} workers"
    print(f"| {name} | {distributed[0]:.1f} | {distributed[1]:.1f} | {several.per_minute():.1f} |")
    print(f"search over bare fits: {searched[0] / fitted[0]:.2f} (CPU time {searched[1] / fitted[1]:.2f})")
    print(f"the same metrics: {'yes' if same else 'no'}")
    print(f"{given.workers} workers over one: {several.per_minute() / one.per_minute():.2f}")


if __name__ == "__main__":
    main()
