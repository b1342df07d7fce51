"""Run the pipeline on all of MNIST, and write docs/mnist.md from its results:  make mnist

  DATASET_MIRROR=../shared/datasets make mnist
  python -m benchmarks.mnist --folder FOLDER --write          # only write, from a run that is complete

The pipeline runs in a clone of the last commit in .bench/mnist, whose params.yaml is changed by benchmarks/mnist.yaml.
After an interruption, the same command goes on there, with the commit that began. Remove the folder to begin anew.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from mlflow import MlflowClient
from scipy import optimize, stats

from benchmarks.project import ROOT, clone, create, mirror, parser, yaml
from pipeline.core import atomic, config, records
from pipeline.core.config import Params
from pipeline.core.paths import Paths
from pipeline.evaluate.significance import seeds_interval, seeds_test
from pipeline.report import markdown, markers, results, search_figures, svg
from pipeline.report.results import Results

FOLDER = ROOT / ".bench" / "mnist"
CHANGES = ROOT / "benchmarks" / "mnist.yaml"
DOCUMENT, IMAGES = ROOT / "docs" / "mnist.md", ROOT / "docs" / "images"
BEGIN, END = "<!-- {}: written by `make mnist` -->", "<!-- end of {} -->"
LEVEL, POWER = 0.95, 0.8
PAGE = """\
# MNIST

What do pooling and dropout do to Model 2 on the full MNIST, and which network is the best? One command runs the
pipeline with the changes of [benchmarks/mnist.yaml](../benchmarks/mnist.yaml) to `params.yaml`, and writes the tables
of this page. [mnist_report.html](mnist_report.html) is its report.

```console
$ DATASET_MIRROR=../shared/datasets make mnist
$ python -m benchmarks.mnist_errors --write         # the remaining errors
```
"""
SECTIONS = {
    "search": "Pooling and dropout",
    "leaderboard": "Leaderboard",
    "verdict": "Is the winner of the search better than its base?",
    "errors": "Remaining errors",
}


def prepare(folder: Path) -> None:
    """Clone the last commit, and change its params.yaml."""
    clone(folder)
    changes, gallery = yaml.load(CHANGES), yaml.load(ROOT / "models" / "gallery.yaml")
    networks = {name: gallery[name] for name in changes.pop("gallery")}
    create(folder, changes | {"models": networks})


def run(folder: Path) -> None:
    """Run the pipeline, or what is left of it."""
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    if source := mirror():
        environment["DATASET_MIRROR"] = source
    done = subprocess.run([sys.executable, "-m", "pipeline.repro"], cwd=folder, env=environment, check=False)
    if done.returncode:
        sys.exit(done.returncode)


def minutes(paths: Paths, params: Params, name: str) -> float:
    """The mean wall time of the trainings of a network, from MLflow."""
    trained = [
        records.load_training(paths, name),
        *records.load_replicates(paths, name, params.replicate_seeds).values(),
    ]
    client = MlflowClient(f"sqlite:///{paths.root}/mlflow.db")
    runs = [client.get_run(record.run_id).info for record in trained if record.run_id]
    return float(np.mean([run.end_time - run.start_time for run in runs if run.end_time])) / 60_000


def leaderboard(found: Results, spent: Mapping[str, float], commit: str) -> str:
    """A row per network, the best first, with its errors on the test images, and its minutes."""
    images, seeds = found.info.images["test"], found.tables["seeds"]
    errors = (images * (1 - seeds["accuracy"])).round().astype(int).groupby(seeds["model"]).agg(["mean", "min", "max"])
    over = f"mean ± standard deviation of {found.ranking.seeds} seeds"
    head = ["network", "parameters", f"test accuracy, % ({over})", "test errors", "test loss", "minutes"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for row in found.ranking.table.to_dict("records"):
        mean, low, high = errors.loc[row["name"]]
        lines.append(
            f"| {row['name']} | {row['parameters']:,} | {100 * row['score']:.3f} ± {100 * row['std']:.3f} "
            f"| {mean:.1f} ({low:.0f} to {high:.0f}) | {row['loss']:.4f} | {spent[row['name']]:.1f} |"
        )
    device = next(iter(found.networks.values())).device
    counts = ", ".join(f"{count:,} {split}" for split, count in found.info.images.items())
    return "\n".join(lines) + f"\n\n{counts} images; {device.name}, {device.precision}; commit {commit}.\n"


def verdict(found: Results) -> str:
    """The winner of the search against its base over seeds, and the difference that so many seeds can show."""
    base = found.networks["tuned"].base
    by_seed = found.tables["seeds"].pivot(index="seed", columns="model", values="accuracy")
    differences = 100 * (by_seed["tuned"] - by_seed[base]).to_numpy()
    low, high = seeds_interval(differences, LEVEL)
    deviation = float(np.std(differences, ddof=1))
    counts = (len(differences), 2 * len(differences), 4 * len(differences))
    shown = ", ".join(f"{detectable(deviation, count):.3f} pp with {count}" for count in counts)
    return (
        f"- tuned - {base}, by seed: {', '.join(f'{difference:+.2f}' for difference in differences)} pp; "
        f"mean {differences.mean():+.3f} pp ({LEVEL:.0%} interval {low:+.3f} to {high:+.3f}, "
        f"p = {seeds_test(differences):.3f}).\n"
        f"- The differences have a standard deviation of {deviation:.3f} pp. A test at {1 - LEVEL:.0%} finds, with a "
        f"probability of {POWER:.0%}, a true difference of {shown} seeds.\n"
    )


def detectable(deviation: float, seeds: int) -> float:
    """The difference that a paired t test finds with probability `POWER` (Cohen, Statistical Power Analysis, 1988)."""
    critical = stats.t.isf((1 - LEVEL) / 2, seeds - 1)

    def excess(noncentrality: float) -> float:
        return float(stats.nct.sf(critical, seeds - 1, noncentrality)) - POWER

    return optimize.brentq(excess, 0, 20) * deviation / np.sqrt(seeds)


def standalone(figure: str) -> str:
    """A figure of the report as a file: with its namespace, a white background, and colours instead of variables."""
    for colour, name in svg.VARIABLES.items():
        figure = figure.replace(f"var(--{name})", colour)
    return figure.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" style="background: white" ', 1)


def write(folder: Path) -> None:
    """Write the tables of docs/mnist.md and its figures."""
    paths = Paths(folder)
    params = config.load(paths)
    found = results.load(paths, params.dimensions)
    spent = {name: minutes(paths, params, name) for name in found.networks}
    commit = subprocess.run(
        ["git", "-C", str(folder), "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
    ).stdout.strip()
    assert found.search
    texts = {
        "leaderboard": leaderboard(found, spent, commit),
        "verdict": verdict(found),
        "search": markdown.search(found.search).removeprefix("# Search\n\n")
        + "\n![The effect of each value on the validation loss](images/mnist_effects.svg)\n",
    }
    if not DOCUMENT.exists():
        sections = [f"\n## {title}\n\n{BEGIN.format(name)}\n{END.format(name)}\n" for name, title in SECTIONS.items()]
        atomic.write_text(DOCUMENT, PAGE + "".join(sections))
    for name, text in texts.items():
        markers.write(DOCUMENT, BEGIN.format(name), END.format(name), text)
    figure = search_figures.effects(found.search)
    assert figure
    atomic.write_text(IMAGES / "mnist_effects.svg", standalone(figure))
    shutil.copyfile(paths.results / "report.html", DOCUMENT.with_name("mnist_report.html"))


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--folder", type=Path, default=FOLDER, help="where the pipeline runs")
    arguments.add_argument("--write", action="store_true", help="run nothing")
    given = arguments.parse_args()
    if not given.write:
        if not given.folder.exists():
            prepare(given.folder)
        run(given.folder)
    write(given.folder)


if __name__ == "__main__":
    main()
