"""The rules for valid data, as pandera schemas of three tables: images, classes and splits.

Each rule on the data carries the name of its check (`config.CheckName`); `validate` in params.yaml has their bounds and
lists the checks that only warn. Rules without a name hold for every table this package makes, whatever the data.
"""

import pandas as pd
import pandera.pandas as pa

from pipeline.core.dataset import SPLITS
from pipeline.core.sections import CheckName, Validate

# Checks whose findings refer to another row or label, and the column of that row or label.
LINKS: dict[CheckName, str] = {
    "duplicate_within_split": "copy_of",
    "duplicate_across_splits": "copy_of",
    "conflicting_labels": "copy_of",
    "near_duplicate": "near_to",
    "label_suspect": "best_other_label",
}
RANKED: tuple[CheckName, ...] = (
    "near_duplicate",
    "label_suspect",
)  # their findings are ranked: the lowest is the worst


def images(bounds: Validate, image: tuple[int, int, int], classes: int) -> pa.DataFrameSchema:
    """One row per image, as `measurements.measure` and `measurements.compare` return them."""
    height, width, channels = image
    least_range, least_std = bounds.min_pixel_range, bounds.min_pixel_deviation
    near, margin = bounds.min_distance, bounds.min_label_margin
    label = _message("label", f"not one of 0 to {classes - 1}")
    suspect = _message("label_suspect", f"looks like another class, margin below {margin}")
    return pa.DataFrameSchema(
        {
            "published": pa.Column(str, pa.Check.isin(SPLITS)),
            "index": pa.Column("int32", pa.Check.ge(0)),
            "split": pa.Column(str, pa.Check.isin(SPLITS)),
            "label": pa.Column("int64", pa.Check.isin(range(classes), error=label)),
            "height": _equal(height, "size", f"not {height} pixels high"),
            "width": _equal(width, "size", f"not {width} pixels wide"),
            "channels": _equal(channels, "size", f"not of {channels} channels"),
            "range": _at_least("uint8", least_range, "constant", f"pixels differ by less than {least_range}"),
            "mean": pa.Column("float32", pa.Check.in_range(0, 255)),
            "std": _at_least("float32", least_std, "near_constant", f"pixels with a std below {least_std}"),
            "ink": pa.Column("float32", pa.Check.in_range(0, 1)),
            "sha256": pa.Column(str, pa.Check.str_length(64, 64)),
            "copy_of": pa.Column("int32"),
            "copied_within_split": _is_false("duplicate_within_split", "the same image is already in the split"),
            "copied_across_splits": _is_false("duplicate_across_splits", "the same image is in another split"),
            "copied_with_other_label": _is_false("conflicting_labels", "the same image has another label elsewhere"),
            "near_to": pa.Column("int32"),
            "distance": _at_least("float32", near, "near_duplicate", f"closer than {near} to another image"),
            "label_margin": pa.Column("float32", pa.Check.ge(margin, error=suspect), nullable=True),  # NaN: not judged
            "best_other_label": pa.Column("int32"),
        },
        strict=True,
    )


def classes(bounds: Validate) -> pa.DataFrameSchema:
    """One row per split and class."""
    least, most = bounds.min_images_per_class, bounds.max_share_ratio
    share = _message("class_share", f"more than {most} times off the expected share of a class")
    return pa.DataFrameSchema(
        {
            "split": pa.Column(str, pa.Check.isin(SPLITS)),
            "label": pa.Column("int64"),
            "name": pa.Column(str),
            "images": _at_least("int64", least, "too_few_images", f"fewer than {least} of a class"),
            "share": pa.Column("float64", pa.Check.in_range(0, 1)),
            "expected": pa.Column("float64", pa.Check.in_range(0, 1)),
            "ratio": pa.Column("float64", pa.Check.in_range(1 / most, most, error=share)),
        },
        strict=True,
    )


def splits(bounds: Validate, classes: int) -> pa.DataFrameSchema:
    """One row per split."""
    most = bounds.max_class_imbalance
    imbalance = f"the largest class is more than {most} times the smallest, each relative to its expected share"
    every_split = pa.Check(_has_every_split, error=_message("missing_split", "a split has no images"))

    def drift(column: str) -> pa.Column:
        text = f"{column} is off that of the training images by more than {bounds.max_drift} standard deviations"
        return _at_most(bounds.max_drift, "drift", text)

    return pa.DataFrameSchema(
        {
            "split": pa.Column(str, pa.Check.isin(SPLITS), unique=True),
            "images": pa.Column("int64", pa.Check.gt(0)),
            "classes": _equal(classes, "missing_class", "a class has no image"),
            "imbalance": _at_most(most, "imbalance", imbalance),
            "mean": pa.Column("float64"),
            "std": pa.Column("float64"),
            "ink": pa.Column("float64"),
            **{f"{column}_drift": drift(column) for column in ("mean", "std", "ink")},
        },
        strict=True,
        checks=every_split,
    )


def _has_every_split(table: pd.DataFrame) -> bool:
    return set(table["split"]) == set(SPLITS)


def _equal(value: int, check: CheckName, problem: str) -> pa.Column:
    return pa.Column("int64", pa.Check.eq(value, error=_message(check, problem)))


def _is_false(check: CheckName, problem: str) -> pa.Column:
    return pa.Column(bool, pa.Check.eq(False, error=_message(check, problem)))


def _at_least(dtype: str, bound: float, check: CheckName, problem: str) -> pa.Column:
    return pa.Column(dtype, pa.Check.ge(bound, error=_message(check, problem)))


def _at_most(bound: float, check: CheckName, problem: str) -> pa.Column:
    return pa.Column("float64", pa.Check.le(bound, error=_message(check, problem)))


def _message(check: CheckName, problem: str) -> str:
    """The text by which `findings.collect` recognises the check."""
    return f"{check}: {problem}"
