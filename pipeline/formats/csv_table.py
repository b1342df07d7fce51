"""CSV tables of images: one image per row, its pixels row by row, then its label."""

import io
import math
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.core.catalog import Entry
from pipeline.core.errors import DataError
from pipeline.formats import files
from pipeline.formats.images import Images, checked


def read(entry: Entry, folder: Path) -> dict[str, Images]:
    """Read the file `train` of the catalog entry."""
    file = entry.files["train"]
    with files.opened(folder, file) as (content, limit):
        text = content.read(limit + 1)
    files.refuse_bomb(file.name, len(text), limit)
    pixels = math.prod(entry.image)
    # Before it is parsed: pandas needs a hundred bytes for each column.
    first = io.BytesIO(text.lstrip(b"\r\n")).readline().rstrip()
    if first and first.count(b",") != pixels:
        raise DataError(f"{file.name}: {first.count(b',') + 1} columns instead of {pixels} pixels and a label")
    try:
        table = pd.read_csv(io.BytesIO(text), header=None, dtype=np.uint8).to_numpy()
    except (ValueError, OverflowError) as error:
        raise DataError(f"{file.name}: not a table of numbers from 0 to 255: {files.shown(error)}") from None
    images = np.ascontiguousarray(table[:, :-1]).reshape(-1, *entry.image)
    return {"train": checked(images, table[:, -1], entry, file.name, file.name)}
