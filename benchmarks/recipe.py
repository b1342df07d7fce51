"""Train and test a network of models/gallery.yaml on MNIST with several seeds:  python -m benchmarks.recipe

  DATASET_MIRROR=../shared/datasets python -m benchmarks.recipe --network multi_column --seeds 5
  python -m benchmarks.recipe --epochs 1 --file try.csv       # leaves recipe.csv and docs/recipe.md alone

Every seed is validated, trained and scored as `dvc repro` would with that `seed` in params.yaml. The test images are
scored once per seed, after the last epoch. Finished seeds are kept in benchmarks/NETWORK.csv and not repeated; the
network's table of docs/recipe.md is written from them.
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

from models.own_code import FOLDER
from pipeline.core import atomic, command, config, dataset, own_files, provenance
from pipeline.core.config import AnyNetwork
from pipeline.core.errors import DataError
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
from pipeline.train.task import FitSpec
from pipeline.validate.validate import validate

# Nearly every image is trained on: validation chooses nothing any more.
DATA = {"dataset": "mnist", "validation_fraction": 0.02, "limit": None}
NETWORKS = ("recipe", "multi_column")
DOCUMENT = ROOT / "docs" / "recipe.md"
BEGIN, END = "<!-- {}: written by benchmarks/recipe.py -->", "<!-- end of {} -->"


def file(name: str) -> Path:
    """The file that keeps the finished seeds of a network."""
    return ROOT / "benchmarks" / f"{name}.csv"


def block(name: str, settings: dict[str, Any]) -> dict[str, Any]:
    """A network of the gallery, with some training settings replaced."""
    network = yaml.load(ROOT / "models" / "gallery.yaml")[name]
    return network | {"fit": network["fit"] | settings}


def project(folder: Path, name: str, seed: int, data: dict[str, Any], settings: dict[str, Any]) -> Paths:
    """A project folder whose params.yaml has the network among its own."""
    bounds = {"min_images_per_class": 1}  # the validation split is small on purpose
    models = {name: block(name, settings)}
    return create(folder, {"seed": seed, "data": data, "validate": bounds, "models": models})


def digest(network: dict[str, Any], *settings: Any) -> str:
    """Digest of everything that a row of the table follows from, except its seed: a network, its code, and the rest."""
    complete = network | {"fit": yaml.load(ROOT / "params.yaml")["fit"] | network["fit"]}
    files = own_files.digests(config.network_from(complete), ROOT / FOLDER)
    return provenance.digest(network, *settings, *([files] if files else []))


def specification(network: AnyNetwork, seed: int, used: Device, paths: Paths) -> FitSpec:
    """The specification of a fit, with the files of the network's own code."""
    files = {each: own_files.read(each, paths.own_networks) for each in own_files.names(network)}
    return FitSpec(network, seed, used.precision, files=files)


def measure(paths: Paths, name: str, used: Device) -> dict[str, Any]:
    """Validate, train and score one seed; return its row."""
    params = config.load(paths)
    network = params.network(name)
    with redirect_stdout(io.StringIO()):
        validate(params, config.load_catalog(paths)[params.data.dataset], paths)
    data = dataset.load_training(paths)
    began, cpu_began = time.perf_counter(), time.process_time()
    fitted = fit(specification(network, params.seed, used, paths), data, Monitor(f"{name}, seed {params.seed}"))
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu_began
    test = dataset.load(paths, "test")
    result = scores(predictor(fitted.model)(test.images), test.labels)
    return {
        "seed": params.seed,
        "test_accuracy": result.accuracy,
        "test_loss": result.loss,
        "validation_accuracy": fitted.validation.accuracy,
        "parameters": networks.counts(networks.layers(fitted.model, network), network, data.info).parameters,
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


def gain(rows: pd.DataFrame, others: pd.DataFrame, name: str) -> str:
    """The mean difference of test accuracy from that of another network, paired by seed, with its 95 % interval."""
    pairs = rows.merge(others, on="seed", suffixes=("", "_other"))
    differences = 100 * (pairs["test_accuracy"] - pairs["test_accuracy_other"]).to_numpy()
    if len(differences) < 2:
        return ""
    low, high = seeds_interval(differences, 0.95)
    return (
        f"\nAgainst `{name}`, paired by seed: {differences.mean():+.3f} pp of test accuracy "
        f"({low:+.3f} to {high:+.3f}, {len(differences)} seeds).\n"
    )


def text(name: str, rows: pd.DataFrame) -> str:
    """The table of a network and, behind the first network, its gain over that one."""
    base = NETWORKS[0]
    return table(rows) + (gain(rows, pd.read_csv(file(base)), base) if name != base else "")


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
    if arguments.against and not arguments.against.is_file():
        raise DataError(f"{arguments.against}: no such file; it has to contain finished seeds, as benchmarks/*.csv do")
    name, data = arguments.network, DATA | {"dataset": arguments.dataset, "limit": arguments.limit}
    settings = {"epochs": arguments.epochs} if arguments.epochs else {}
    kept, folder = arguments.file or file(name), ROOT / ".cache" / name
    paths, wanted = project(folder, name, 1, data, settings), digest(block(name, settings), data)
    rows = finished(kept, wanted)
    download(arguments.dataset, config.load_catalog(paths)[arguments.dataset], paths, mirror())
    used = device.start(config.load(paths).runtime)
    for seed in range(1, arguments.seeds + 1):
        if seed in set(rows["seed"]):
            continue
        row = measure(project(folder, name, seed, data, settings), name, used) | {"settings": wanted}
        rows = pd.DataFrame([*rows.to_dict("records"), row]).sort_values("seed")
        with atomic.file(kept) as part:
            rows.to_csv(part, index=False)
    print(text(name, rows))
    if arguments.against:
        print(gain(rows, pd.read_csv(arguments.against), arguments.against.stem))
    if kept == file(name):
        markers.write(DOCUMENT, BEGIN.format(name), END.format(name), text(name, rows))


def main() -> None:
    parser = command.parser(__doc__)
    parser.add_argument("--network", default=NETWORKS[0], choices=NETWORKS)
    parser.add_argument("--seeds", type=int, default=5, help="train with the seeds from 1 to this one")
    parser.add_argument("--dataset", default=DATA["dataset"], help="an entry of data/catalog.yaml")
    parser.add_argument("--limit", type=int, help="the maximum number of images")
    parser.add_argument("--epochs", type=int, help="instead of the network's")
    parser.add_argument("--file", type=Path, help="where finished seeds are kept; default: benchmarks/NETWORK.csv")
    parser.add_argument("--against", type=Path, help="also print the gain over the seeds that this file contains")
    command.main(run, parser)


if __name__ == "__main__":
    main()
