"""Read the published files of a dataset into arrays, whatever their format."""

from collections.abc import Callable
from pathlib import Path

from pipeline.core.catalog import Entry, Format
from pipeline.formats import csv_table, idx, image_folder, npz
from pipeline.formats.images import Images

READERS: dict[Format, Callable[[Entry, Path], dict[str, Images]]] = {
    "csv": csv_table.read,
    "idx": idx.read,
    "npz": npz.read,
    "folder": image_folder.read,
}


def read(entry: Entry, folder: Path) -> dict[str, Images]:
    """Read the splits as published: `train`, and `test` where the dataset has a test set.

    Raises:
        DataError: a file is missing or damaged, or does not match its checksum, its header or the catalog.
    """
    return READERS[entry.format](entry, folder)
