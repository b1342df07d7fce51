"""Checking a dataset and fixing its splits: from raw files to findings, a report, and arrays to train on."""

import hashlib
import json
from functools import partial

import numpy as np
import pandas as pd
import pandera.pandas as pa
from pandera.config import ValidationDepth, get_config_global
from threadpoolctl import threadpool_limits

from pipeline import atomic, config, inspection, readers, schema, validation_report
from pipeline.catalog import Entry
from pipeline.config import Data, Params
from pipeline.errors import DataError
from pipeline.paths import Paths
from pipeline.readers import Images
from pipeline.schema import LINKS, RANKED

SHOWN = 10  # errors that are printed; the report has more
# The matrices are small: two threads would wait for each other longer than they work, and the last digits of figures
# would depend on the number of cores.
ONE_THREAD = partial(threadpool_limits, 1, "blas")
ERROR, WARNING = "error", "warning"
FINDINGS = ["check", "severity", "split", "published", "index", "label", "column", "value", "problem", "detail"]


def validate(params: Params, entry: Entry, paths: Paths) -> None:
    """Check the raw files of a dataset, then replace results/validation and data/validated.

    Raises:
        DataError: something is wrong; the report is written, data/validated is untouched.
    """
    refuse_disabled_checks()
    bounds = params.validate_
    published = readers.read(entry, paths.raw(params.data.dataset))
    with ONE_THREAD():
        rows, spectrum = inspection.measure(published)
    split = assign_splits(rows, params.data, params.seed)
    kept = split.notna()
    rows, spectrum = rows[kept].assign(split=split[kept].astype(str)).reset_index(drop=True), spectrum[kept]
    with ONE_THREAD():
        rows = inspection.compare(rows, spectrum, published, len(entry.classes), bounds.min_distance, params.seed)
    classes = inspection.class_table(rows, entry.classes, entry.expected_shares)
    splits = inspection.split_table(rows, classes)
    found = findings(
        {
            "images": (rows, schema.images(bounds, entry.image, len(entry.classes))),
            "classes": (classes, schema.classes(bounds)),
            "splits": (splits, schema.splits(bounds, len(entry.classes))),
        },
        bounds.warnings,
    )
    found["detail"] = _details(found, rows, published, entry)
    report = validation_report.Report(params.data.dataset, entry, published, rows, classes, splits, found, bounds)
    with atomic.folder(paths.validation) as folder:
        report.write(folder)
    errors, warnings = (found[found["severity"] == severity] for severity in (ERROR, WARNING))
    where = paths.validation / "validation.html"
    if len(errors):
        raise DataError(f"the data may not be trained on:\n{_summary(errors)}\nthe report: {where}")
    if len(warnings):
        print(f"warnings:\n{_summary(warnings)}\nthe report: {where}")
    _write_arrays(params, entry, paths, published, rows)
    print(splits.round(4).to_string(index=False))


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


def assign_splits(rows: pd.DataFrame, data: Data, seed: int) -> pd.Series:
    """The final split of every row: train, validation or test, with equal shares of every class; None: left out.

    A test set that was published as such stays the test set. Copies of one image stay together.
    """
    split = rows["published"].astype(object)
    if data.limit is not None and data.limit < len(rows):
        split[~_stratified(rows, data.limit, seed)] = None
    if "test" not in set(split):
        split = _moved(rows, split, "test", data.test_fraction, seed)
    return _moved(rows, split, "validation", data.validation_fraction, seed)


def _stratified(rows: pd.DataFrame, limit: int, seed: int) -> pd.Series:
    """Which rows belong to a subset of `limit` rows with the same shares of every split and class."""
    strata = [rows["published"], rows["label"]]
    exact = rows.groupby(strata).size() * limit / len(rows)
    quota = exact.astype(int)
    largest_rests = (exact - quota).sort_values(ascending=False, kind="stable").index[: limit - quota.sum()]
    quota[largest_rests] += 1
    turn = rows.sample(frac=1, random_state=seed).groupby(["published", "label"]).cumcount()
    return turn.sort_index() < quota.reindex(pd.MultiIndex.from_arrays(strata)).to_numpy()


def _moved(rows: pd.DataFrame, split: pd.Series, to: str, fraction: float, seed: int) -> pd.Series:
    """A share of the training images of every class, drawn by the seed, goes to another split."""
    unique = rows[split == "train"].drop_duplicates("sha256")
    drawn = unique.groupby("label").sample(frac=fraction, random_state=seed)["sha256"]
    return split.mask((split == "train") & rows["sha256"].isin(drawn), to)


def findings(
    tables: dict[str, tuple[pd.DataFrame, pa.DataFrameSchema]], warnings: tuple[config.CheckName, ...]
) -> pd.DataFrame:
    """Every failed check of every table, a row for each value that failed, errors first, the worst first.

    The index of the result is that of the row in its table; `published` and `index` say which image that is.
    """
    found = pd.concat([_failures(*checked) for checked in tables.values()])
    if found.empty:
        return found
    known = found["problem"].str.extract(r"^(\w+): (.*)$")
    found["check"] = known[0].where(known[0].isin(config.CHECKS), "table")
    found["problem"] = known[1].where(known[1].notna(), found["problem"])
    found["severity"] = np.where(found["check"].isin(warnings), WARNING, ERROR)
    order = found["check"].map({name: number for number, name in enumerate(("table", *config.CHECKS))})
    rank = found["value"].where(found["check"].isin(RANKED), 0).astype("float64")
    keys = pd.DataFrame({"severity": found["severity"], "order": order, "rank": rank}).reset_index(drop=True)
    return found.iloc[keys.sort_values(["severity", "order", "rank"], kind="stable").index]


def _failures(rows: pd.DataFrame, kind: pa.DataFrameSchema) -> pd.DataFrame:
    try:
        kind.validate(rows, lazy=True)
    except pa.errors.SchemaErrors as error:
        cases = error.failure_cases
        # A check of a whole table has no row.
        at = pd.Index([-1 if pd.isna(index) else int(index) for index in cases["index"]], dtype="int64")
        where = rows.reindex(index=at, columns=["split", "published", "index", "label"])
        problems = pd.DataFrame({"column": cases["column"], "value": cases["failure_case"], "problem": cases["check"]})
        return pd.concat([where, problems.set_index(at)], axis=1).reindex(columns=FINDINGS).astype(object)
    return pd.DataFrame(columns=FINDINGS, dtype=object)


def _details(found: pd.DataFrame, rows: pd.DataFrame, published: dict[str, Images], entry: Entry) -> list[str]:
    """The file of an image, where it had one, and the other image or label that a finding is about."""
    column = {name: rows[name].to_numpy() for name in ("published", "index", "label", *LINKS.values())}

    def name(row: int) -> str:
        split, index = column["published"][row], column["index"][row]
        names = published[split].names
        return names[index] if names else f"{split} {index}"

    def detail(row: int, check: str) -> str:
        parts = [name(row)] if published[column["published"][row]].names else []
        if check == "label_suspect":
            parts.append(f"looks like {entry.class_name(column['best_other_label'][row])}")
        elif check in LINKS:
            other = column[LINKS[check]][row]
            parts.append(f"like {name(other)}, labelled {entry.class_name(column['label'][other])}")
        return "; ".join(parts)

    of_images = found["index"].notna()
    checked = zip(found.index, found["check"], of_images, strict=True)
    return [detail(int(row), check) if of_image else "" for row, check, of_image in checked]


def _summary(found: pd.DataFrame) -> str:
    counts = found.groupby(["check", "problem"], sort=False).size().reset_index(name="found")
    lines = [f"  {row.check}: {row.problem} ({row.found:,} found)" for row in counts.itertuples()]
    shown = found.head(SHOWN)[["check", "published", "index", "label", "value", "detail"]]
    return "\n".join([*lines, shown.dropna(axis=1, how="all").to_string(index=False)])


def _write_arrays(params: Params, entry: Entry, paths: Paths, published: dict[str, Images], rows: pd.DataFrame) -> None:
    digest = hashlib.sha256()
    with atomic.folder(paths.validated) as folder:
        for name in schema.SPLITS:
            chosen = rows[rows["split"] == name]
            (folder / name).mkdir()
            # By chunks: the images are in memory once already.
            with (folder / name / "images.npy").open("wb") as file:
                shape = (len(chosen), *entry.image)
                np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
                for chunk in inspection.chunks(len(chosen), entry.image):
                    images = inspection.pixels(published, chosen.iloc[chunk]).tobytes()
                    file.write(images)
                    digest.update(images)
            labels = chosen["label"].to_numpy(np.int64)
            np.save(folder / name / "labels.npy", labels)
            digest.update(labels.tobytes())
        card = {
            "dataset": params.data.dataset,
            "image": entry.image,
            "classes": entry.classes,
            "images": {name: int((rows["split"] == name).sum()) for name in schema.SPLITS},
            "digest": digest.hexdigest()[:32],
        }
        (folder / "dataset.json").write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
