"""Measure the search of params.yaml on test images, against its base and another search:

  python -m benchmarks.default_search --seeds 10 --other 6471b17      # the `tune` section of that commit
  python -m benchmarks.default_search --seeds 1 --other tune.yaml --file try.csv

Each seed has its own split, weights, trials and finalists: the data is validated, the base trained and `pipeline.tune`
run as `dvc repro` would with that `seed`. The test images are scored once per network. Finished rows are kept in
benchmarks/default_search.csv and not repeated; the table of docs/search.md is written from them. A search takes three
CPU minutes.
"""
# ruff: noqa: E402  load_tensorflow has to come before what imports TensorFlow

import argparse
import io
import os
import resource
import subprocess
import sys
import tempfile
from contextlib import redirect_stdout
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from benchmarks.project import ROOT, create, mirror, yaml
from pipeline.runtime.startup import load_tensorflow

load_tensorflow()

import keras

from pipeline.core import atomic, command, config, dataset, provenance, records
from pipeline.core.config import Params
from pipeline.core.errors import DataError
from pipeline.core.paths import TUNED, Paths
from pipeline.core.records import Device
from pipeline.download.download import download
from pipeline.report import markers
from pipeline.runtime import device, saved_model
from pipeline.runtime.predictor import predictor
from pipeline.runtime.scores import scores
from pipeline.train.fit import fit
from pipeline.train.task import FitSpec
from pipeline.validate.validate import validate

BASE, NEW = "base", "params.yaml"
ROWS, DOCUMENT = ROOT / "benchmarks" / "default_search.csv", ROOT / "docs" / "search.md"
BEGIN, END = "<!-- table: written by benchmarks/default_search.py -->", "<!-- end of table -->"

Section = dict[str, Any]


def section(source: str) -> Section:
    """The section `tune` of a YAML file, or of params.yaml in a revision.

    Raises:
        DataError: there is no such file or revision.
    """
    file = Path(source)
    text = file.read_text("utf-8") if file.is_file() else provenance.file_at(ROOT, source, Path("params.yaml"))
    if text is None:
        raise DataError(f"{source}: neither a file nor a revision of this repository")
    return yaml.load(text)["tune"]


def prepare(paths: Paths, params: Params) -> None:
    """Download and validate the data."""
    entry = config.load_catalog(paths)[params.data.dataset]
    with redirect_stdout(io.StringIO()):
        download(params.data.dataset, entry, paths, mirror())
        validate(params, entry, paths)


def digest(params: Params, name: str) -> str:
    """Digest of everything that a row follows from, except its seed and the code."""
    parts = [params.data, params.base, params.runtime, *([] if name == BASE else [params.search])]
    return provenance.digest(*(part.model_dump(mode="json") for part in parts))


def test_scores(model: keras.Model, paths: Paths) -> Section:
    """Accuracy and loss on the test images."""
    test = dataset.load(paths, "test")
    found = scores(predictor(model)(test.images), test.labels)
    return {"test_accuracy": found.accuracy, "test_loss": found.loss}


def base_row(params: Params, paths: Paths, used: Device) -> Section:
    """Train and score the base network."""
    fitted = fit(FitSpec(params.base, params.seed, used.precision), dataset.load_training(paths))
    return test_scores(fitted.model, paths) | {"device": used.name, "precision": used.precision}


def search_row(params: Params, paths: Paths) -> Section:
    """Search, and score the winner."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-m", "pipeline.tune"], cwd=paths.root, env=environment, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    record, search = records.load_training(paths, TUNED), records.load_search(paths)
    assert search
    winner = pd.read_csv(paths.search / "trials.csv").set_index("trial").loc[search.winner]
    return (
        test_scores(saved_model.load(paths.model(TUNED), record.sha256), paths)
        | {
            "winner": search.winner,  # 0: the base
            "values": "; ".join(f"{name} {value}" for name, value in winner.iloc[4:].dropna().items()),
            "processor_seconds": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime),
            "device": record.device.name,
            "precision": record.device.precision,
        }
    )


def interval(differences: np.ndarray, digits: int) -> str:
    """The mean of paired differences and its 95 % interval by Student's t."""
    mean = f"{differences.mean():+.{digits}f}"
    if len(differences) < 2 or not np.ptp(differences):
        return mean
    low, high = stats.ttest_1samp(differences, 0).confidence_interval()
    return f"{mean} ({low:+.{digits}f} to {high:+.{digits}f})"


def table(rows: pd.DataFrame) -> str:
    """Markdown: the base, then each search with its differences from the base, paired by seed."""
    networks = {name: found.set_index("seed") for name, found in rows.groupby("search", sort=False)}
    base = networks.pop(BASE)
    lines = [
        "| | test accuracy | test loss | accuracy - that of the base, points | loss - that of the base "
        "| seeds with another network | CPU s of the search |",
        "|---|---|---|---|---|---|---|",
        f"| {BASE} | {base['test_accuracy'].mean():.2%} | {base['test_loss'].mean():.4f} | | | | |",
    ]
    for name, found in networks.items():
        means = f"{found['test_accuracy'].mean():.2%} | {found['test_loss'].mean():.4f}"
        accuracy = interval(100 * (found["test_accuracy"] - base["test_accuracy"]).to_numpy(), 2)
        loss = interval((found["test_loss"] - base["test_loss"]).to_numpy(), 4)
        others, cpu = int((found["winner"] > 0).sum()), found["processor_seconds"].mean()
        lines.append(f"| {name} | {means} | {accuracy} | {loss} | {others} of {len(found)} | {cpu:.0f} |")
    last = base.iloc[-1]
    return "\n".join(lines) + f"\n\n{len(base)} seeds; {last['device']}, {last['precision']}.\n"


def run(arguments: argparse.Namespace) -> None:
    """Measure what is not finished, and print or write the table."""
    current = section(str(ROOT / "params.yaml"))
    searches = {BASE: current, **({arguments.other: section(arguments.other)} if arguments.other else {}), NEW: current}
    rows = pd.read_csv(arguments.file) if arguments.file.is_file() else pd.DataFrame(columns=["seed", "settings"])
    shown: list[Section] = []
    used: Device | None = None
    for seed, (name, tune) in product(range(1, arguments.seeds + 1), searches.items()):
        with tempfile.TemporaryDirectory() as folder:
            paths = create(Path(folder), {"seed": seed, "tune": tune})
            params = config.load(paths)
            key = {"seed": seed, "settings": digest(params, name)}
            used = used or device.start(params.runtime)  # before a network is scored
            known = rows[(rows["seed"] == seed) & (rows["settings"] == key["settings"])].to_dict("records")
            if not known:
                prepare(paths, params)
                found = base_row(params, paths, used) if name == BASE else search_row(params, paths)
                known = [{"search": name, **key, **found}]
                rows = pd.DataFrame([*rows.to_dict("records"), *known])
                with atomic.file(arguments.file) as part:
                    rows.to_csv(part, index=False)
            shown.append(known[0] | {"search": name})
    text = table(pd.DataFrame(shown))
    print(text)
    if arguments.file == ROWS:
        markers.write(DOCUMENT, BEGIN, END, text)


def main() -> None:
    parser = command.parser(__doc__)
    parser.add_argument("--seeds", type=int, default=10, help="measure with the seeds from 1 to this one")
    parser.add_argument("--other", help="another search: a YAML file with a section `tune`, or a revision")
    parser.add_argument("--file", type=Path, default=ROWS, help="where finished rows are kept")
    command.main(run, parser)


if __name__ == "__main__":
    main()
