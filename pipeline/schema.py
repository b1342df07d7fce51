"""What the data must be, as pandera schemas: one for the table of images, one for that of classes, one for splits.

Every check has a name; `validate.warnings` in params.yaml lists those that warn, all others stop the pipeline. What has
no name is true of every table that this project makes, whatever the data. Bounds are under `validate` in params.yaml.
"""

from typing import Any

import pandera.pandas as pa

from pipeline.config import CheckName, Validate

SPLITS = ("train", "validation", "test")
# The checks whose findings are about two things, and the column that has the other one: a row, or a label.
LINKS = {
    "duplicate_within_split": "copy_of",
    "duplicate_across_splits": "copy_of",
    "conflicting_labels": "copy_of",
    "near_duplicate": "near_to",
    "label_suspect": "best_other_label",
}
RANKED = ("near_duplicate", "label_suspect")  # whose findings have a rank: the lowest value is the worst


def images(bounds: Validate, image: tuple[int, int, int], classes: int) -> pa.DataFrameSchema:
    """One row per image, as `inspection.measure` and `inspection.compare` describe them."""
    height, width, channels = image
    never = pa.Check.eq
    return pa.DataFrameSchema(
        {
            "published": pa.Column(str, pa.Check.isin(SPLITS)),
            "index": pa.Column("int32", pa.Check.ge(0)),
            "split": pa.Column(str, pa.Check.isin(SPLITS)),
            "label": pa.Column(
                "int64", pa.Check.isin(range(classes), error=_("label", f"not one of 0 to {classes - 1}"))
            ),
            "height": pa.Column("int64", pa.Check.eq(height, error=_("size", f"not {height} pixels high"))),
            "width": pa.Column("int64", pa.Check.eq(width, error=_("size", f"not {width} pixels wide"))),
            "channels": pa.Column("int64", pa.Check.eq(channels, error=_("size", f"not of {channels} channels"))),
            "minimum": pa.Column("uint8"),
            "maximum": pa.Column("uint8"),
            "range": pa.Column(
                "uint8",
                pa.Check.ge(
                    bounds.min_pixel_range, error=_("constant", f"pixels differ by less than {bounds.min_pixel_range}")
                ),
            ),
            "mean": pa.Column("float32", pa.Check.in_range(0, 255)),
            "deviation": pa.Column(
                "float32",
                pa.Check.ge(
                    bounds.min_pixel_deviation,
                    error=_("near_constant", f"standard deviation of the pixels below {bounds.min_pixel_deviation}"),
                ),
            ),
            "ink": pa.Column("float32", pa.Check.in_range(0, 1)),
            "sha256": pa.Column(str, pa.Check.str_length(64, 64)),
            "copy_of": pa.Column("int32"),
            "copied_within_split": pa.Column(
                bool, never(False, error=_("duplicate_within_split", "the same image is in the split already"))
            ),
            "copied_across_splits": pa.Column(
                bool, never(False, error=_("duplicate_across_splits", "the same image is in another split"))
            ),
            "copied_with_other_label": pa.Column(
                bool, never(False, error=_("conflicting_labels", "the same image has another label elsewhere"))
            ),
            "near_to": pa.Column("int32"),
            "distance": pa.Column(
                "float32",
                pa.Check.ge(
                    bounds.min_distance,
                    error=_("near_duplicate", f"nearly the same as another image, closer than {bounds.min_distance}"),
                ),
            ),
            "label_margin": pa.Column(
                "float32",
                pa.Check.ge(
                    bounds.min_label_margin,
                    error=_("label_suspect", f"looks like another class, margin below {bounds.min_label_margin}"),
                ),
                nullable=True,  # where the label is none that could be judged
            ),
            "best_other_label": pa.Column("int32"),
        },
        strict=True,
    )


def classes(bounds: Validate) -> pa.DataFrameSchema:
    """One row per split and class."""
    least, most = bounds.min_images_per_class, bounds.max_share_ratio
    return pa.DataFrameSchema(
        {
            "split": pa.Column(str, pa.Check.isin(SPLITS)),
            "label": pa.Column("int64"),
            "name": pa.Column(str),
            "images": pa.Column(
                "int64", pa.Check.ge(least, error=_("too_few_images", f"fewer than {least} of a class"))
            ),
            "share": pa.Column("float64", pa.Check.in_range(0, 1)),
            "expected": pa.Column("float64", pa.Check.in_range(0, 1)),
            "ratio": pa.Column(
                "float64",
                pa.Check.in_range(
                    1 / most, most, error=_("class_share", f"more than {most} times off the expected share of a class")
                ),
            ),
        },
        strict=True,
    )


def splits(bounds: Validate, count: int) -> pa.DataFrameSchema:
    """One row per split."""
    most = bounds.max_class_imbalance
    imbalance = f"the largest class is more than {most} times the smallest, each against its expected share"

    def drift(figure: str) -> pa.Column:
        text = f"{figure} is off that of the training images by more than {bounds.max_drift} standard deviations"
        return pa.Column("float64", pa.Check.le(bounds.max_drift, error=_("drift", text)))

    return pa.DataFrameSchema(
        {
            "split": pa.Column(str, pa.Check.isin(SPLITS), unique=True),
            "images": pa.Column("int64", pa.Check.gt(0)),
            "classes": pa.Column("int64", pa.Check.eq(count, error=_("missing_class", "a class has no image"))),
            "imbalance": pa.Column("float64", pa.Check.le(most, error=_("imbalance", imbalance))),
            "mean": pa.Column("float64"),
            "deviation": pa.Column("float64"),
            "ink": pa.Column("float64"),
            "mean_drift": drift("mean"),
            "deviation_drift": drift("deviation"),
            "ink_drift": drift("ink"),
        },
        strict=True,
        checks=pa.Check(_has_every_split, error=_("missing_split", "a split has no images")),
    )


def _has_every_split(table: Any) -> bool:
    return set(table["split"]) == set(SPLITS)


def _(name: CheckName, text: str) -> str:
    """How a finding says which check it is from."""
    return f"{name}: {text}"
