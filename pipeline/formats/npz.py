"""NumPy archives: the arrays x_train, y_train and, if there is a test set, x_test, y_test."""

import math
import tokenize
import zipfile
from pathlib import Path

import numpy as np

from pipeline.core.catalog import Entry
from pipeline.core.errors import DataError
from pipeline.formats import files
from pipeline.formats.images import Images, checked, room

HEADER_BYTES = 10_000  # maximum: NumPy evaluates the header as a Python literal
HEADER_ERRORS = (ValueError, TypeError, SyntaxError, RecursionError, MemoryError, tokenize.TokenError)
HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def read(entry: Entry, folder: Path) -> dict[str, Images]:
    """Read the file `arrays` of the catalog entry. Python objects are never unpickled."""
    file = entry.files["arrays"]
    with files.opened(folder, file) as (content, limit), zipfile.ZipFile(content) as archive:
        names = archive.namelist()
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise DataError(f"{file.name}: contains {files.shown(', '.join(twice))} more than once")
        present = {name.removesuffix(".npy") for name in names if name.endswith(".npy")}
        splits = [split for split in ("train", "test") if split == "train" or {f"x_{split}", f"y_{split}"} & present]
        if missing := sorted({f"{kind}_{split}" for kind in "xy" for split in splits} - present):
            raise DataError(
                f"{file.name}: has no array {', '.join(missing)}; found: {files.shown(', '.join(sorted(present)))}"
            )
        result = {}
        for split in splits:
            images_name, labels_name = (f"{file.name}: {kind}_{split}" for kind in "xy")
            images = _images(_array(archive, f"x_{split}", images_name, limit, folder), images_name)
            labels = _labels(_array(archive, f"y_{split}", labels_name, limit, folder), labels_name)
            result[split] = checked(images, labels, entry, images_name, labels_name)
    return result


def _array(archive: zipfile.ZipFile, name: str, where: str, limit: int, folder: Path) -> np.ndarray:
    info = archive.getinfo(f"{name}.npy")
    if info.flag_bits & 1:
        raise DataError(f"{where} is encrypted")
    if info.compress_type not in files.BOUNDED:
        raise DataError(f"{where} has another compression than NumPy's; save it with numpy.savez_compressed")
    files.refuse_bomb(where, info.file_size, limit)
    try:
        with archive.open(info) as member:
            version = np.lib.format.read_magic(member)
            if version not in HEADERS:
                raise ValueError(f"its format version is {version[0]}.{version[1]}")
            try:
                shape, by_columns, dtype = HEADERS[version](member, max_header_size=HEADER_BYTES)
            except HEADER_ERRORS:  # whose messages quote Python's syntax tree
                raise ValueError("its header is damaged") from None
            if dtype.hasobject:
                raise DataError(f"{where} contains Python objects, which are not read; save numbers")
            if math.prod(shape) * dtype.itemsize != info.file_size - member.tell():
                raise ValueError(f"its header announces {dtype} values of the shape {shape}, but another size follows")
            if dtype == np.uint8 and not by_columns:
                values = room(shape, folder)
                if files.fill(values, member) < values.size:  # else the last read verifies the checksum
                    raise EOFError("it ends early")
                return values
        with archive.open(info) as member:
            return np.lib.format.read_array(member, allow_pickle=False, max_header_size=HEADER_BYTES)
    except (ValueError, TypeError, OverflowError) as error:
        raise DataError(f"{where} is not an array: {files.shown(error)}") from None


def _images(array: np.ndarray, where: str) -> np.ndarray:
    if array.dtype != np.uint8:
        raise DataError(f"{where} is {_kind(array)}; save images as uint8, from 0 to 255")
    if array.ndim not in (3, 4):
        raise DataError(f"{where} has the shape {array.shape}; allowed: (images, height, width) or with channels")
    return array


def _labels(array: np.ndarray, where: str) -> np.ndarray:
    if array.dtype.kind not in "iu":
        raise DataError(f"{where} is {_kind(array)}; save labels as integers, 0 for the first class")
    if array.ndim == 2 and array.shape[1] == 1:  # as in Keras's CIFAR
        array = array[:, 0]
    if array.ndim != 1:
        raise DataError(f"{where} has the shape {array.shape}; allowed: one label per image")
    if array.dtype.kind == "u":  # the largest do not fit into int64: they would become negative
        array = np.minimum(array, np.array(np.iinfo(np.int64).max, np.uint64))
    return array


def _kind(array: np.ndarray) -> str:
    missing = int(np.isnan(array).sum()) if array.dtype.kind == "f" else 0
    return f"{array.dtype} with {missing:,} NaN" if missing else str(array.dtype)
