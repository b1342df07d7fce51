"""Train variants of the recipe, and compare them on validation images:  python -m benchmarks.recipe_variants

  DATASET_MIRROR=../shared/datasets python -m benchmarks.recipe_variants --seeds 3 --variants recipe constant clean

Every seed has its own split into 50,000 training and 10,001 validation images, weights, batch order, dropout and
augmentation; variants are compared within seeds. No test image is read. Finished fits are kept in
benchmarks/recipe_variants.csv and not repeated; the table of docs/recipe.md is written from them.
"""
# ruff: noqa: E402  load_tensorflow has to come before what imports TensorFlow

import argparse
import io
import time
from contextlib import redirect_stdout
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from benchmarks import recipe
from benchmarks.project import ROOT, create, mirror
from pipeline.runtime.startup import load_tensorflow

load_tensorflow()

from pipeline.core import atomic, command, config, dataset
from pipeline.core.dataset import Split, TrainingData
from pipeline.core.paths import Paths
from pipeline.core.records import Device
from pipeline.download.download import download
from pipeline.evaluate.significance import seeds_interval
from pipeline.report import markers
from pipeline.runtime import device
from pipeline.runtime.predictor import predictor
from pipeline.runtime.scores import scores
from pipeline.train import networks
from pipeline.train.fit import fit
from pipeline.train.monitor import Monitor
from pipeline.validate import label_errors, near_duplicates
from pipeline.validate.validate import validate

DATA = {"dataset": "mnist", "validation_fraction": 1 / 6, "limit": None}
ROWS = ROOT / "benchmarks" / "recipe_variants.csv"
BEGIN, END = "<!-- variants: written by benchmarks/recipe_variants.py -->", "<!-- end of variants -->"
BASE = "recipe"
DOUBTED = -0.5  # the margin of a label below which `validate` warns, as in params.yaml


@dataclass(frozen=True)
class Variant:
    """Changes to a network of the gallery: its keys, and those of its `fit`.

    `clean`: leave out the training images with doubted labels.
    """

    description: str
    name: str = BASE
    network: dict[str, Any] = field(default_factory=dict)
    fit: dict[str, Any] = field(default_factory=dict)
    clean: bool = False

    def block(self) -> dict[str, Any]:
        return recipe.block(self.name, self.fit) | self.network


def unit(filters: int, repeat: int, stride: int) -> dict[str, Any]:
    """Residual units of two convolutions; the first halves the sides if `stride` is 2."""
    common = {"kernel_initializer": "he_normal", "pooling": {"kind": "none"}}
    common |= {"normalization": {"kind": "batch", "place": "convolution"}}
    return {"filters": [filters, filters], "residual": True, "repeat": repeat, "stride": stride, **common}


def later() -> list[dict[str, Any]]:
    """The recipe's blocks, with the maps of the second kept at 12x12: pooling comes later."""
    blocks = recipe.block(BASE, {})["blocks"]
    return [blocks[0], blocks[1] | {"padding": "same"}, blocks[2] | {"filters": [128, 128]}]


COLUMN = {"arguments": {"columns": ["residual"]}}
ALONE = {"epochs": 32, "batch_size": 128, "learning_rate": 0.1, "l2": 1e-4}
PLAIN = {"arguments": {"columns": ["plain"] * 4, "angle": 8}}
FOUR = {"epochs": 80, "batch_size": 512, "learning_rate": 0.2, "l2": 0.0}
VARIANTS = {
    BASE: Variant("the recipe"),
    "constant": Variant(
        "constant learning rate 0.05, weights averaged with the same decay",
        fit={"schedule": "constant"},
    ),
    "clean": Variant("trained without the images whose labels `validate` doubts", clean=True),
    "later": Variant("`same` padding in the second block, 128 filters in the third", network={"blocks": later()}),
    "residual": Variant(
        "residual network, units of 16, 32, 64 and 128 filters",
        network={
            "blocks": [unit(16, 1, 1), unit(32, 1, 2), unit(64, 2, 2), unit(128, 2, 2)],
            "head": {"pooling": "global_average", "dropout": 0.3},
        },
    ),
    "column": Variant("a column of `multi_column` alone, without rotated views", "multi_column", COLUMN, ALONE),
    "multi_column": Variant("`multi_column`: two residual columns, with rotated views", "multi_column"),
    "plain": Variant("four columns without shortcuts, 20 epochs each, with rotated views", "multi_column", PLAIN, FOUR),
}


def cleaned(data: TrainingData, seed: int) -> TrainingData:
    """Without the training images whose labels look wrong to the classifier of `validate`."""
    spectrum = near_duplicates.frequencies(np.asarray(data.train.images))
    margins, _ = label_errors.margins(spectrum, data.train.labels, len(data.info.classes), seed)
    kept = ~(margins < DOUBTED)
    return replace(data, train=Split(data.train.images[kept], data.train.labels[kept]))


def measure(paths: Paths, name: str, used: Device) -> dict[str, Any]:
    """Train a variant; return its row."""
    params, data = config.load(paths), dataset.load_training(paths)
    if VARIANTS[name].clean:
        data = cleaned(data, params.seed)
    network = params.network(name)
    began = time.process_time()
    spec = recipe.specification(network, params.seed, used, paths)
    fitted = fit(spec, data, Monitor(f"{name}, seed {params.seed}"))
    seconds = time.process_time() - began
    found = scores(predictor(fitted.model)(data.validation.images), data.validation.labels)
    return {
        "variant": name,
        "seed": params.seed,
        "errors": round((1 - found.accuracy) * len(data.validation.labels)),
        "loss": found.loss,
        "parameters": networks.counts(networks.layers(fitted.model, network), network, data.info).parameters,
        "train_images": len(data.train.labels),
        "validation_images": len(data.validation.labels),
        "processor_seconds": round(seconds),
        "device": used.name,
        "precision": used.precision,
    }


def table(rows: pd.DataFrame) -> str:
    """Markdown: a row per variant, with its differences from the recipe, paired by seed."""
    head = ["", "parameters", "validation errors", "difference", "validation loss", "difference", "CPU minutes"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    base = rows[rows["variant"] == BASE].set_index("seed")
    for name in (name for name in VARIANTS if name in set(rows["variant"])):
        found = rows[rows["variant"] == name].set_index("seed").sort_index()
        cells = [VARIANTS[name].description, f"{found['parameters'].iloc[0]:,}"]
        for column, digits in (("errors", 1), ("loss", 4)):
            mean = f"{found[column].mean():.{digits}f}"
            listed = f" ({', '.join(map(str, found[column]))})" if column == "errors" else ""
            cells += [mean + listed, "" if name == BASE else difference(found[column] - base[column], digits)]
        cells.append(f"{found['processor_seconds'].mean() / 60:.1f}")
        lines.append(f"| {' | '.join(cells)} |")
    last = rows.iloc[-1]
    return (
        "\n".join(lines) + f"\n\nMeans over seeds, and differences from the recipe, paired by seed, with 95 % "
        f"intervals; {rows['train_images'].max():,} training and {last['validation_images']:,} validation images; "
        f"{last['device']}, {last['precision']}.\n"
    )


def difference(values: pd.Series, digits: int) -> str:
    """The mean with its interval, over the seeds that both have."""
    values = values.dropna()
    if len(values) < 2:
        return f"{values.mean():+.{digits}f}"
    low, high = seeds_interval(values.to_numpy(), 0.95)
    return f"{values.mean():+.{digits}f} ({low:+.{digits}f} to {high:+.{digits}f})"


def digest(name: str) -> str:
    """Digest of everything that a row follows from, except its seed."""
    return recipe.digest(VARIANTS[name].block(), DATA, VARIANTS[name].clean)


def run(arguments: argparse.Namespace) -> None:
    """Train what is not finished, and write the table."""
    folder = ROOT / ".cache" / "recipe_variants"
    models = {name: VARIANTS[name].block() for name in arguments.variants}
    rows = pd.read_csv(ROWS) if ROWS.exists() else pd.DataFrame(columns=["variant", "seed", "settings"])
    for seed in range(1, arguments.seeds + 1):
        done = set(zip(rows["variant"], rows["seed"], rows["settings"], strict=True))
        wanted = [name for name in arguments.variants if (name, seed, digest(name)) not in done]
        if not wanted:
            continue
        paths = create(folder, {"seed": seed, "data": DATA, "models": models})
        params, source = config.load(paths), config.load_catalog(paths)[DATA["dataset"]]
        with redirect_stdout(io.StringIO()):
            download(DATA["dataset"], source, paths, mirror())
            validate(params, source, paths)
        used = device.start(params.runtime)
        for name in wanted:
            row = measure(paths, name, used) | {"settings": digest(name)}
            others = rows[(rows["variant"] != name) | (rows["seed"] != seed)]
            rows = pd.DataFrame([*others.to_dict("records"), row])
            with atomic.file(ROWS) as part:
                rows.to_csv(part, index=False)
    print(table(rows))
    markers.write(recipe.DOCUMENT, BEGIN, END, table(rows))


def main() -> None:
    parser = command.parser(__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="train with the seeds from 1 to this one")
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=VARIANTS)
    command.main(run, parser)


if __name__ == "__main__":
    main()
