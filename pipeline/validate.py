"""Check the data, fix the splits and write arrays that training reads as they are:  python -m pipeline.validate

Everything that is wrong is collected and written to results/validation/failures.csv, with the rows; then the stage
fails, and data/validated stays as it was.
"""

import hashlib
import json

import numpy as np
import pandas as pd
import pandera.pandas as pa
from pandera.config import ValidationDepth, get_config_global

from pipeline import atomic, config, readers, schema, stage
from pipeline.catalog import Entry
from pipeline.config import Data, Params
from pipeline.errors import DataError
from pipeline.paths import Paths
from pipeline.readers import Images

CHUNK = 4096  # images whose pixels are held as floats at a time
SHOWN = 10  # failures that are printed; the report has them all
COLUMNS = ["table", "split", "label", "index", "column", "value", "problem"]


def table(splits: dict[str, Images]) -> pd.DataFrame:
    """The table of images that `schema.images` describes, split by split in the order published."""
    rows = pd.concat([_rows(name, split) for name, split in splits.items()], ignore_index=True)
    same = rows.groupby("sha256", sort=False)
    rows["splits_with_it"] = same["split"].transform("nunique").astype("int64")
    rows["labels_of_it"] = same["label"].transform("nunique").astype("int64")
    return rows


def _rows(name: str, split: Images) -> pd.DataFrame:
    count, height, width, _ = split.images.shape
    pixels = split.images.reshape(count, -1)
    chunks = [pixels[start : start + CHUNK] for start in range(0, count, CHUNK)]
    maximum, minimum = pixels.max(axis=1), pixels.min(axis=1)
    return pd.DataFrame(
        {
            "index": np.arange(count),
            "split": name,
            "label": split.labels,
            "height": height,
            "width": width,
            "minimum": minimum,
            "maximum": maximum,
            "range": maximum.astype(np.int64) - minimum,
            "mean": pixels.mean(axis=1),
            "deviation": np.concatenate([chunk.std(axis=1) for chunk in chunks]),
            "ink": np.concatenate([(chunk > 127).mean(axis=1) for chunk in chunks]),
            "sha256": [hashlib.sha256(image.tobytes()).hexdigest() for image in pixels],
        }
    )


def assign_splits(rows: pd.DataFrame, data: Data, seed: int) -> pd.Series:
    """The final split of every row: train, validation or test, with equal shares of every class; None: left out.

    A test set that was published as such stays the test set. Copies of one image stay together.
    """
    split = rows["split"].astype(object)
    if data.limit is not None and data.limit < len(rows):
        kept = rows.groupby(["split", "label"]).sample(frac=data.limit / len(rows), random_state=seed)
        split[~rows.index.isin(kept.index)] = None
    if "test" not in set(split):
        split = _moved(rows, split, "test", data.test_fraction, seed)
    return _moved(rows, split, "validation", data.validation_fraction, seed)


def _moved(rows: pd.DataFrame, split: pd.Series, to: str, fraction: float, seed: int) -> pd.Series:
    """A share of the training images of every class, drawn by the seed, goes to another split."""
    unique = rows[split == "train"].drop_duplicates("sha256")
    drawn = set(unique.groupby("label").sample(frac=fraction, random_state=seed)["sha256"])
    return split.mask((split == "train") & rows["sha256"].isin(drawn), to)


def class_table(rows: pd.DataFrame, names: tuple[str, ...]) -> pd.DataFrame:
    """The table that `schema.classes` describes: every class of every split, also where it has no image."""
    every = pd.MultiIndex.from_product([rows["split"].unique(), range(len(names))], names=["split", "label"])
    counts = rows.groupby(["split", "label"]).size().reindex(every, fill_value=0).rename("images").reset_index()
    counts["share"] = counts["images"] / counts.groupby("split")["images"].transform("sum").clip(lower=1)
    counts.insert(2, "name", [names[label] for label in counts["label"]])
    return counts


def split_table(rows: pd.DataFrame, classes: pd.DataFrame) -> pd.DataFrame:
    """The table that `schema.splits` describes; mean, deviation and ink are averages over the images."""
    present = classes[classes["images"] > 0].groupby("split")["images"]
    figures = rows.groupby("split")[["mean", "deviation", "ink"]].mean()
    summary = pd.DataFrame(
        {"images": present.sum(), "classes": present.size(), "imbalance": present.max() / present.min()}
    ).join(figures)
    return summary.reindex([name for name in schema.SPLITS if name in summary.index]).reset_index(names="split")


def failures(tables: dict[str, tuple[pd.DataFrame, pa.DataFrameSchema]]) -> pd.DataFrame:
    """Every failed check of every table, a row for each value that failed: table, split, label, index, ..."""
    found = [_failures(name, rows, kind) for name, (rows, kind) in tables.items()]
    return pd.concat(found, ignore_index=True)


def _failures(name: str, rows: pd.DataFrame, kind: pa.DataFrameSchema) -> pd.DataFrame:
    try:
        kind.validate(rows, lazy=True)
    except pa.errors.SchemaErrors as error:
        cases = error.failure_cases
        where = rows.reindex(index=cases["index"], columns=["split", "label", "index"]).reset_index(drop=True)
        problems = cases.rename(columns={"check": "problem", "failure_case": "value"})[["column", "value", "problem"]]
        return pd.concat([where, problems.reset_index(drop=True)], axis=1).assign(table=name)[COLUMNS]
    return pd.DataFrame(columns=COLUMNS)


def refuse_disabled_checks() -> None:
    """pandera can be switched off by its environment; then nothing here would be checked.

    Raises:
        DataError: it is.
    """
    settings = get_config_global()
    depth = settings.validation_depth
    if not settings.validation_enabled or depth not in (None, ValidationDepth.SCHEMA_AND_DATA):
        raise DataError(
            "pandera's checks are switched off; unset PANDERA_VALIDATION_ENABLED and PANDERA_VALIDATION_DEPTH"
        )


def validate(params: Params, entry: Entry, paths: Paths) -> None:
    """Check the raw files of a dataset, then replace data/validated and results/validation.

    Raises:
        DataError: something is wrong; the report is written, data/validated is untouched.
    """
    refuse_disabled_checks()
    published = readers.read(entry, paths.raw(params.data.dataset))
    rows = table(published)
    rows["split"] = assign_splits(rows, params.data, params.seed)
    origin = np.concatenate([np.full(len(split.labels), number) for number, split in enumerate(published.values())])
    kept = rows["split"].notna()
    rows, origin = rows[kept].reset_index(drop=True), origin[kept.to_numpy()]
    classes = class_table(rows, entry.classes)
    summary = split_table(rows, classes)
    bounds = params.validate_
    found = failures(
        {
            "images": (rows, schema.images(bounds, entry.image, len(entry.classes))),
            "classes": (classes, schema.classes(bounds)),
            "splits": (summary, schema.splits(bounds, len(entry.classes))),
        }
    )
    _write_report(paths, classes, summary, found)
    if len(found):
        raise DataError(_message(found, paths))
    _write_arrays(params, entry, paths, list(published.values()), rows, origin)
    print(summary.round(4).to_string(index=False))


def _write_report(paths: Paths, classes: pd.DataFrame, summary: pd.DataFrame, found: pd.DataFrame) -> None:
    with atomic.folder(paths.validation) as folder:
        classes.to_csv(folder / "classes.csv", index=False)
        summary.to_csv(folder / "splits.csv", index=False)
        found.to_csv(folder / "failures.csv", index=False)


def _message(found: pd.DataFrame, paths: Paths) -> str:
    counts = found.groupby(["table", "problem"], sort=False).size().reset_index(name="rows")
    lines = [f"  {row.table}: {row.problem} ({row.rows} rows)" for row in counts.itertuples()]
    rows = found.head(SHOWN).dropna(axis=1, how="all").to_string(index=False)
    report = paths.validation / "failures.csv"
    return "\n".join(
        [f"the data may not be trained on, {len(found)} failures:", *lines, rows, f"all of them: {report}"]
    )


def _write_arrays(
    params: Params, entry: Entry, paths: Paths, published: list[Images], rows: pd.DataFrame, origin: np.ndarray
) -> None:
    digest = hashlib.sha256()
    with atomic.folder(paths.validated) as folder:
        for name in schema.SPLITS:
            chosen = (rows["split"] == name).to_numpy()
            parts = [
                (split, rows["index"].to_numpy()[chosen & (origin == number)]) for number, split in enumerate(published)
            ]
            arrays = {
                "images": np.concatenate([split.images[index] for split, index in parts]),
                "labels": np.concatenate([split.labels[index] for split, index in parts]),
            }
            (folder / name).mkdir()
            for kind, array in arrays.items():
                np.save(folder / name / f"{kind}.npy", array)
                digest.update(array.tobytes())
        card = {
            "dataset": params.data.dataset,
            "image": entry.image,
            "classes": entry.classes,
            "images": {name: int((rows["split"] == name).sum()) for name in schema.SPLITS},
            "digest": digest.hexdigest()[:32],
        }
        (folder / "dataset.json").write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def run(paths: Paths) -> None:
    stopwatch = stage.Stopwatch()
    params = config.load(paths)
    entry = config.load_catalog(paths)[params.data.dataset]
    with stopwatch("data"):
        validate(params, entry, paths)
    stopwatch.report("validate")


def main() -> None:
    stage.main(lambda _: run(Paths()), stage.parser(__doc__))


if __name__ == "__main__":
    main()
