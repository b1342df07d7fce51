"""Train and test the network `recipe` of models/gallery.yaml with several seeds:  python -m benchmarks.recipe

  DATASET_MIRROR=../shared/datasets python -m benchmarks.recipe --seeds 5
  python -m benchmarks.recipe --epochs 1 --file try.csv       # leaves recipe.csv and docs/recipe.md alone

Every seed is validated, trained and scored as `dvc repro` would with that `seed` in params.yaml. The test images are
scored once per seed, after the last epoch. Finished seeds are kept in benchmarks/recipe.csv and not repeated; the table
of docs/recipe.md is written from them.
"""
# ruff: noqa: E402  load_tensorflow has to come before what imports TensorFlow

import argparse
import io
import time
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.project import ROOT, create, mirror, yaml
from pipeline.runtime.startup import load_tensorflow

load_tensorflow()

from models import architecture
from pipeline.core import atomic, command, config, dataset, provenance
from pipeline.core.errors import DataError
from pipeline.core.paths import Paths
from pipeline.core.records import Counts, Device
from pipeline.download.download import download
from pipeline.report import markers
from pipeline.runtime import device
from pipeline.runtime.predictor import predictor
from pipeline.runtime.scores import scores
from pipeline.train.fit import fit
from pipeline.train.monitor import Monitor
from pipeline.train.task import FitSpec
from pipeline.validate.validate import validate

NAME = "recipe"
# Nearly every image is trained on: validation chooses nothing any more.
DATA = {"dataset": "mnist", "validation_fraction": 0.02, "limit": None}
ROWS, DOCUMENT = ROOT / "benchmarks" / "recipe.csv", ROOT / "docs" / "recipe.md"
BEGIN, END = "<!-- table: written by benchmarks/recipe.py -->", "<!-- end of table -->"


def block(settings: dict[str, Any]) -> dict[str, Any]:
    """The recipe of the gallery, with some training settings replaced."""
    recipe = yaml.load(ROOT / "models" / "gallery.yaml")[NAME]
    return recipe | {"fit": recipe["fit"] | settings}


def project(folder: Path, seed: int, data: dict[str, Any], settings: dict[str, Any]) -> Paths:
    """A project folder whose params.yaml has the recipe among its networks."""
    bounds = {"min_images_per_class": 1}  # the validation split is small on purpose
    return create(folder, {"seed": seed, "data": data, "validate": bounds, "models": {NAME: block(settings)}})


def digest(data: dict[str, Any], settings: dict[str, Any]) -> str:
    """Digest of everything that a row of the table follows from, except its seed."""
    return provenance.digest(block(settings), data)


def measure(paths: Paths, used: Device) -> dict[str, Any]:
    """Validate, train and score one seed; return its row."""
    params = config.load(paths)
    network = params.network(NAME)
    with redirect_stdout(io.StringIO()):
        validate(params, config.load_catalog(paths)[params.data.dataset], paths)
    data = dataset.load_training(paths)
    began, cpu_began = time.perf_counter(), time.process_time()
    fitted = fit(FitSpec(network, params.seed, used.precision), data, Monitor(f"seed {params.seed}"))
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu_began
    test = dataset.load(paths, "test")
    result = scores(predictor(fitted.model)(test.images), test.labels)
    return {
        "seed": params.seed,
        "test_accuracy": result.accuracy,
        "test_loss": result.loss,
        "validation_accuracy": fitted.validation.accuracy,
        "parameters": Counts.of(architecture.trace(network, data.info.image, len(data.info.classes))).parameters,
        "train_images": data.info.images["train"],
        "test_images": data.info.images["test"],
        "seconds": round(seconds),
        "processor_seconds": round(cpu_seconds),
        "device": used.name,
        "precision": used.precision,
    }


def table(rows: pd.DataFrame) -> str:
    """Markdown: a row per seed, mean and standard deviation, images and device."""
    lines = [
        "| seed | test accuracy | test errors | test loss | minutes | CPU minutes |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows.to_dict("records"):
        errors = round((1 - row["test_accuracy"]) * row["test_images"])
        minutes = f"{row['seconds'] / 60:.1f} | {row['processor_seconds'] / 60:.1f}"
        lines.append(f"| {row['seed']} | {row['test_accuracy']:.2%} | {errors} | {row['test_loss']:.4f} | {minutes} |")
    mean = rows.mean(numeric_only=True)
    spread = f" ± {100 * rows['test_accuracy'].std():.2f}" if len(rows) > 1 else ""
    errors = ((1 - rows["test_accuracy"]) * rows["test_images"]).mean()
    lines.append(
        f"| mean{' ± standard deviation' if spread else ''} | {mean['test_accuracy']:.3%}{spread} | {errors:.1f} "
        f"| {mean['test_loss']:.4f} | {mean['seconds'] / 60:.1f} | {mean['processor_seconds'] / 60:.1f} |"
    )
    last = rows.iloc[-1]
    return (
        "\n".join(lines) + f"\n\n{last['parameters']:,} parameters; {last['train_images']:,} training and "
        f"{last['test_images']:,} test images; {last['device']}, {last['precision']}.\n"
    )


def finished(file: Path, wanted: str) -> pd.DataFrame:
    """Read the rows of finished seeds.

    Raises:
        DataError: they were made with other settings.
    """
    rows = pd.read_csv(file) if file.is_file() else pd.DataFrame(columns=["seed", "settings"])
    if set(rows["settings"]) - {wanted}:
        raise DataError(f"{file}: contains results of other settings; remove it, or choose another --file")
    return rows


def run(arguments: argparse.Namespace) -> None:
    """Run the seeds that are not finished, and print or write the table."""
    data = DATA | {"dataset": arguments.dataset, "limit": arguments.limit}
    settings = {"epochs": arguments.epochs} if arguments.epochs else {}
    folder = ROOT / ".cache" / NAME
    paths, wanted = project(folder, 1, data, settings), digest(data, settings)
    rows = finished(arguments.file, wanted)
    download(arguments.dataset, config.load_catalog(paths)[arguments.dataset], paths, mirror())
    used = device.start(config.load(paths).runtime)
    for seed in range(1, arguments.seeds + 1):
        if seed in set(rows["seed"]):
            continue
        row = measure(project(folder, seed, data, settings), used) | {"settings": wanted}
        rows = pd.DataFrame([*rows.to_dict("records"), row]).sort_values("seed")
        with atomic.file(arguments.file) as part:
            rows.to_csv(part, index=False)
    print(table(rows))
    if arguments.file == ROWS:
        markers.write(DOCUMENT, BEGIN, END, table(rows))


def main() -> None:
    parser = command.parser(__doc__)
    parser.add_argument("--seeds", type=int, default=5, help="train with the seeds from 1 to this one")
    parser.add_argument("--dataset", default=DATA["dataset"], help="an entry of data/catalog.yaml")
    parser.add_argument("--limit", type=int, help="the maximum number of images")
    parser.add_argument("--epochs", type=int, help="instead of the recipe's")
    parser.add_argument("--file", type=Path, default=ROWS, help="where finished seeds are kept")
    command.main(run, parser)


if __name__ == "__main__":
    main()
