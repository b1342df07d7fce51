"""How fast training, searching and the pipeline are, measured in turns; writes benchmarks/RESULTS.md.

  make bench                                                  # everything, about half an hour
  .venv/bin/python benchmarks/speed.py --only training search --repeats 5

The contenders of a section (benchmarks/contenders.py) are processes that take turns, an epoch or a trial each, so that
what else the machine does meets all of them. Figures are medians over the turns, the first one, which compiles, apart;
the others begin with an epoch that is not measured.
Processor seconds are those of all threads: they say more than wall time on a machine that is not idle.

Sections: training, search, growth, mnist (needs its files: DATASET_MIRROR=...), stages. On a GPU:
  DATASET_MIRROR=... python benchmarks/speed.py --only mnist
"""

import argparse
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
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

from ruamel.yaml import YAML

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "RESULTS.md"
OURS, TORCH = ROOT / ".venv" / "bin" / "python", ROOT / ".bench" / "venv" / "bin" / "python"
sys.path.insert(0, str(ROOT))

from models import layers  # noqa: E402
from pipeline import config  # noqa: E402
from pipeline.paths import Paths  # noqa: E402

Turn = dict[str, float]
Rows = list[list[str]]

TRIALS = (4, 8, 16)
WANTED, MOST = 0.99, 6  # of the test images; epochs
WORK = ("fit", "search", "finalists", "scoring", "robustness")  # the parts of stages that are what they are there for
LINE = re.compile(r"^([\w ]+): ([\d.]+) s \((.*)\)$", re.MULTILINE)


@dataclass
class Contender:
    """A process of contenders.py, and the turns that it has had."""

    process: subprocess.Popen[str]
    turns: list[Turn]

    @classmethod
    def start(cls, name: str, *arguments: object) -> "Contender":
        python = TORCH if name.startswith("torch") else OURS
        command = [str(python), str(Path(__file__).with_name("contenders.py")), name, *map(str, arguments)]
        pipe: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        # PyTorch's threads spin while they wait, which on a machine that is not idle makes it several times as slow.
        environment = os.environ | {"OMP_WAIT_POLICY": "passive"}
        return cls(subprocess.Popen(command, stderr=subprocess.DEVNULL, env=environment, **pipe), [])

    def turn(self) -> None:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            if line.startswith("@"):
                self.turns.append(json.loads(line[1:]))
                return
        sys.exit(f"{' '.join(map(str, self.process.args))} ended before its work was done")  # type: ignore[arg-type]

    def middle(self, figure: str) -> float:
        """The median of the turns between the first, which compiles, and the last, which scores."""
        return median(turn[figure] for turn in self.turns[1:-1])


def in_turns(contenders: dict[str, Contender], count: int) -> None:
    try:
        for number in range(count):
            for name, contender in contenders.items():
                contender.turn()
                print(f"  {number + 1}/{count} {name}: {contender.turns[-1]}", flush=True)
    finally:
        for contender in contenders.values():
            contender.process.kill()
            contender.process.wait()


def table(header: list[str], rows: Rows) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def training(folder: Path, repeats: int) -> str:
    """An epoch of the default data and its validation, in turns; then the accuracy on the test images."""
    params, sections = config.load(Paths(folder)), []
    images = json.loads((folder / "data/validated/dataset.json").read_text())["images"]["train"]
    for model in ("model_1", "model_2"):
        names = ("convpipe", "plain_keras", "torch_float32", "torch_bfloat16")
        turns = repeats + 1
        running = {name: Contender.start(name, model, folder, turns) for name in names}
        products = {
            f"matrix {precision}": Contender.start("matrix", precision, folder, turns + 1)
            for precision in ("float32", "bfloat16")
        }
        in_turns(running | products, turns + 1)
        forward = sum(row.multiply_adds for row in layers.trace(params.model(model), (28, 28, 1), 10))
        work = 3 * 2 * forward * images  # forward, and backward for inputs and weights; two operations each
        ours = running["convpipe"]
        rows = [
            [
                name,
                f"{images / contender.middle('wall'):,.0f}",
                f"{contender.middle('wall') / ours.middle('wall'):.2f}",
                f"{images / contender.middle('processor'):,.0f}",
                f"{contender.middle('processor') / ours.middle('processor'):.2f}",
                f"{contender.turns[0]['processor']:.1f}",
                f"{contender.turns[-1]['accuracy']:.2%}",
                f"{contender.turns[-1]['memory']:,.0f}",
            ]
            for name, contender in running.items()
        ]
        header = ["", "images/s", "its time / ours", "images / processor s", "its processor time / ours"]
        header += ["first epoch, processor s", "test accuracy", "memory, MB"]
        sections.append(f"### Training {model}\n\n{table(header, rows)}\n")
        for name, product in products.items():
            rate = product.middle("operations") / product.middle("processor")
            share = work / ours.middle("processor") / rate
            sections.append(
                f"{name}: {rate / 1e9:,.0f} GFLOP per processor second; training {model} does "
                f"{work / ours.middle('processor') / 1e9:,.0f}, {share:.0%} of it.\n"
            )
    return "\n".join(sections)


def search(folder: Path, repeats: int) -> str:
    """Trials of the default search beside Keras Tuner's own on the same space, oracle, seed and epochs."""
    running = {name: Contender.start(name, "-", folder, repeats) for name in ("convpipe_search", "plain_search")}
    in_turns(running, repeats)
    walls = {name: [turn["wall"] for turn in c.turns] for name, c in running.items()}
    processors = {name: [turn["processor"] for turn in c.turns] for name, c in running.items()}
    rows = [
        [
            name,
            f"{60 / median(walls[name]):.2f}",
            f"{median(walls[name]) / median(walls['convpipe_search']):.2f}",
            f"{median(processors[name]):.1f}",
            f"{median(processors[name]) / median(processors['convpipe_search']):.2f}",
            f"{max(turn['memory'] for turn in running[name].turns):,.0f}",
        ]
        for name in running
    ]
    header = ["", "trials/min", "its time / ours", "processor s / trial", "its processor time / ours", "memory, MB"]
    return f"### Search ({repeats} trials)\n\n{table(header, rows)}\n"


def growth(folder: Path, repeats: int) -> str:
    """An epoch of Model 2 on the default images once, twice, five and ten times; the search with more trials."""
    running = {
        str(times): Contender.start("convpipe", "model_2", folder, repeats + 1, times) for times in (1, 2, 5, 10)
    }
    in_turns(running, repeats + 2)
    one = running["1"].middle("processor")
    rows = [
        [
            times,
            f"{contender.middle('wall'):.2f}",
            f"{contender.middle('processor'):.2f}",
            f"{contender.middle('processor') / one:.2f}",
            f"{contender.turns[-1]['memory']:,.0f}",
        ]
        for times, contender in running.items()
    ]
    header = ["images, times", "s / epoch", "processor s / epoch", "/ that of once", "memory, MB"]
    searched = [[str(trials), f"{(seconds := search_of(trials)):.0f}", f"{seconds / trials:.1f}"] for trials in TRIALS]
    return (
        f"### As images grow (Model 2)\n\n{table(header, rows)}\n\n### As trials grow\n\nThe default search, two "
        f"epochs a trial, without pruning and finalists.\n\n{table(['trials', 's', 's / trial'], searched)}\n"
    )


def search_of(trials: int) -> float:
    """Seconds that the stage `tune` spends on a search of so many trials."""
    with tempfile.TemporaryDirectory() as other:
        folder = Path(other)
        tune = {"trials": trials, "epochs": 2, "pruning": None, "finalists": 1}
        project(folder, {"tune": tune, "fit": {"epochs": 1}})
        return parts(run(folder, str(OURS), "-m", "pipeline.tune").stdout)["tune"]["search"]


def mnist(folder: Path, repeats: int) -> str:
    """Both networks on the whole of MNIST, on the device that `runtime.device: auto` finds: until 99 % of the test
    images are right, with one epoch more each time."""
    rows = []
    with tempfile.TemporaryDirectory() as other:
        place = Path(other)
        for model in ("model_1", "model_2"):
            accuracy, epochs = 0.0, 0
            while accuracy < WANTED and epochs < MOST:
                epochs += 1
                project(place, {"data": {"dataset": "mnist"}, "fit": {"epochs": epochs}})
                began = time.perf_counter()
                said = run(place, "dvc", "repro", f"train@{model}").stdout
                wall = time.perf_counter() - began
                score = Contender.start("score", model, place)
                in_turns({"score": score}, 1)
                accuracy = score.turns[0]["accuracy"]
                print(f"  {model}, {epochs} epochs: {accuracy:.2%}, {wall:.0f} s", flush=True)
            spent = parts(said)[f"train {model}"]
            each = [float(seconds) for seconds in re.findall(r"epoch .*\(([\d.]+) s\)$", said, re.MULTILINE)]
            epoch = median(each[1:] or each)
            images = json.loads((place / "data/validated/dataset.json").read_text())["images"]["train"]
            device = re.findall(r"^device: (.*)$", said, re.MULTILINE)[0]
            rows.append(
                [
                    model,
                    f"{epochs}",
                    f"{accuracy:.2%}",
                    f"{wall:.0f}",
                    f"{1 - spent['fit'] / wall:.0%}",
                    f"{epoch:.1f}",
                    f"{images / epoch:,.0f}",
                ]
            )
    header = [
        "",
        "epochs",
        "test accuracy",
        "`dvc repro` of the stage, s",
        "of it not training",
        "s / epoch",
        "images/s",
    ]
    return (
        f"### MNIST as a whole, until {WANTED:.0%} of the test images are right\n\n{device}\n\n{table(header, rows)}\n"
    )


def stages(folder: Path, repeats: int) -> str:
    """The default `dvc repro` of a fresh clone, where each stage says its time went, and `dvc repro` once more."""
    with tempfile.TemporaryDirectory() as other:
        clone(Path(other))
        before, began = processor_of_children(), time.perf_counter()
        said = run(Path(other), "dvc", "repro").stdout
        wall, processor = time.perf_counter() - began, processor_of_children() - before
        idle = nothing_to_do(Path(other), repeats)
    rows = [[stage, seconds, spent] for stage, seconds, spent in LINE.findall(said)]
    share = sum(spent.get(part, 0.0) for spent in parts(said).values() for part in WORK) / wall
    return (
        f"### `dvc repro` from nothing\n\n{wall:.0f} s, {processor:.0f} processor seconds; {', '.join(WORK)} are "
        f"{share:.0%} of the time.\n\n{table(['stage', 's', 'parts, s'], rows)}\n\n{idle}"
    )


def nothing_to_do(full: Path, repeats: int) -> str:
    """`dvc repro` with nothing to do, and `dvc status` of a pipeline with no stage, in turns."""
    with tempfile.TemporaryDirectory() as other:
        empty = Path(other)
        run(empty, "git", "init", "--quiet")
        run(empty, "dvc", "init", "--quiet")
        (empty / "dvc.yaml").write_text("stages: {}\n")
        figures: dict[str, list[tuple[float, float]]] = {"dvc repro": [], "dvc status, empty": []}
        for _ in range(repeats + 1):
            for name, (place, command) in {
                "dvc repro": (full, "repro"),
                "dvc status, empty": (empty, "status"),
            }.items():
                before, began = processor_of_children(), time.perf_counter()
                run(place, "dvc", command)
                figures[name].append((time.perf_counter() - began, processor_of_children() - before))
    middle = {name: [median(c) for c in zip(*taken[1:], strict=True)] for name, taken in figures.items()}
    base = middle["dvc status, empty"]
    rows = [
        [name, f"{wall:.2f}", f"{wall / base[0]:.2f}", f"{processor:.2f}", f"{processor / base[1]:.2f}"]
        for name, (wall, processor) in middle.items()
    ]
    return f"### Nothing to do\n\n{table(['', 's', '/ empty', 'processor s', '/ empty'], rows)}\n"


def parts(said: str) -> dict[str, dict[str, float]]:
    """Where each stage says its seconds went."""
    return {
        stage: {part: float(seconds) for part, seconds in re.findall(r"([\w-]+) ([\d.]+)", spent)}
        for stage, _, spent in LINE.findall(said)
    }


def processor_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run(folder: Path, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "DVC_", "GIT_"))}
    path = f"{OURS.parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command, cwd=folder, text=True, stdout=subprocess.PIPE, check=False, env=inherited | {"PATH": path}
    )
    if check and done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}")
    return done


def clone(folder: Path) -> None:
    """The last commit, with nothing that DVC has made."""
    subprocess.run(["git", "clone", "--quiet", "--shared", str(ROOT), str(folder)], check=True)


def project(folder: Path, changes: dict[str, dict[str, Any]] | None = None) -> None:
    """A folder with the last commit's parameters, some of them changed, and validated data."""
    if not (folder / "params.yaml").exists():
        clone(folder)
    yaml = YAML()
    params = yaml.load(folder / "params.yaml")
    for section, values in (changes or {}).items():
        params[section] |= values
    yaml.dump(params, folder / "params.yaml")
    mirror = os.environ.get("DATASET_MIRROR", "")
    if mirror and "://" not in mirror:
        os.environ["DATASET_MIRROR"] = str(Path(mirror).resolve())
    run(folder, "dvc", "repro", "validate")


SECTIONS: dict[str, Callable[[Path, int], str]] = {
    section.__name__: section for section in (training, search, growth, mnist, stages)
}


def machine() -> str:
    facts = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    name = next(
        (line.split(": ")[1] for line in facts.splitlines() if line.startswith("model name")), platform.machine()
    )
    special = [flag for flag in ("avx512f", "avx512_bf16", "amx_bf16") if f" {flag} " in facts]
    load = os.getloadavg()[0]
    return f"{name}, {os.cpu_count()} cores, {', '.join(special)}; {load:.1f} processes wanted to run at the start"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS), help="sections to run")
    parser.add_argument("--repeats", type=int, default=5, help="turns that each contender has, beside the first")
    arguments = parser.parse_args()
    commit = run(ROOT, "git", "rev-parse", "--short", "HEAD").stdout.strip()
    with tempfile.TemporaryDirectory() as folder:
        project(Path(folder))
        for name in arguments.only:
            about = f"<!-- {name} -->\n{date.today()}, commit {commit}, {machine()}; {arguments.repeats} repeats.\n"
            keep(name, f"{about}\n{SECTIONS[name](Path(folder), arguments.repeats)}")


def keep(name: str, text: str) -> None:
    """Put a section into RESULTS.md in place of its predecessor."""
    title = "# Speed\n\nWritten by `make bench`; docs/speed.md says how to read it.\n"
    old = RESULTS.read_text() if RESULTS.exists() else title
    parts = {found: body for found, body in re.findall(r"(?ms)^<!-- (\w+) -->$(.*?)(?=^<!-- |\Z)", old)}
    parts[name] = text.removeprefix(f"<!-- {name} -->")
    sections = [f"<!-- {key} -->{parts[key].rstrip()}\n" for key in SECTIONS if key in parts]
    RESULTS.write_text("\n".join([title, *sections]))


if __name__ == "__main__":
    main()
