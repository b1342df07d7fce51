"""Readers: damaged files give a DataError that names the file, or what was written; never another exception."""

import gzip
import io
import re
import struct
import tarfile
import tempfile
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.core.catalog import Entry, File, Format
from pipeline.core.errors import DataError
from pipeline.formats import archives
from pipeline.formats.images import Images
from pipeline.formats.read import read

DRAWS = np.random.default_rng(1)
TRAIN = DRAWS.integers(0, 256, (4, 3, 5), np.uint8)
LABELS = np.array([0, 1, 0, 1], np.uint8)
EXAMPLES = 150
BOMB = 50_000_000  # bytes

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
    "tar": ("folder", ".tar", {"images": tarred(False)}),
    "tar.gz": ("folder", ".tar.gz", {"images": tarred(True)}),
}


def refusal(kind: str, contents: Files) -> str:
    with pytest.raises(DataError) as caught:
        read_from(kind, contents)
    return str(caught.value)


def read_from(kind: str, contents: Files) -> dict[str, Images]:
    form, end, _ = VALID[kind]
    with tempfile.TemporaryDirectory() as name:
        files = {role: File(name=role + end) for role in contents}
        for role, content in contents.items():
            (Path(name) / files[role].name).write_bytes(content)
        entry = Entry(description="", image=(3, 5, 1), classes=("a", "b"), format=form, sources=("x",), files=files)
        return read(entry, Path(name))


def result(kind: str, contents: Files) -> np.ndarray | None:
    """The images that are read, or None if the files are refused."""
    try:
        splits = read_from(kind, contents)
    except DataError as error:
        message = str(error)
        message.encode()  # it can be printed
        assert any(role + VALID[kind][1] in message for role in contents)
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


def zip_of(members: Files, kind: int = zipfile.ZIP_STORED) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", kind) as archive:
        for name, member in members.items():
            archive.writestr(name, member)
    return content.getvalue()


def tar_of(name: str) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        archive.addfile(tarfile.TarInfo(name))
    return content.getvalue()


def npz_with(header: str) -> bytes:
    written = header.encode() + b"\n"
    return zip_of({"x_train.npy": b"\x93NUMPY\1\0" + struct.pack("<H", len(written)) + written, "y_train.npy": b""})


def png_of(width: int, height: int) -> bytes:
    """A PNG file whose header alone is right."""
    header = b"IHDR" + struct.pack(">2I5B", width, height, 8, 0, 0, 0, 0)
    return png(TRAIN[0])[:12] + header + struct.pack(">I", zlib.crc32(header)) + png(TRAIN[0])[33:]


def other_names(content: bytes) -> bytes:
    """A zip archive whose members have other names in its directory than beside their content."""
    return content.replace(b"b/" + b"x" * 5000, b"b/" + b"y" * 5000, 1)


def with_size(content: bytes, size: int) -> bytes:
    """A zip archive whose directory gives another size for its first member."""
    place = content.index(b"PK\x01\x02") + 24
    return content[:place] + struct.pack("<I", size) + content[place + 4 :]


def tar_header(kind: bytes, size: int, more: dict[str, str] | None = None) -> bytes:
    """The header of a tar archive whose member has a size that no other header changes."""
    info = tarfile.TarInfo("a/0.png")
    info.type, info.pax_headers = kind, more or {}
    content = bytearray(info.tobuf(tarfile.PAX_FORMAT))
    content[-388:-376] = b"\x80" + size.to_bytes(11, "big")
    content[-364:-356] = b" " * 8
    content[-364:-356] = b"%06o\0 " % sum(content[-512:])
    return bytes(content)


def encrypted(content: bytes) -> bytes:
    """A zip archive whose members are marked as encrypted."""
    for before_flags in (rb"(PK\x03\x04..)\0", rb"(PK\x01\x02....)\0"):
        content = re.sub(before_flags, b"\\g<1>\x01", content, flags=re.DOTALL)
    return content


LARGE = {"a/0.png": png_of(9000, 6000), "b/1.png": png(TRAIN[1])}
ARRAYS_BY_NAME = {"x_train.npy": b"", "y_train.npy": b""}
LONG = {"a/0.png": png(TRAIN[0]), "b/" + "x" * 5000: png(TRAIN[1])}


@pytest.mark.parametrize(
    ("kind", "content", "message"),
    [
        ("zip", zip_of({".": b"x"}), "images.zip: damaged: a file without a name"),
        ("tar", tar_of("."), "images.tar: damaged: a file without a name"),
        ("zip", zip_of({"README": b"x"}), "images.zip: train: no images in the folders of these classes: a, b"),
        ("zip", zip_of(LARGE), "images.zip: a/0.png: has 9,000 x 6,000 pixels; allowed: 50,000,000"),
        ("zip", zip_of(LONG, zipfile.ZIP_BZIP2), "images.zip: a/0.png: not compressed with Deflate"),
        ("npz", zip_of(ARRAYS_BY_NAME, zipfile.ZIP_LZMA), "x_train has another compression than NumPy's"),
        ("tar", tar_header(tarfile.REGTYPE, 2**80, {"GNU.sparse.size": "0"}) + bytes(1024), "a/0.png: unpacks to"),
        ("zip", encrypted(zip_of({"a/0.png": png(TRAIN[0])})), "images.zip: a/0.png: encrypted"),
        ("zip", other_names(zip_of(LONG)), "images.zip: cannot be read: File name in directory"),
        ("npz", zip_of({"\x1b[2J.npy": b""}), r"found: \x1b[2J"),
        ("npz", npz_with("{'shape': (4,"), "arrays.npz: x_train is not an array: its header is damaged"),
        (
            "npz",
            npz_with("{'descr': '(2,u1', 'fortran_order': False, 'shape': (4,)}"),
            "x_train is not an array: its header",
        ),
        ("npz", npz_with("1+" * 4000 + "1"), "arrays.npz: x_train is not an array: its header is damaged"),
        ("npz", npz_with("-" * 9000 + "1"), "arrays.npz: x_train is not an array: its header is damaged"),
    ],
    ids=[
        "no name, zip",
        "no name, tar",
        "one file",
        "large",
        "bzip2",
        "lzma",
        "endless",
        "encrypted",
        "long",
        "control characters",
        "open",
        "open type",
        "deep",
        "deeper",
    ],
)
def test_single_faults_are_refused_with_a_short_message(kind: str, content: bytes, message: str):
    [role] = VALID[kind][2]
    found = refusal(kind, {role: content})
    assert message in found
    assert len(found) < 600


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("zip", with_size(zip_of({"a/0.png": bytes(BOMB), "b/1.png": b"x"}, zipfile.ZIP_DEFLATED), 100)),
        ("tar.gz", gzip.compress(tar_header(tarfile.GNUTYPE_LONGNAME, 2**40) + bytes(BOMB), 1)),
    ],
)
def test_a_bomb_with_a_wrong_size_is_refused_in_little_memory(
    kind: str, content: bytes, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(archives._Bounded, "ALLOWANCE", BOMB // 10)
    tracemalloc.start()
    message = refusal(kind, {"images": content})
    used = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "Bad CRC-32" in message or "damaged: more than 5,000,000 bytes without a file" in message
    assert used < BOMB / 2
