"""What the data must be, as pandera schemas: one for the table of images, one for that of classes, one for splits.

A check that fails names its rows; its text is what the report says.
"""

import pandera.pandas as pa

from pipeline.config import Validate

SPLITS = ("train", "validation", "test")


def images(bounds: Validate, image: tuple[int, int, int], classes: int) -> pa.DataFrameSchema:
    """One row per image; `minimum` to `deviation` are over its pixels, `ink` is the share of pixels above 127.

    `splits_with_it` and `labels_of_it` count the splits that hold the same pixels and the labels they have there.
    """
    height, width, _ = image
    return pa.DataFrameSchema(
        {
            "index": pa.Column("int64", pa.Check.ge(0)),
            "split": pa.Column(str, pa.Check.isin(SPLITS)),
            "label": pa.Column(
                "int64", pa.Check.isin(range(classes), error=f"the label is not one of 0 to {classes - 1}")
            ),
            "height": pa.Column("int64", pa.Check.eq(height, error=f"the image is not {height} pixels high")),
            "width": pa.Column("int64", pa.Check.eq(width, error=f"the image is not {width} pixels wide")),
            "minimum": pa.Column("uint8"),
            "maximum": pa.Column("uint8"),
            "range": pa.Column(
                "int64",
                pa.Check.ge(
                    bounds.min_pixel_range,
                    error=f"the image is blank: its pixels differ by less than {bounds.min_pixel_range}",
                ),
            ),
            "mean": pa.Column("float64", pa.Check.in_range(0, 255)),
            "deviation": pa.Column("float64", pa.Check.in_range(0, 127.5)),
            "ink": pa.Column("float64", pa.Check.in_range(0, 1)),
            "sha256": pa.Column(str, pa.Check.str_length(64, 64)),
            "splits_with_it": pa.Column("int64", pa.Check.eq(1, error="the same image is in another split")),
            "labels_of_it": pa.Column("int64", pa.Check.eq(1, error="the same image has another label elsewhere")),
        },
        strict=True,
    )


def classes(bounds: Validate) -> pa.DataFrameSchema:
    """One row per split and class."""
    least = bounds.min_images_per_class
    return pa.DataFrameSchema(
        {
            "split": pa.Column(str, pa.Check.isin(SPLITS)),
            "label": pa.Column("int64"),
            "name": pa.Column(str),
            "images": pa.Column(
                "int64", pa.Check.ge(least, error=f"the class has fewer than {least} images in the split")
            ),
            "share": pa.Column("float64", pa.Check.in_range(0, 1)),
        },
        strict=True,
    )


def splits(bounds: Validate, count: int) -> pa.DataFrameSchema:
    """One row per split."""
    most = bounds.max_class_imbalance
    return pa.DataFrameSchema(
        {
            "split": pa.Column(str, pa.Check.isin(SPLITS), unique=True),
            "images": pa.Column("int64", pa.Check.gt(0, error="the split is empty")),
            "classes": pa.Column("int64", pa.Check.eq(count, error="a class has no image in the split")),
            "imbalance": pa.Column(
                "float64", pa.Check.le(most, error=f"the largest class is more than {most} times the smallest")
            ),
            "mean": pa.Column("float64"),
            "deviation": pa.Column("float64"),
            "ink": pa.Column("float64"),
        },
        strict=True,
    )
