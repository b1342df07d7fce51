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

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from mlflow import MlflowClient
from scipy import optimize, stats

from benchmarks.project import ROOT, clone, create, mirror, parser, yaml
from pipeline.core import config, records
from pipeline.core.config import Params
from pipeline.core.paths import TUNED, Paths
from pipeline.evaluate.significance import seeds_interval, seeds_test
from pipeline.report import markdown, markers, results, svg
from pipeline.report.effects import MATTERS
from pipeline.report.results import Results
from pipeline.report.search_analysis import SearchAnalysis

FOLDER = ROOT / ".bench" / "mnist"
CHANGES = ROOT / "benchmarks" / "mnist.yaml"
DOCUMENT, IMAGES, README = ROOT / "docs" / "mnist.md", ROOT / "docs" / "images", ROOT / "README.md"
LABELS = {"pooling.kind": "kind of pooling", "pooling.window": "pooling window"}
BEGIN, END = "<!-- {}: written by `make mnist` -->", "<!-- end of {} -->"
LEVEL, POWER = 0.95, 0.8


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
    """The median wall time of the trainings of a network, from MLflow; an interruption lengthens one of them."""
    trained = [
        records.load_training(paths, name),
        *records.load_replicates(paths, name, params.replicate_seeds).values(),
    ]
    client = MlflowClient(f"sqlite:///{paths.root}/mlflow.db")
    runs = [client.get_run(record.run_id).info for record in trained if record.run_id]
    return float(np.median([run.end_time - run.start_time for run in runs if run.end_time])) / 60_000


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


def answer(found: Results, search: SearchAnalysis) -> str:
    """The effects that the search shows, the winner against its base, and the best network: a sentence each."""
    known, lines = search.effects.assign(size=search.effects["effect"].abs()).dropna(subset="size"), []
    for row in search.importance.to_dict("records"):
        effects = known[known["dimension"] == row["dimension"]].sort_values("size", ascending=False).to_dict("records")
        name = label(row["dimension"]).capitalize()
        if row["verdict"] == MATTERS:
            changes = "; ".join(markdown.effect(effect, search.scale) for effect in effects)
            lines.append(f"- **{name} matters** for the validation loss; {changes}.")
        elif effects:
            largest = markdown.effect(effects[0], search.scale)
            lines.append(f"- **{name}** is not shown to matter; the largest of {len(effects)} effects: {largest}.")
    tuned, differences = found.networks[TUNED], paired(found)
    assert tuned.base
    low, high = seeds_interval(differences, LEVEL)
    outcome = "is better than" if low > 0 else "is worse than" if high < 0 else "is not shown to differ from"
    ratio = tuned.counts.parameters / found.networks[tuned.base].counts.parameters - 1
    best = found.ranking.table.iloc[0]
    lines += [
        f"- **The best of {len(search.trials)} variants {outcome} {tuned.base}** in test accuracy: "
        f"{differences.mean():+.3f} pp over {len(differences)} seeds ({low:+.3f} to {high:+.3f}), "
        f"with {abs(ratio):.0%} {'fewer' if ratio < 0 else 'more'} parameters.",
        f"- The best network is **{best['name']}**: {100 * best['score']:.3f} ± {100 * best['std']:.3f} % with "
        f"{best['parameters']:,} parameters.",
    ]
    return "\n".join(lines) + "\n"


def label(dimension: str) -> str:
    """`kind of pooling` for `blocks.*.pooling.kind`, as in a sentence."""
    key = dimension.split(".", 2)[-1]
    return LABELS.get(key, key)


def paired(found: Results) -> np.ndarray:
    """Test accuracy of the winner of the search minus that of its base, by seed, in percentage points."""
    by_seed = found.tables["seeds"].pivot(index="seed", columns="model", values="accuracy")
    return 100 * (by_seed[TUNED] - by_seed[found.networks[TUNED].base]).to_numpy()


def verdict(found: Results) -> str:
    """The winner of the search against its base over seeds, and the difference that so many seeds can show."""
    base, differences = found.networks[TUNED].base, paired(found)
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


def draw(effects: pd.DataFrame, target: Path) -> Axes:
    """The effects on the validation loss: a row per change of a value, a dot with its interval, or one per block."""
    known = effects.dropna(subset="effect")
    known["block"] = known["dimension"].str.extract(r"^blocks\.([^.]+)\.", expand=False)
    known = known.dropna(subset="block")
    instead = (" instead of " + known["reference"]).where(known["reference"] != "", "")
    known["row"] = known["dimension"].map(label) + ": " + known["change"] + instead
    rows = list(known["row"].unique())
    blocks = sorted(known["block"].unique())
    figure, axes = plt.subplots(figsize=(9, 0.9 + 0.36 * len(rows)), layout="constrained")
    axes.axvline(0, color=svg.INK, linewidth=1)
    for number, (block, colour) in enumerate(zip(blocks, svg.SERIES, strict=False)):
        part = known[known["block"] == block]
        shift = 0.22 * (number - (len(blocks) - 1) / 2)
        places = [rows.index(row) + shift for row in part["row"]]
        axes.hlines(places, 100 * part["low"], 100 * part["high"], color=colour, linewidth=2.4, alpha=0.5)
        name = f"block {int(block) + 1}" if block.isdigit() else "all blocks"
        axes.plot(100 * part["effect"], places, "o", color=colour, label=name)
    axes.set_yticks(range(len(rows)), rows)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel("change of the validation loss, % (95 % intervals)")
    axes.grid(axis="x", color=svg.LINE)
    axes.spines[["top", "right"]].set_visible(False)
    if len(blocks) > 1:
        axes.legend(frameon=False)
    figure.savefig(target, dpi=110)
    plt.close(figure)
    return axes


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
        "answer": answer(found, found.search),
        "leaderboard": leaderboard(found, spent, commit),
        "verdict": verdict(found),
        "search": markdown.search(found.search).removeprefix("# Search\n\n")
        + "\n![The effect of each value on the validation loss](images/mnist_effects.png)\n",
    }
    for name, text in texts.items():
        markers.write(DOCUMENT, BEGIN.format(name), END.format(name), text)
    markers.write(README, BEGIN.format("answer"), END.format("answer"), texts["answer"])
    draw(found.search.effects, IMAGES / "mnist_effects.png")
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
