"""Measure the speed of training, searching and the pipeline:  make bench  (writes benchmarks/RESULTS.md)

  make bench                                          # everything, about half an hour
  make bench ARGS="--only training --repeats 5"

The contenders of a section (benchmarks/contenders) are processes that take turns, an epoch or a trial each, so that
other load on the machine affects all of them. Results are medians over the turns; the first turn, which compiles,
counts apart. CPU time is that of all threads; on a machine that is not idle, trust it more than wall time.

Sections: training, search, growth, mnist (needs its files: DATASET_MIRROR=...) and repro. On a GPU: --only mnist.
"""

import json
import os
import platform
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

from ruamel.yaml import YAML

from benchmarks.contenders.turns import BATCH
from benchmarks.project import ROOT, clone, mirror, parser
from models import architecture
from pipeline.core import config, dataset
from pipeline.core.paths import Paths

RESULTS = ROOT / "benchmarks" / "RESULTS.md"
CONVPIPE, TORCH = ROOT / ".venv" / "bin" / "python", ROOT / ".bench" / "venv" / "bin" / "python"
TRIALS = (4, 8, 16)
BATCHES = (BATCH, 2 * BATCH)
TARGET_ACCURACY, MAX_EPOCHS = 0.99, 6
WORK = ("fit", "search", "finalists", "scoring", "robustness")  # parts of stages that compute
STAGE = re.compile(r"^([\w ]+): ([\d.]+) s \((.*)\)$", re.MULTILINE)


class Contender:
    """A process of benchmarks/contenders, and the turns that it has had."""

    def __init__(self, module: str, *arguments: object) -> None:
        python = TORCH if module == "pytorch" else CONVPIPE
        self._process = subprocess.Popen(
            [str(python), "-m", f"benchmarks.contenders.{module}", *map(str, arguments)],
            cwd=ROOT,
            # On a busy machine, PyTorch is several times as slow if its threads spin while they wait.
            env=os.environ | {"OMP_WAIT_POLICY": "passive"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.turns: list[dict[str, float]] = []

    def turn(self) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith("@"):
                self.turns.append(json.loads(line[1:]))
                return
        sys.exit(f"{self._process.args} ended before its work was done")

    def middle(self, metric: str) -> float:
        """The median of the turns between the first, which compiles, and the last, which scores."""
        return median(turn[metric] for turn in self.turns[1:-1])

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()


def take_turns(contenders: dict[str, Contender], count: int) -> None:
    try:
        for number in range(count):
            for name, contender in contenders.items():
                contender.turn()
                print(f"  {number + 1}/{count} {name}: {contender.turns[-1]}", flush=True)
    finally:
        for contender in contenders.values():
            contender.stop()


def table(header: list[str], rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [header, ["---"] * len(header), *rows])


def training(folder: Path, repeats: int) -> str:
    """An epoch on the default data and its validation, in turns; then the accuracy on the test images."""
    params, sections, turns = config.load(Paths(folder)), [], repeats + 1
    images = dataset.load_info(Paths(folder)).images["train"]
    header = ["", "images/s", "time / convpipe", "images / CPU second", "CPU time / convpipe"]
    header += ["first epoch, CPU s", "test accuracy", "memory, MB"]
    for model, batch in product(("model_1", "model_2"), BATCHES):
        running = {
            name: Contender("training", "convpipe", model, folder, turns, batch, replicas)
            for name, replicas in (("convpipe", 1), ("convpipe, 2 replicas", 2))
        }
        running["plain_keras"] = Contender("training", "plain_keras", model, folder, turns, batch)
        for name in ("torch_float32", "torch_bfloat16"):
            running[name] = Contender("pytorch", name, model, folder, turns, batch)
        products = {
            f"matrix {precision}": Contender("training", "matrix", precision, folder, turns + 1)
            for precision in ("float32", "bfloat16")
        }
        take_turns(running | products, turns + 1)
        ours = running["convpipe"]
        rows = []
        for name, contender in running.items():
            wall, cpu = contender.middle("wall"), contender.middle("cpu")
            rows.append([name, f"{images / wall:,.0f}", f"{wall / ours.middle('wall'):.2f}"])
            rows[-1] += [f"{images / cpu:,.0f}", f"{cpu / ours.middle('cpu'):.2f}", f"{contender.turns[0]['cpu']:.1f}"]
            rows[-1] += [f"{contender.turns[-1]['accuracy']:.2%}", f"{contender.turns[-1]['memory']:,.0f}"]
        sections.append(f"### Training {model}, batches of {batch}\n\n{table(header, rows)}\n")
        forward = sum(row.multiply_adds for row in architecture.trace(params.network(model), (28, 28, 1), 10))
        work = 3 * 2 * forward * images  # forward, and backward for inputs and weights; two operations each
        for (name, matrices), trained in product(products.items(), ("convpipe", "convpipe, 2 replicas")):
            shares = []
            for time_of in ("wall", "cpu"):
                rate = work / running[trained].middle(time_of)
                limit = matrices.middle("operations") / matrices.middle(time_of)
                shares.append(f"{rate / 1e9:,.0f} of {limit / 1e9:,.0f} GFLOP ({rate / limit:.0%})")
            sections.append(f"{trained}, share of {name}: {shares[0]} a second, {shares[1]} a CPU second.\n")
    return "\n".join(sections)


def search(folder: Path, repeats: int) -> str:
    """Trials of the default search beside Keras Tuner's own on the same networks and epochs."""
    running = {name: Contender("search", name, "-", folder, repeats) for name in ("convpipe_search", "plain_search")}
    take_turns(running, repeats)
    rows, ours = [], None
    for name, contender in running.items():
        wall, cpu = (median(turn[metric] for turn in contender.turns) for metric in ("wall", "cpu"))
        ours = ours or (wall, cpu)
        rows.append([name, f"{60 / wall:.2f}", f"{wall / ours[0]:.2f}", f"{cpu:.1f}", f"{cpu / ours[1]:.2f}"])
        rows[-1].append(f"{max(turn['memory'] for turn in contender.turns):,.0f}")
    header = ["", "trials/min", "time / convpipe", "CPU s / trial", "CPU time / convpipe", "memory, MB"]
    return f"### Search ({repeats} trials)\n\n{table(header, rows)}\n"


def growth(folder: Path, repeats: int) -> str:
    """An epoch of Model 2 on the default images once, twice, five and ten times; the search with more trials."""
    turns = repeats + 1
    running = {str(n): Contender("training", "convpipe", "model_2", folder, turns, BATCH, 0, n) for n in (1, 2, 5, 10)}
    take_turns(running, turns + 1)
    rows = []
    for times, contender in running.items():
        wall, cpu = contender.middle("wall"), contender.middle("cpu")
        rows.append([times, f"{wall:.2f}", f"{cpu:.2f}", f"{cpu / running['1'].middle('cpu'):.2f}"])
        rows[-1].append(f"{contender.turns[-1]['memory']:,.0f}")
    header = ["images, times", "s / epoch", "CPU s / epoch", "relative to once", "memory, MB"]
    searched = [
        [str(trials), f"{(seconds := search_seconds(trials)):.0f}", f"{seconds / trials:.1f}"] for trials in TRIALS
    ]
    return (
        f"### Number of images (Model 2)\n\n{table(header, rows)}\n\n### Number of trials\n\nThe default search, two "
        f"epochs a trial, without pruning and finalists.\n\n{table(['trials', 's', 's / trial'], searched)}\n"
    )


def search_seconds(trials: int) -> float:
    """Time that the stage `tune` spends on a search of so many trials."""
    with tempfile.TemporaryDirectory() as other:
        folder = Path(other)
        tune = {"trials": trials, "epochs": 2, "pruning": None, "finalists": 1}
        project(folder, {"tune": tune, "fit": {"epochs": 1}})
        return parts(run(folder, str(CONVPIPE), "-m", "pipeline.tune"))["tune"]["search"]


def mnist(folder: Path, repeats: int) -> str:
    """Both networks on all of MNIST, on the device of params.yaml, with one more epoch until 99 % are right."""
    rows = []
    with tempfile.TemporaryDirectory() as other:
        place = Path(other)
        for model in ("model_1", "model_2"):
            accuracy, epochs, wall, output = 0.0, 0, 0.0, ""
            while accuracy < TARGET_ACCURACY and epochs < MAX_EPOCHS:
                epochs += 1
                project(place, {"data": {"dataset": "mnist"}, "fit": {"epochs": epochs}})
                began = time.perf_counter()
                output = run(place, "dvc", "repro", f"train@{model}")
                wall = time.perf_counter() - began
                score = Contender("training", "score", model, place)
                take_turns({"score": score}, 1)
                accuracy = score.turns[0]["accuracy"]
                print(f"  {model}, {epochs} epochs: {accuracy:.2%}, {wall:.0f} s", flush=True)
            fit = parts(output)[f"train {model}"]["fit"]
            each = [float(seconds) for seconds in re.findall(r"epoch .*\(([\d.]+) s\)$", output, re.MULTILINE)]
            epoch = median(each[1:] or each)
            images = dataset.load_info(Paths(place)).images["train"]
            device = re.findall(r"^device: (.*)$", output, re.MULTILINE)[0]
            rows.append([model, f"{epochs}", f"{accuracy:.2%}", f"{wall:.0f}", f"{1 - fit / wall:.0%}"])
            rows[-1] += [f"{epoch:.1f}", f"{images / epoch:,.0f}"]
    header = ["", "epochs", "test accuracy", "`dvc repro` of the stage, s", "outside training", "s / epoch", "images/s"]
    return f"### All of MNIST, to {TARGET_ACCURACY:.0%} test accuracy\n\n{device}\n\n{table(header, rows)}\n"


def repro(folder: Path, repeats: int) -> str:
    """The default `dvc repro` of a fresh clone, with the time of each stage's parts, and `dvc repro` once more."""
    with tempfile.TemporaryDirectory() as other:
        clone(Path(other))
        before, began = cpu_of_children(), time.perf_counter()
        output = run(Path(other), "dvc", "repro")
        wall, cpu = time.perf_counter() - began, cpu_of_children() - before
        unchanged = nothing_to_do(Path(other), repeats)
    share = sum(spent.get(part, 0.0) for spent in parts(output).values() for part in WORK) / wall
    stages = [[stage, seconds, spent] for stage, seconds, spent in STAGE.findall(output)]
    return (
        f"### `dvc repro` from nothing\n\n{wall:.0f} s, {cpu:.0f} CPU seconds; {', '.join(WORK)}: {share:.0%} of the "
        f"time.\n\n{table(['stage', 's', 'parts, s'], stages)}\n\n{unchanged}"
    )


def nothing_to_do(full: Path, repeats: int) -> str:
    """`dvc repro` with nothing to do, and `dvc status` of a pipeline without stages, in turns."""
    with tempfile.TemporaryDirectory() as other:
        empty = Path(other)
        run(empty, "git", "init", "--quiet")
        run(empty, "dvc", "init", "--quiet")
        (empty / "dvc.yaml").write_text("stages: {}\n")
        commands = {"dvc status, empty": (empty, "status"), "dvc repro": (full, "repro")}
        taken: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
        for _ in range(repeats + 1):
            for name, (place, command) in commands.items():
                before, began = cpu_of_children(), time.perf_counter()
                run(place, "dvc", command)
                taken[name].append((time.perf_counter() - began, cpu_of_children() - before))
    rows, base = [], None
    for name, times in taken.items():
        wall, cpu = (median(column) for column in zip(*times[1:], strict=True))
        base = base or (wall, cpu)
        rows.append([name, f"{wall:.2f}", f"{wall / base[0]:.2f}", f"{cpu:.2f}", f"{cpu / base[1]:.2f}"])
    return f"### Nothing to do\n\n{table(['', 's', '/ empty', 'CPU s', '/ empty'], rows)}\n"


def parts(output: str) -> dict[str, dict[str, float]]:
    """The seconds of each part of each stage, from what the stages print."""
    return {
        stage: {part: float(seconds) for part, seconds in re.findall(r"([\w-]+) ([\d.]+)", spent)}
        for stage, _, spent in STAGE.findall(output)
    }


def cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run(folder: Path, *command: str) -> str:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "DVC_", "GIT_"))}
    environment = inherited | {"PATH": f"{CONVPIPE.parent}{os.pathsep}{os.environ['PATH']}"}
    if source := mirror():
        environment["DATASET_MIRROR"] = source
    done = subprocess.run(command, cwd=folder, text=True, stdout=subprocess.PIPE, check=False, env=environment)
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}")
    return done.stdout


def project(folder: Path, changes: dict[str, dict[str, Any]]) -> None:
    """Validate the data of a clone of the last commit, with some parameters changed."""
    if not (folder / "params.yaml").exists():
        clone(folder)
    yaml = YAML()
    params = yaml.load(folder / "params.yaml")
    for section, values in changes.items():
        params[section] |= values
    yaml.dump(params, folder / "params.yaml")
    run(folder, "dvc", "repro", "validate")


SECTIONS: dict[str, Callable[[Path, int], str]] = {f.__name__: f for f in (training, search, growth, mnist, repro)}


def machine() -> tuple[str, list[str]]:
    """The processor, its cores and the load on it; and its instructions for matrices."""
    cpuinfo = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    names = [line.split(": ")[1] for line in cpuinfo.splitlines() if line.startswith("model name")]
    instructions = [flag for flag in ("avx512f", "avx512_bf16", "amx_bf16") if f" {flag} " in cpuinfo]
    description = ", ".join([*(names or [platform.machine()])[:1], f"{os.cpu_count()} cores", *instructions])
    return f"{description}; load average {os.getloadavg()[0]:.1f}", instructions


def keep(name: str, instructions: list[str], text: str) -> None:
    """Replace a section of RESULTS.md: there is one for each kind of processor."""
    old = RESULTS.read_text()
    title = old[: old.index("<!-- ")]
    own = f"{name}, {(instructions or [platform.machine()])[-1]}"
    found = dict(re.findall(r"(?ms)^<!-- ([\w, ]+) -->\n(.*?)(?=^<!-- |\Z)", old)) | {own: text}
    order = list(SECTIONS)
    keys = sorted(found, key=lambda key: (order.index(key.partition(", ")[0]), key))
    sections = [f"<!-- {key} -->\n{found[key].rstrip()}\n" for key in keys]
    RESULTS.write_text(title + "\n".join(sections))


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS), help="sections to run")
    arguments.add_argument("--repeats", type=int, default=5, help="turns of each contender after the first")
    given = arguments.parse_args()
    commit = run(ROOT, "git", "rev-parse", "--short", "HEAD").strip()
    with tempfile.TemporaryDirectory() as folder:
        project(Path(folder), {})
        for name in given.only:
            described, instructions = machine()
            origin = f"{date.today()}, commit {commit}, {described}; {given.repeats} repeats."
            keep(name, instructions, f"{origin}\n\n{SECTIONS[name](Path(folder), given.repeats)}")


if __name__ == "__main__":
    main()
