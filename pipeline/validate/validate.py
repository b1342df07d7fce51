"""Validation from raw files to findings, a report, and arrays to train on."""

import numpy as np
import pandas as pd
from pandera.config import ValidationDepth, get_config_global
from threadpoolctl import threadpool_limits

from pipeline.core import atomic
from pipeline.core.catalog import Entry
from pipeline.core.config import Params
from pipeline.core.dataset import SPLITS, Writer
from pipeline.core.errors import DataError
from pipeline.core.paths import Paths
from pipeline.formats.images import Images
from pipeline.formats.read import read
from pipeline.validate import findings, measurements, schema
from pipeline.validate.measurements import Tables
from pipeline.validate.report import PAGE, ValidationReport
from pipeline.validate.splits import assign


def validate(params: Params, entry: Entry, paths: Paths) -> None:
    """Check the raw files of a dataset, then replace artifacts/validation and data/validated.

    Raises:
        DataError: a check failed; artifacts/validation is written, data/validated is not.
    """
    refuse_disabled_checks()
    dataset, bounds = params.data.dataset, params.validate_
    published = read(entry, paths.raw(dataset))
    # The matrices are small: two threads would wait for each other longer than they compute, and the last digits of the
    # measurements would depend on the number of cores.
    with threadpool_limits(1, "blas"):
        tables = _measured(params, entry, published)
    found = findings.collect(
        [
            (tables.images, schema.images(bounds, entry.image, len(entry.classes))),
            (tables.classes, schema.classes(bounds)),
            (tables.splits, schema.splits(bounds, len(entry.classes))),
        ],
        bounds.warnings,
    )
    found["detail"] = findings.details(found, tables.images, published, entry)
    with atomic.folder(paths.validation) as folder:
        ValidationReport(dataset, entry, published, tables, found, bounds.warnings).write(folder)
    page = (paths.validation / PAGE).relative_to(paths.root)
    errors, warnings = (found[found["severity"] == severity] for severity in (findings.ERROR, findings.WARNING))
    if len(errors):
        raise DataError(
            f"{dataset}: the data failed validation:\n{findings.summary(errors)}\nreport: {page}\n"
            "Correct the data, or change the bounds or the warnings under `validate` in params.yaml."
        )
    if len(warnings):
        print(f"warnings:\n{findings.summary(warnings)}\nreport: {page}")
    _write_arrays(dataset, entry, paths, published, tables.images)
    drift = tables.splits.filter(like="_drift")
    shown = tables.splits.drop(columns=drift.columns).assign(largest_drift=drift.max(axis="columns"))
    print(shown.round(4).to_string(index=False))


def refuse_disabled_checks() -> None:
    """Check that pandera's environment variables have not disabled validation.

    Raises:
        DataError: they have.
    """
    settings = get_config_global()
    depth = settings.validation_depth
    if not settings.validation_enabled or depth not in (None, ValidationDepth.SCHEMA_AND_DATA):
        raise DataError("pandera's checks are disabled; unset PANDERA_VALIDATION_ENABLED and PANDERA_VALIDATION_DEPTH")


def _measured(params: Params, entry: Entry, published: dict[str, Images]) -> Tables:
    rows, spectrum = measurements.measure(published)
    split = assign(rows, params.data, params.seed)
    kept = split.notna()
    rows, spectrum = rows[kept].assign(split=split[kept].astype(str)).reset_index(drop=True), spectrum[kept]
    near = params.validate_.min_distance
    rows = measurements.compare(rows, spectrum, published, len(entry.classes), near, params.seed)
    classes = measurements.class_table(rows, entry.classes, entry.expected_shares)
    return Tables(rows, classes, measurements.split_table(rows, classes))


def _write_arrays(dataset: str, entry: Entry, paths: Paths, published: dict[str, Images], rows: pd.DataFrame) -> None:
    with atomic.folder(paths.validated) as folder:
        writer = Writer(folder, dataset, entry.image, entry.classes)
        for name in SPLITS:
            chosen = rows[rows["split"] == name]
            # In chunks: the images are in memory once already.
            chunks = measurements.chunks(len(chosen), entry.image)
            images = (measurements.pixels(published, chosen.iloc[chunk]) for chunk in chunks)
            writer.write_split(name, chosen["label"].to_numpy(np.int64), images)
        writer.finish()
