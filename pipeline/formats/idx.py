"""The IDX format of the MNIST files: 0, 0, type, rank, one big-endian size per axis, then the values."""

import math
from pathlib import Path

import numpy as np

from pipeline.core.catalog import Entry, File
from pipeline.core.errors import DataError
from pipeline.formats import files
from pipeline.formats.images import Images, checked, room

UNSIGNED_BYTE = 0x08


def read(entry: Entry, folder: Path) -> dict[str, Images]:
    """Read the files `train_images`, `train_labels`, `test_images` and `test_labels` of the catalog entry."""
    return {split: _split(entry, folder, split) for split in ("train", "test")}


def _split(entry: Entry, folder: Path, split: str) -> Images:
    images, labels = entry.files[f"{split}_images"], entry.files[f"{split}_labels"]
    pixels = _array(folder, images, 3 if entry.image[2] == 1 else 4)
    return checked(pixels, _array(folder, labels, 1), entry, images.name, labels.name)


def _array(folder: Path, file: File, rank: int) -> np.ndarray:
    with files.opened(folder, file) as (content, limit):
        magic = content.read(4)
        if len(magic) < 4 or magic[:2] != b"\0\0":
            raise DataError(f"{file.name}: not an IDX file: it begins with {magic.hex(' ') or 'nothing'}")
        if magic[2] != UNSIGNED_BYTE or magic[3] != rank:
            raise DataError(
                f"{file.name}: contains type 0x{magic[2]:02x} in {magic[3]} dimensions, not unsigned bytes in {rank}"
            )
        sizes = content.read(4 * rank)
        if len(sizes) < 4 * rank:
            raise DataError(f"{file.name}: ends within its header")
        shape = tuple(np.frombuffer(sizes, ">u4").tolist())
        if 0 in shape:
            raise DataError(f"{file.name}: contains no values: its header announces {shape}")
        files.refuse_bomb(file.name, math.prod(shape), limit)
        values = room(shape, folder)
        found = files.fill(values, content)
        # The last read is also what makes gzip verify its checksum.
        surplus = content.read(1)
    if found < values.size or surplus:
        count = "more" if surplus else f"{found:,}"
        raise DataError(f"{file.name}: its header announces {shape}, {values.size:,} values, but {count} follow")
    return values
