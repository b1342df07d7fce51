"""The network `recipe` of models/gallery.yaml, trained and tested with several seeds.

  DATASET_MIRROR=../shared/datasets python benchmarks/recipe.py [--seeds 5]

Every seed splits, trains and scores by itself, as `dvc repro` would with that `seed` in params.yaml. The test images
are looked at once per seed, after the last epoch. Finished seeds are kept in benchmarks/recipe.csv and not run again;
the table of docs/recipe.md is written from them. To try it without touching either:  --epochs 1 --file try.csv
"""

import argparse
import io
import os
import sys
import time
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pandas as pd
from ruamel.yaml import YAML

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from pipeline import atomic, config, markers, provenance, stage  # noqa: E402
from pipeline.download import download  # noqa: E402
from pipeline.errors import DataError  # noqa: E402
from pipeline.paths import Paths  # noqa: E402

NAME = "recipe"
# Nearly every image is trained on: nothing is chosen by validation any more.
DATA = {"dataset": "mnist", "validation_fraction": 0.02, "limit": None}
ROWS, DOCUMENT = ROOT / "benchmarks" / "recipe.csv", ROOT / "docs" / "recipe.md"
BEGIN, END = "<!-- table: written by benchmarks/recipe.py -->", "<!-- end of table -->"
yaml = YAML(typ="safe", pure=True)


def block(fit: dict[str, Any]) -> dict[str, Any]:
    """The recipe as it stands in the gallery, with these training settings over its own."""
    recipe = yaml.load(ROOT / "models" / "gallery.yaml")[NAME]
    return recipe | {"fit": recipe["fit"] | fit}


def project(folder: Path, seed: int, data: dict[str, Any], fit: dict[str, Any]) -> Paths:
    """A project folder whose params.yaml has the recipe among its networks."""
    params = yaml.load(ROOT / "params.yaml")
    params |= {"seed": seed, "data": params["data"] | data}
    params["validate"]["min_images_per_class"] = 1  # the validation split is small on purpose
    params["models"][NAME] = block(fit)
    (folder / "data").mkdir(parents=True, exist_ok=True)
    yaml.dump(params, folder / "params.yaml")
    atomic.write_text(folder / "data" / "catalog.yaml", (ROOT / "data" / "catalog.yaml").read_text(encoding="utf-8"))
    return Paths(folder)


def settings(data: dict[str, Any], fit: dict[str, Any]) -> str:
    """What a row of the table follows from, its seed apart, as a digest."""
    return provenance.digest(block(fit), data)


def measured(paths: Paths) -> dict[str, Any]:
    """One seed's row: split, train and score."""
    params = config.load(paths)
    from pipeline import runtime

    used = runtime.start(params.runtime)
    from pipeline import dataset, metrics, prediction, training, training_run, validation

    with redirect_stdout(io.StringIO()):
        validation.validate(params, config.load_catalog(paths)[params.data.dataset], paths)
    card, network = dataset.load_card(paths), params.models[NAME]
    train, held_back = dataset.load(paths, "train"), dataset.load(paths, "validation")
    began, worked = time.perf_counter(), time.process_time()
    fitted = training.fit(
        network, card, train, held_back, seed=params.seed, precision=used.precision, title=f"seed {params.seed}"
    )
    seconds, processor = time.perf_counter() - began, time.process_time() - worked
    test = dataset.load(paths, "test")
    figures = metrics.scores(prediction.predictor(fitted.model)(test.images), test.labels)
    return {
        "seed": params.seed,
        "test_accuracy": figures["accuracy"],
        "test_loss": figures["loss"],
        "validation_accuracy": fitted.validation["accuracy"],
        "parameters": training_run.counts(training_run.layer_table(network, card))["parameters"],
        "train_images": card.images["train"],
        "test_images": card.images["test"],
        "seconds": round(seconds),
        "processor_seconds": round(processor),
        "device": used.name,
        "precision": used.precision,
    }


def table(rows: pd.DataFrame) -> str:
    """Markdown: a line per seed, mean and standard deviation, and what they were measured on."""
    lines = [
        "| seed | test accuracy | test errors | test loss | minutes | processor minutes |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows.itertuples():
        errors = round((1 - row.test_accuracy) * row.test_images)
        time_taken = f"{row.seconds / 60:.1f} | {row.processor_seconds / 60:.1f}"
        lines.append(f"| {row.seed} | {row.test_accuracy:.2%} | {errors} | {row.test_loss:.4f} | {time_taken} |")
    mean = rows.mean(numeric_only=True)
    spread = f" ± {100 * rows['test_accuracy'].std():.2f}" if len(rows) > 1 else ""
    errors = ((1 - rows["test_accuracy"]) * rows["test_images"]).mean()
    lines.append(
        f"| mean{' ± standard deviation' if spread else ''} | {mean['test_accuracy']:.3%}{spread} | {errors:.1f} "
        f"| {mean['test_loss']:.4f} | {mean['seconds'] / 60:.1f} | {mean['processor_seconds'] / 60:.1f} |"
    )
    about = rows.iloc[-1]
    return (
        "\n".join(lines) + f"\n\n{about['parameters']:,} parameters; {about['train_images']:,} training and "
        f"{about['test_images']:,} test images; {about['device']}, {about['precision']}.\n"
    )


def finished(file: Path, wanted: str) -> pd.DataFrame:
    """The rows that are there already.

    Raises:
        DataError: they were made with other settings.
    """
    rows = pd.read_csv(file) if file.is_file() else pd.DataFrame(columns=["seed", "settings"])
    if set(rows["settings"]) - {wanted}:
        raise DataError(f"{file}: holds results of other settings; remove it, or give another --file")
    return rows


def run(arguments: argparse.Namespace) -> None:
    data = DATA | {"dataset": arguments.dataset, "limit": arguments.limit}
    fit = {"epochs": arguments.epochs} if arguments.epochs else {}
    folder = ROOT / ".cache" / NAME
    paths = project(folder, 1, data, fit)
    made_with = settings(data, fit)
    rows = finished(arguments.file, made_with)
    entry = config.load_catalog(paths)[arguments.dataset]
    mirror = os.environ.get("DATASET_MIRROR", "")
    download(arguments.dataset, entry, paths, mirror if "://" in mirror or not mirror else str(Path(mirror).resolve()))
    for seed in range(1, arguments.seeds + 1):
        if seed in set(rows["seed"]):
            continue
        row = measured(project(folder, seed, data, fit)) | {"settings": made_with}
        rows = pd.DataFrame([*rows.to_dict("records"), row]).sort_values("seed")
        with atomic.file(arguments.file) as part:
            rows.to_csv(part, index=False)
    print(table(rows))
    if arguments.file == ROWS:
        markers.write(DOCUMENT, BEGIN, END, table(rows))


def main() -> None:
    parser = stage.parser(__doc__)
    parser.add_argument("--seeds", type=int, default=5, help="train with the seeds from 1 to this one")
    parser.add_argument("--dataset", default=DATA["dataset"], help="an entry of data/catalog.yaml")
    parser.add_argument("--limit", type=int, help="at most so many images")
    parser.add_argument("--epochs", type=int, help="instead of the recipe's")
    parser.add_argument("--file", type=Path, default=ROWS, help="where finished seeds are kept")
    stage.main(run, parser)


if __name__ == "__main__":
    main()
