"""Readers: damaged files give a DataError that names the file, or what was written; never another exception."""

import gzip
import io
import tarfile
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.core.catalog import Entry, File, Format
from pipeline.core.errors import DataError
from pipeline.formats.read import read

DRAWS = np.random.default_rng(1)
TRAIN = DRAWS.integers(0, 256, (4, 3, 5), np.uint8)
LABELS = np.array([0, 1, 0, 1], np.uint8)
EXAMPLES = 150

Files = dict[str, bytes]  # the content of each file of a dataset, by its role


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


def png(image: np.ndarray, kind: str = "PNG") -> bytes:
    content, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(image[::-1, ::-1]).save(content, kind, exif=exif)
    return content.getvalue()


def npz(compressed: bool) -> bytes:
    content = io.BytesIO()
    save = np.savez_compressed if compressed else np.savez
    save(content, x_train=TRAIN, y_train=LABELS)
    return content.getvalue()


def zipped(kind: int) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", kind) as archive:
        for number, (image, label) in enumerate(zip(TRAIN, LABELS, strict=True)):
            archive.writestr(f"{'ab'[label]}/é{number}.png", png(image))
    return content.getvalue()


def tarred(compressed: bool) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz" if compressed else "w") as archive:
        for number, (image, label) in enumerate(zip(TRAIN, LABELS, strict=True)):
            info, data = tarfile.TarInfo(f"{'ab'[label]}/é{number}.jpg"), png(image, "JPEG" if number == 3 else "PNG")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return content.getvalue()


def table() -> bytes:
    rows = np.column_stack([TRAIN.reshape(4, -1), LABELS])
    return "\n".join(",".join(map(str, row)) for row in rows).encode()


ARRAYS = {"train_images": TRAIN, "train_labels": LABELS, "test_images": TRAIN[:2], "test_labels": LABELS[:2]}
VALID: dict[str, tuple[Format, str, Files]] = {
    "csv": ("csv", "", {"train": table()}),
    "csv.gz": ("csv", ".gz", {"train": gzip.compress(table(), mtime=0)}),
    "idx": ("idx", "", {role: idx(array) for role, array in ARRAYS.items()}),
    "idx.gz": ("idx", ".gz", {role: gzip.compress(idx(array), mtime=0) for role, array in ARRAYS.items()}),
    "npz": ("npz", ".npz", {"arrays": npz(True)}),
    "npz-stored": ("npz", ".npz", {"arrays": npz(False)}),
    "zip": ("folder", ".zip", {"images": zipped(zipfile.ZIP_DEFLATED)}),
    "zip-stored": ("folder", ".zip", {"images": zipped(zipfile.ZIP_STORED)}),
    "zip-lzma": ("folder", ".zip", {"images": zipped(zipfile.ZIP_LZMA)}),
    "tar": ("folder", ".tar", {"images": tarred(False)}),
    "tar.gz": ("folder", ".tar.gz", {"images": tarred(True)}),
}


def result(kind: str, contents: Files) -> np.ndarray | None:
    """The images that are read, or None if the files are refused."""
    form, end, _ = VALID[kind]
    with tempfile.TemporaryDirectory() as name:
        files = {role: File(name=role + end) for role in contents}
        for role, content in contents.items():
            (Path(name) / files[role].name).write_bytes(content)
        entry = Entry(description="", image=(3, 5, 1), classes=("a", "b"), format=form, sources=("x",), files=files)
        splits, message = {}, ""
        try:
            splits = read(entry, Path(name))
        except DataError as error:
            message = str(error)
    if message:
        message.encode()  # it can be printed
        assert any(file.name in message for file in files.values())
        return None
    for split in splits.values():
        assert split.images.dtype == np.uint8
        assert split.images.shape == (len(split.labels), 3, 5, 1)
        assert split.labels.dtype == np.int64
    return splits["train"].images


@pytest.mark.parametrize("kind", VALID)
def test_the_valid_files_are_read(kind: str):
    found = result(kind, VALID[kind][2])
    assert found is not None
    assert np.array_equal(found[:3, ..., 0], TRAIN[:3])  # a JPEG file changes the last


@pytest.mark.parametrize("kind", VALID)
def test_truncated_files_are_refused(kind: str):
    contents = VALID[kind][2]
    role = next(iter(contents))
    whole = contents[role]
    step = max(1, len(whole) // EXAMPLES)
    for length in range(0, len(whole) - 1, step):
        found = result(kind, contents | {role: whole[:length]})
        # Without rows or padding at its end, a table or tar archive is valid.
        assert found is None or kind in ("csv", "tar")


@pytest.mark.parametrize("kind", VALID)
@settings(max_examples=EXAMPLES, deadline=None, derandomize=True)
@given(data=st.data())
def test_random_bytes_are_refused(kind: str, data: st.DataObject):
    contents = VALID[kind][2]
    role = data.draw(st.sampled_from(sorted(contents)))
    assert result(kind, contents | {role: data.draw(st.binary(max_size=200))}) is None


@pytest.mark.parametrize("kind", VALID)
@settings(max_examples=EXAMPLES, deadline=None, derandomize=True)
@given(data=st.data())
def test_changed_bytes_are_refused_or_read(kind: str, data: st.DataObject):
    contents = VALID[kind][2]
    role = data.draw(st.sampled_from(sorted(contents)))
    changed = bytearray(contents[role])
    for place in data.draw(st.lists(st.integers(0, len(changed) - 1), min_size=1, max_size=4)):
        changed[place] = data.draw(st.integers(0, 255))
    result(kind, contents | {role: bytes(changed)})
