"""Published files -> arrays, one reader per format of the catalogue. What is not exactly as announced is an error."""

import gzip
import io
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.catalog import Entry
from pipeline.errors import DataError

IDX_UNSIGNED_BYTE = 0x08


@dataclass(frozen=True)
class Images:
    """uint8 images of shape (n, height, width, channels) and their int64 labels of shape (n,)."""

    images: np.ndarray
    labels: np.ndarray


def read(entry: Entry, folder: Path) -> dict[str, Images]:
    """The splits as published: `train`, and `test` where the dataset has one of its own.

    Raises:
        DataError: a file is missing, damaged, or not what its header or the catalogue says.
    """
    contents = {role: _unpacked(folder / file.name) for role, file in entry.files.items()}
    names = {role: file.name for role, file in entry.files.items()}
    if entry.format == "csv":
        return {"train": _csv(contents["train"], names["train"], entry.image)}
    return {
        split: _pair(
            _idx(contents[f"{split}_images"], names[f"{split}_images"], 3),
            _idx(contents[f"{split}_labels"], names[f"{split}_labels"], 1),
            names[f"{split}_labels"],
        )
        for split in ("train", "test")
    }


def _unpacked(path: Path) -> bytes:
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if path.suffix == ".gz" else content
    except FileNotFoundError:
        raise DataError(f"{path}: not found; run the stage download first") from None
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read: {error}; delete it and run the stage download again") from None


def _csv(content: bytes, name: str, image: tuple[int, int, int]) -> Images:
    """One image a row: its pixels row by row, then its label."""
    try:
        table = pd.read_csv(io.BytesIO(content), header=None, dtype=np.uint8).to_numpy()
    except (ValueError, OverflowError) as error:
        raise DataError(f"{name}: not a table of numbers from 0 to 255: {error}") from None
    if table.shape[1] != np.prod(image) + 1:
        raise DataError(f"{name}: {table.shape[1]} columns instead of {np.prod(image)} pixels and a label")
    return Images(np.ascontiguousarray(table[:, :-1]).reshape(-1, *image), table[:, -1].astype(np.int64))


def _idx(content: bytes, name: str, dimensions: int) -> np.ndarray:
    """An array in the IDX format of the MNIST files: 0, 0, type, rank, one big-endian size per axis, the values."""
    header = 4 + 4 * dimensions
    if len(content) < header or content[:2] != b"\0\0":
        raise DataError(f"{name}: not an IDX file: it begins with {content[:4].hex(' ') or 'nothing'}")
    if content[2] != IDX_UNSIGNED_BYTE or content[3] != dimensions:
        raise DataError(
            f"{name}: holds type 0x{content[2]:02x} in {content[3]} dimensions, not unsigned bytes in {dimensions}"
        )
    shape = tuple(np.frombuffer(content, ">u4", count=dimensions, offset=4).tolist())
    values = np.frombuffer(content, np.uint8, offset=header)
    if values.size != np.prod(shape, dtype=np.uint64):
        raise DataError(f"{name}: its header announces {shape}, but {values.size} values follow")
    return values.reshape(shape)


def _pair(images: np.ndarray, labels: np.ndarray, name: str) -> Images:
    if len(images) != len(labels):
        raise DataError(f"{name}: {len(labels)} labels for {len(images)} images")
    return Images(images[..., np.newaxis], labels.astype(np.int64))
