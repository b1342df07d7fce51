"""What a search costs beyond its fits, and what a second worker brings.

  python benchmarks/search.py [--trials 6] [--epochs 3] [--workers 2]

Random trials of the project's own space on its own data (run `dvc repro validate` first), unpruned and fitted once:
1. the same networks as trials of a search in one process, and fitted bare: wall time, and time of processor;
2. the search by several workers: trials per minute from the end of the first trial to that of the last. So the start of
   the workers is not in it, which a longer search hardly notices; it is in the seconds.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

from ruamel.yaml import YAML

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from pipeline import config, runtime, search, training, trials, workers  # noqa: E402
from pipeline.paths import Paths  # noqa: E402
from pipeline.search import Trial  # noqa: E402
from pipeline.stage import Stopwatch  # noqa: E402


def processor() -> float:
    """Seconds of processor of this process, and of those that it started and that have ended."""
    return sum(os.times()[:4])


class Clock:
    """The times at which trials ended."""

    def __init__(self) -> None:
        self.began, self.processor, self.ends = time.perf_counter(), processor(), list[float]()

    def __call__(self, trial: Trial) -> None:
        self.ends.append(time.perf_counter())

    def seconds(self) -> tuple[float, float]:
        """Wall and processor, since the beginning."""
        return time.perf_counter() - self.began, processor() - self.processor

    def per_minute(self) -> float:
        return 60 * (len(self.ends) - 1) / (self.ends[-1] - self.ends[0])


def project(folder: Path, number: int, epochs: int) -> Paths:
    """A project with this one's data and parameters, but for the search."""
    yaml = YAML(typ="safe", pure=True)
    params = yaml.load(ROOT / "params.yaml")
    params["tune"] |= {"tuner": "random", "trials": number, "epochs": epochs, "pruning": None}
    yaml.dump(params, folder / "params.yaml")
    (folder / "data").symlink_to(ROOT / "data")
    os.environ |= {"PYTHONPATH": str(ROOT), "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}
    os.chdir(folder)  # the workers' too
    return Paths(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=6)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2, help="from 2")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        paths = project(Path(folder), arguments.trials, arguments.epochs)
        params = config.load(paths)
        used = runtime.start(params.runtime)
        place = trials.workplace(params, paths, used, Stopwatch())
        base, tune = params.base.model_dump(mode="json"), params.tune
        # TensorFlow and MLflow begin slowly.
        place.run(Trial(0, {}, 1, "RUNNING", {}, []), lambda curve: False, None)
        one = Clock()
        found = search.search(tune, base, params.seed, paths.root / "one", lambda t, s: place.run(t, s, None), one)
        searched = one.seconds()
        bare = Clock()
        for trial in found:
            network = place.network(trial.values, trial.epochs)
            training.fit(network, place.card, place.train, place.validation, seed=params.seed, precision=used.precision)
        fitted = bare.seconds()
        several = Clock()
        note = {"search": place.fingerprint, "parent": ""}
        asked = search.oracle(tune, base, params.seed, paths.root / "several", several, note)
        with workers.team(workers.Settings(arguments.workers, "127.0.0.1", 0)) as team:
            assert team
            team.run(asked)
        spread = several.seconds()
        same = [trial.figures for trial in search.trials(asked)] == [trial.figures for trial in found]
        os.chdir(ROOT)
    print(
        f"{os.cpu_count()} cores; load {os.getloadavg()[0]:.1f}; {arguments.trials} trials of {arguments.epochs} epochs"
    )
    print("| | s | s of processor | trials per minute |")
    print("|---|---|---|---|")
    print(f"| bare fits | {fitted[0]:.1f} | {fitted[1]:.1f} | |")
    print(f"| search, one process | {searched[0]:.1f} | {searched[1]:.1f} | {one.per_minute():.1f} |")
    print(f"| search, {arguments.workers} workers | {spread[0]:.1f} | {spread[1]:.1f} | {several.per_minute():.1f} |")
    print(f"search over bare fits: {searched[0] / fitted[0]:.2f} (of processor {searched[1] / fitted[1]:.2f})")
    print(f"the same figures: {'yes' if same else 'no'}")
    print(f"{arguments.workers} workers over one: {several.per_minute() / one.per_minute():.2f}")


if __name__ == "__main__":
    main()
