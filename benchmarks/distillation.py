"""Distil the networks that `make mnist` trained with several seeds into one:  python -m benchmarks.distillation

  python -m benchmarks.distillation --folder .bench/mnist --seeds 3

A student has the network, settings and images of its teachers, and a seed of its own. For each augmented image it
learns the mean probabilities of all teachers instead of the label (Beyer et al.: Knowledge distillation: a good teacher
is patient and consistent, arXiv:2106.05237). Errors are counted on the validation images; no test image is read.
Finished students are kept in benchmarks/distillation.csv and not repeated, so remove it before you distil other
teachers; the table of docs/recipe.md is written from them.
"""
# ruff: noqa: E402  load_tensorflow has to come before what imports TensorFlow

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.runtime.startup import load_tensorflow

load_tensorflow()

import keras
import tensorflow as tf

from benchmarks import mnist, recipe
from benchmarks.mnist_errors import load_seeds
from benchmarks.project import ROOT
from pipeline.core import atomic, command, config, dataset
from pipeline.core.dataset import TrainingData
from pipeline.core.paths import Paths
from pipeline.report import markers
from pipeline.runtime import device
from pipeline.runtime.predictor import predictor
from pipeline.runtime.scores import scores
from pipeline.train import loss, networks
from pipeline.train.batches import TrainingBatches
from pipeline.train.callbacks import History
from pipeline.train.fit import STEPS_PER_EXECUTION, Averages
from pipeline.train.monitor import Monitor
from pipeline.train.optimizer import optimizer
from pipeline.train.task import FitSpec

ROWS = ROOT / "benchmarks" / "distillation.csv"
BEGIN, END = "<!-- distillation: written by benchmarks/distillation.py -->", "<!-- end of distillation -->"
FIRST = 1001  # the seed of the first student; those of the teachers are others


def student(spec: FitSpec, data: TrainingData, teachers: list[keras.Model]) -> keras.Model:
    """Train a network on the mean probabilities of its teachers."""
    settings, classes = spec.network.fit, len(data.info.classes)

    def taught(images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, Any]:
        outputs: list[Any] = [teacher(images, training=False) for teacher in teachers]
        return images, tf.add_n([tf.cast(output, tf.float32) for output in outputs]) / len(teachers)

    keras.utils.set_random_seed(spec.seed)
    batches = TrainingBatches(data.train, classes, settings.batch_size, spec.seed, settings.augmentation)
    model = networks.build(spec, data.info)
    model.compile(
        optimizer=optimizer(settings, batches.steps, model.trainable_variables),
        loss=loss.loss(spec.network),
        steps_per_execution=STEPS_PER_EXECUTION,
        jit_compile=False,
    )
    monitor = Monitor(f"student, seed {spec.seed}")
    monitor.on_begin(settings.epochs)
    model.fit(
        batches.dataset.map(taught).prefetch(4),
        epochs=settings.epochs,
        callbacks=[Averages(), History(batches.epoch, monitor)],
        shuffle=False,
        verbose=0,
    )
    monitor.on_end()
    return networks.for_inference(model, spec, data.info)


def row(kind: str, seed: int, outputs: np.ndarray, labels: np.ndarray, seconds: float) -> dict[str, Any]:
    found = scores(outputs, labels)
    errors = round((1 - found.accuracy) * len(labels))
    return {"kind": kind, "seed": seed, "errors": errors, "loss": found.loss, "processor_seconds": round(seconds)}


def table(rows: pd.DataFrame, caption: str) -> str:
    """Markdown: the teachers, their mean, and the students."""
    lines = ["| | validation errors | mean | validation loss | CPU minutes |", "|---|---|---|---|---|"]
    for kind, found in rows.groupby("kind", sort=False):
        errors, minutes = found["errors"], found["processor_seconds"].mean() / 60
        lines.append(
            f"| {kind} | {', '.join(map(str, errors))} | {errors.mean():.1f} | {found['loss'].mean():.4f} "
            f"| {f'{minutes:.1f}' if minutes else ''} |"
        )
    return "\n".join(lines) + f"\n\n{caption}\n"


def run(arguments: argparse.Namespace) -> None:
    paths = Paths(arguments.folder)
    params = config.load(paths)
    used = device.start(params.runtime)
    data = dataset.load_training(paths)
    teachers, validation = load_seeds(paths, params, "recipe"), data.validation
    rows = pd.read_csv(ROWS) if ROWS.exists() else pd.DataFrame(columns=["kind", "seed"])
    known = rows[rows["kind"] == "students"].to_dict("records")
    outputs = np.stack([predictor(teacher)(validation.images) for teacher in teachers])
    alone = [row("teachers", number, each, validation.labels, 0) for number, each in enumerate(outputs)]
    alone.append(row("mean of the teachers", 0, outputs.mean(axis=0), validation.labels, 0))
    for seed in range(FIRST, FIRST + arguments.seeds):
        if seed in {each["seed"] for each in known}:
            continue
        began = time.process_time()
        model = student(FitSpec(params.network("recipe"), seed, used.precision), data, teachers)
        seconds = time.process_time() - began
        known.append(row("students", seed, predictor(model)(validation.images), validation.labels, seconds))
        with atomic.file(ROWS) as part:
            pd.DataFrame([*alone, *known]).to_csv(part, index=False)
    caption = f"{len(data.train.labels):,} training and {len(validation.labels):,} validation images; {used.name}."
    text = table(pd.DataFrame([*alone, *known]), caption)
    print(text)
    markers.write(recipe.DOCUMENT, BEGIN, END, text)


def main() -> None:
    parser = command.parser(__doc__)
    parser.add_argument("--folder", type=Path, default=mnist.FOLDER, help="where `make mnist` ran")
    parser.add_argument("--seeds", type=int, default=3, help="the number of students")
    command.main(run, parser)


if __name__ == "__main__":
    main()
