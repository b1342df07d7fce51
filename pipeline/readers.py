"""Published files -> arrays, one reader per format of the catalogue. What is not exactly as announced is an error."""

import gzip
import hashlib
import io
import math
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

import numpy as np
import pandas as pd
from PIL import Image, ImageOps

from pipeline import archives
from pipeline.catalog import Entry, File
from pipeline.errors import DataError

IDX_UNSIGNED_BYTE = 0x08
CHUNK = 2**20  # bytes read at a time
# What a file may unpack to: so much in any case, beyond it so many times its own size. Images of digits shrink to a
# fifth, sorted labels to a thousandth.
UNPACKED_BYTES = 2**26
UNPACKED_RATIO = 100
# What Pillow calls the images that can become grey or colour ones without losing anything.
MODES = {1: ("L", {"L", "1"}), 3: ("RGB", {"RGB", "L", "1", "P"})}
MODE_NAMES = {"RGBA": "an alpha channel", "LA": "an alpha channel", "RGB": "colour", "P": "colour", "CMYK": "CMYK"}


@dataclass(frozen=True)
class Images:
    """uint8 images of shape (n, height, width, channels), their int64 labels of shape (n,), and their names, if any."""

    images: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...] | None = None


def read(entry: Entry, folder: Path) -> dict[str, Images]:
    """The splits as published: `train`, and `test` where the dataset has one of its own.

    Raises:
        DataError: a file is missing, damaged, not what its checksum, its header or the catalogue says.
    """
    match entry.format:
        case "csv":
            return {"train": _csv(folder, entry)}
        case "idx":
            return {split: _idx_split(folder, entry, split) for split in ("train", "test")}
        case "npz":
            return _npz(folder, entry)
        case "folder":
            return _folder(folder, entry)


@contextmanager
def _opened(folder: Path, file: File) -> Iterator[tuple[BinaryIO, int]]:
    """The content of a file, and the most bytes that it may unpack to.

    What is parsed are the bytes whose checksum was right, not those of a name that was checked some time before.
    """
    path = folder / file.name
    again = "delete it and run the stage download again"
    try:
        with path.open("rb") as packed:
            found = hashlib.file_digest(packed, "sha256").hexdigest()
            if file.sha256 is not None and found != file.sha256:
                raise DataError(f"{path}: has the SHA-256 {found[:12]}… instead of {file.sha256[:12]}…; {again}")
            size = packed.tell()
            packed.seek(0)
            if file.name.endswith(".gz") and not file.name.endswith(".tar.gz"):
                with gzip.GzipFile(fileobj=packed) as content:
                    yield cast(BinaryIO, content), max(UNPACKED_BYTES, UNPACKED_RATIO * size)
            else:
                yield packed, max(UNPACKED_BYTES, UNPACKED_RATIO * size) if file.name.endswith(".npz") else size
    except FileNotFoundError:
        raise DataError(f"{path}: not found; run the stage download first") from None
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: cannot be read: {error}; {again}") from None


def _csv(folder: Path, entry: Entry) -> Images:
    """One image a row: its pixels row by row, then its label."""
    file = entry.files["train"]
    with _opened(folder, file) as (content, limit):
        text = content.read(limit + 1)
    _refuse_bomb(file.name, len(text), limit)
    try:
        table = pd.read_csv(io.BytesIO(text), header=None, dtype=np.uint8).to_numpy()
    except (ValueError, OverflowError) as error:
        raise DataError(f"{file.name}: not a table of numbers from 0 to 255: {error}") from None
    if table.shape[1] != np.prod(entry.image) + 1:
        raise DataError(f"{file.name}: {table.shape[1]} columns instead of {np.prod(entry.image)} pixels and a label")
    images = np.ascontiguousarray(table[:, :-1]).reshape(-1, *entry.image)
    return _pair(images, table[:, -1], file.name, entry)


def _idx_split(folder: Path, entry: Entry, split: str) -> Images:
    images, labels = entry.files[f"{split}_images"], entry.files[f"{split}_labels"]
    return _pair(
        _idx(folder, images, 3 if entry.image[2] == 1 else 4), _idx(folder, labels, 1), labels.name, entry, images.name
    )


def _idx(folder: Path, file: File, dimensions: int) -> np.ndarray:
    """An array in the IDX format of the MNIST files: 0, 0, type, rank, one big-endian size per axis, the values."""
    with _opened(folder, file) as (content, limit):
        magic = content.read(4)
        if len(magic) < 4 or magic[:2] != b"\0\0":
            raise DataError(f"{file.name}: not an IDX file: it begins with {magic.hex(' ') or 'nothing'}")
        if magic[2] != IDX_UNSIGNED_BYTE or magic[3] != dimensions:
            raise DataError(
                f"{file.name}: holds type 0x{magic[2]:02x} in {magic[3]} dimensions, not unsigned bytes in {dimensions}"
            )
        sizes = content.read(4 * dimensions)
        if len(sizes) < 4 * dimensions:
            raise DataError(f"{file.name}: ends within its header")
        shape = tuple(np.frombuffer(sizes, ">u4").tolist())
        _refuse_bomb(file.name, math.prod(shape), limit)
        values = np.empty(shape, np.uint8)
        found = _fill(values.reshape(-1).data, content)
        # The last read is also what makes gzip compare its checksum.
        surplus = content.read(1)
    if found < values.size or surplus:
        how_many = "more" if surplus else f"{found:,}"
        raise DataError(f"{file.name}: its header announces {shape}, {values.size:,} values, but {how_many} follow")
    return values


def _fill(buffer: memoryview, content: BinaryIO) -> int:
    """Read until the buffer is full or the content ends; how many bytes were read."""
    filled = 0
    # By pieces: gzip would otherwise make a second copy of all of it.
    while count := content.readinto(buffer[filled : filled + CHUNK]):  # type: ignore[attr-defined]
        filled += count
    return filled


def _refuse_bomb(name: str, size: int, limit: int) -> None:
    if size > limit:
        raise DataError(f"{name}: unpacks to more than {limit:,} bytes; no file of images does: a decompression bomb")


def _npz(folder: Path, entry: Entry) -> dict[str, Images]:
    """The arrays x_train, y_train and, if there is a test set, x_test, y_test. Objects are never unpickled."""
    file = entry.files["arrays"]
    with _opened(folder, file) as (content, limit), zipfile.ZipFile(content) as archive:
        there = {name.removesuffix(".npy") for name in archive.namelist()}
        splits = [split for split in ("train", "test") if {f"x_{split}", f"y_{split}"} & there]
        needed = {f"{kind}_{split}" for kind in "xy" for split in splits or ["train"]} | {"x_train", "y_train"}
        if missing := sorted(needed - there):
            raise DataError(f"{file.name}: has no array {', '.join(missing)}; found: {', '.join(sorted(there))}")
        return {
            split: _pair(
                _npz_images(_npz_array(archive, f"x_{split}", file.name, limit), f"{file.name}: x_{split}"),
                _npz_labels(_npz_array(archive, f"y_{split}", file.name, limit), f"{file.name}: y_{split}"),
                f"{file.name}: y_{split}",
                entry,
                f"{file.name}: x_{split}",
            )
            for split in splits
        }


def _npz_array(archive: zipfile.ZipFile, name: str, where: str, limit: int) -> np.ndarray:
    info = archive.getinfo(f"{name}.npy")
    _refuse_bomb(f"{where}: {name}", info.file_size, limit)
    try:
        with archive.open(info) as member:
            return np.lib.format.read_array(member, allow_pickle=False, max_header_size=10_000)
    except ValueError as error:
        if "allow_pickle" in str(error):
            raise DataError(f"{where}: {name} holds Python objects, which are not read; save numbers") from None
        raise DataError(f"{where}: {name} is not an array: {error}") from None


def _npz_images(array: np.ndarray, where: str) -> np.ndarray:
    if array.dtype != np.uint8:
        raise DataError(f"{where} is {_kind(array)}; save images as uint8, from 0 to 255")
    if array.ndim not in (3, 4):
        raise DataError(f"{where} has the shape {array.shape}; allowed: (images, height, width) or with channels")
    return array


def _npz_labels(array: np.ndarray, where: str) -> np.ndarray:
    if array.dtype.kind not in "iu":
        raise DataError(f"{where} is {_kind(array)}; save labels as integers, 0 for the first class")
    if array.ndim == 2 and array.shape[1] == 1:  # as Keras has those of CIFAR
        array = array[:, 0]
    if array.ndim != 1:
        raise DataError(f"{where} has the shape {array.shape}; allowed: one label for each image")
    return array


def _kind(array: np.ndarray) -> str:
    missing = int(np.isnan(array).sum()) if array.dtype.kind == "f" else 0
    return f"{array.dtype} with {missing:,} NaN" if missing else str(array.dtype)


def _folder(folder: Path, entry: Entry) -> dict[str, Images]:
    """An archive of CLASS/image, train/CLASS/image or train/CLASS/image and test/CLASS/image, or a folder of these."""
    file = entry.files["images"]
    with _opened(folder, file) as (content, _):
        found = _split_and_class([path for path, _ in archives.members(content, file.name)], entry, file.name)
        content.seek(0)
        counts = Counter(split for split, _ in found.values())
        images = {split: np.empty((count, *entry.image), np.uint8) for split, count in counts.items()}
        labels: dict[str, list[int]] = {split: [] for split in images}
        names: dict[str, list[str]] = {split: [] for split in images}
        for path, data in archives.members(content, file.name):
            if path in found:
                split, label = found[path]
                images[split][len(labels[split])] = _decoded(data(), f"{file.name}: {path}", entry)
                labels[split].append(label)
                names[split].append(str(path))
    return {
        split: Images(images[split], np.array(labels[split], np.int64), tuple(names[split]))
        for split in ("train", "test")
        if split in images
    }


def _split_and_class(paths: list[PurePosixPath], entry: Entry, name: str) -> dict[PurePosixPath, tuple[str, int]]:
    """The split and the label of every image, from the folders that it lies in; a file outside of them has none."""
    parts = {path: path.parts for path in paths}
    tops = {part[0] for part in parts.values()}
    if len(tops) == 1 and not tops & {"train", *entry.classes}:
        parts = {path: part[1:] for path, part in parts.items()}
    with_splits = any(part[:1] == ("train",) for part in parts.values())
    found = {}
    for path, part in parts.items():
        split, *rest = part if with_splits else ("train", *part)
        if len(rest) < 2 or split not in ("train", "test"):
            continue
        if rest[0] not in entry.classes:
            known = ", ".join(entry.classes)
            raise DataError(f"{name}: {path}: {rest[0]} is not one of the classes of data/catalog.yaml: {known}")
        found[path] = (split, entry.classes.index(rest[0]))
    for split in {split for split, _ in found.values()} | {"train"}:
        there = {label for other, label in found.values() if other == split}
        if empty := [known for label, known in enumerate(entry.classes) if label not in there]:
            raise DataError(f"{name}: {split}: no image in the folders of these classes: {', '.join(empty)}")
    return found


def _decoded(data: bytes, where: str, entry: Entry) -> np.ndarray:
    """One PNG or JPEG file as an array of the catalogue's size and channels."""
    height, width, channels = entry.image
    mode, lossless = MODES[channels]
    try:
        with (
            warnings.catch_warnings(action="error"),  # Pillow only warns of damaged metadata and of large images
            Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image,
        ):
            if image.mode not in lossless or "transparency" in image.info:
                kind = MODE_NAMES.get(image.mode, f"the mode {image.mode}")
                needed = "grey" if channels == 1 else "colour without transparency"
                raise DataError(f"{where}: has {kind}; the catalogue says {channels} channels: save it as {needed}")
            if not entry.resize and image.size != (width, height):
                raise DataError(
                    f"{where}: is {image.size[1]} x {image.size[0]} pixels instead of {height} x {width}; "
                    "for images of other sizes set resize: true in data/catalog.yaml"
                )
            upright = ImageOps.exif_transpose(image).convert(mode)
            if upright.size != (width, height):
                upright = upright.resize((width, height), Image.Resampling.BICUBIC)
            return np.asarray(upright).reshape(entry.image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Warning) as error:
        raise DataError(f"{where}: does not decode as PNG or JPEG: {error}") from None


def _pair(images: np.ndarray, labels: np.ndarray, name: str, entry: Entry, images_name: str | None = None) -> Images:
    if len(images) != len(labels):
        raise DataError(f"{name}: {len(labels):,} labels for {len(images):,} images")
    if len(images) == 0:
        raise DataError(f"{images_name or name}: holds no images")
    if entry.image[2] == 1 and images.ndim == 3:
        images = images[..., np.newaxis]
    if images.shape[1:] != entry.image:
        found, needed = (" x ".join(map(str, shape)) for shape in (images.shape[1:], entry.image))
        raise DataError(f"{images_name or name}: the images are {found} instead of {needed}, as data/catalog.yaml says")
    return Images(images, labels.astype(np.int64))
