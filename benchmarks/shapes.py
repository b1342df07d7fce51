"""A small dataset: 600 pictures of four shapes, trained with several settings and seeds.

  python -m benchmarks.shapes [--seeds 5] [--variants default light]

Circles, squares, triangles and crosses of random size, place, angle, grey levels and noise, 28x28. Every seed has its
own split, weights and order of the batches, as with `seed` in params.yaml. Prints the accuracy of each variant on 2,000
further pictures, and its difference from the first variant, paired by seed.
"""
# ruff: noqa: E402  load_tensorflow has to come before what imports TensorFlow

import argparse
import hashlib
import io
import time
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.project import ROOT, create, yaml
from pipeline.runtime.startup import load_tensorflow

load_tensorflow()

from pipeline.core import command, config, dataset
from pipeline.core.paths import Paths
from pipeline.core.records import Device
from pipeline.download.download import download
from pipeline.evaluate import baselines, significance
from pipeline.runtime import device
from pipeline.runtime.predictor import predictor
from pipeline.runtime.scores import scores
from pipeline.train.fit import fit
from pipeline.train.task import FitSpec
from pipeline.validate.validate import validate

NAME, SIDE, IMAGES = "shapes", 28, 600
CLASSES = ("circle", "cross", "square", "triangle")
FINE = 4  # points along each side of a pixel, whose mean is the pixel
SCORED = 2000  # further pictures
LINEAR = "linear classifier"


def small(**normalization: Any) -> dict[str, Any]:
    """A network of three convolutions, with 16, 32 and 64 filters and normalization after each."""
    blocks: list[dict[str, Any]] = [{"filters": [width], **normalization} for width in (16, 32, 64)]
    blocks[-1]["pooling"] = {"kind": "none"}
    return {"blocks": blocks, "head": {"pooling": "global_average"}}


BATCH, GROUP = small(batch_norm=True), small(normalization={"kind": "group", "groups": 4})
STEPS = {"epochs": 40, "batch_size": 16}
LIGHT = STEPS | {"augmentation": "light"}
# None: the network model_2 of params.yaml.
VARIANTS: dict[str, tuple[dict[str, Any] | None, dict[str, Any]]] = {
    "default": (None, {}),
    "steps": (None, STEPS),
    "light": (None, LIGHT),
    "small": (BATCH, {}),
    "small_light": (BATCH, LIGHT),
    "group": (GROUP, {}),
    "group_steps": (GROUP, STEPS),
    "group_light": (GROUP, LIGHT),
}


def shapes(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Pictures of shapes, uint8 (n, SIDE, SIDE), and labels, as many of each class."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % len(CLASSES)
    return np.stack([picture(CLASSES[label], rng) for label in labels]), labels


def picture(shape: str, rng: np.random.Generator) -> np.ndarray:
    """A shape of random size, place, angle and grey level on a ground of another, with noise."""
    radius = rng.uniform(4.5, 10)
    centre = rng.uniform(radius, SIDE - radius, 2)
    angle = rng.uniform(0, 2 * np.pi)
    ground, ink = rng.permutation([rng.uniform(0, 100), rng.uniform(140, 255)])
    points = (np.arange(SIDE * FINE) + 0.5) / FINE
    y, x = np.meshgrid(points - centre[0], points - centre[1], indexing="ij")
    x, y = (np.cos(angle) * x - np.sin(angle) * y) / radius, (np.sin(angle) * x + np.cos(angle) * y) / radius
    inside = {
        "circle": x**2 + y**2 < 0.8**2,
        "square": np.maximum(abs(x), abs(y)) < 0.7,
        "triangle": (y > -0.5) & (abs(x) * np.sqrt(3) < 1 - y),
        "cross": (np.minimum(abs(x), abs(y)) < 0.25) & (np.maximum(abs(x), abs(y)) < 0.9),
    }[shape]
    share = inside.reshape(SIDE, FINE, SIDE, FINE).mean(axis=(1, 3))
    noise = rng.normal(0, rng.uniform(5, 25), share.shape)
    return np.clip(np.rint(ground + share * (ink - ground) + noise), 0, 255).astype(np.uint8)


def project(folder: Path, seed: int) -> Paths:
    """A project folder with the pictures as a dataset, and the networks to train."""
    default = yaml.load(ROOT / "params.yaml")["models"]["model_2"]
    entry = {"description": "shapes", "image": [SIDE, SIDE, 1], "classes": list(CLASSES), "format": "npz"}
    entry |= {"sources": [str(folder)], "files": {"arrays": {"name": f"{NAME}.npz"}}}
    models = {name: (network or default) | {"fit": settings} for name, (network, settings) in VARIANTS.items()}
    changes = {"seed": seed, "data": {"dataset": NAME}, "validate": {"min_images_per_class": 5}, "models": models}
    paths = create(folder, changes | {"tune": None, "grid": {"base": "default"}}, {NAME: entry})
    images, labels = shapes(IMAGES, 0)
    np.savez(folder / f"{NAME}.npz", x_train=images, y_train=labels)
    return paths


def measure(paths: Paths, names: list[str], used: Device) -> list[dict[str, Any]]:
    """Train and score the variants, and the linear classifier; return a row for each."""
    params = config.load(paths)
    with redirect_stdout(io.StringIO()):
        validate(params, config.load_catalog(paths)[NAME], paths)
    data, (images, labels) = dataset.load_training(paths), shapes(SCORED, 1)
    images = images[..., None]
    linear = baselines.fit(data.train, len(CLASSES), params.seed)[baselines.LINEAR](images)
    rows = []
    for name in (LINEAR, *names):
        probabilities, seconds = linear, 0.0
        if name != LINEAR:
            began = time.process_time()
            fitted = fit(FitSpec(params.network(name), params.seed, used.precision), data)
            seconds = time.process_time() - began
            probabilities = predictor(fitted.model)(images)
        classes = probabilities.argmax(axis=1)
        accuracy = scores(probabilities, labels).accuracy
        predictions = hashlib.sha256(classes.tobytes()).hexdigest()
        rows.append({"model": name, "seed": params.seed, "accuracy": accuracy, "predictions": predictions})
        print(f"seed {params.seed}, {name}: {accuracy:.1%} in {seconds:.0f} s of processor time", flush=True)
    return rows


def run(arguments: argparse.Namespace) -> None:
    """Train every variant with every seed, and print the tables."""
    folder = ROOT / ".cache" / NAME
    paths = project(folder, 1)
    with redirect_stdout(io.StringIO()):
        download(NAME, config.load_catalog(paths)[NAME], paths)
    used = device.start(config.load(paths).runtime)
    rows = []
    for seed in range(1, arguments.seeds + 1):
        rows += measure(project(folder, seed), arguments.variants, used)
    table = pd.DataFrame(rows)
    spread = table.groupby("model", sort=False)["accuracy"].agg(["mean", "std"])
    print((100 * spread).round(1).to_string())
    pairs = significance.compare_seeds(table)
    columns = ["pair", "difference", "low", "high", "p_adjusted"]
    print(pairs[pairs["a"].isin((LINEAR, arguments.variants[0]))][columns].round(3).to_string(index=False))


def main() -> None:
    parser = command.parser(__doc__)
    parser.add_argument("--seeds", type=int, default=5, help="train with the seeds from 1 to this one")
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=VARIANTS, help="the settings to train")
    command.main(run, parser)


if __name__ == "__main__":
    main()
