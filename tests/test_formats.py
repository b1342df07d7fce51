"""Formats: each yields the arrays that were written, and refuses every fault by name."""

import gzip
import hashlib
import io
import os
import tarfile
import unicodedata
import warnings
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.core.catalog import FILES, Entry, File
from pipeline.core.errors import DataError
from pipeline.formats import archives, csv_table, files
from pipeline.formats.read import read

DRAWS = np.random.default_rng(1)
TRAIN, TEST = DRAWS.integers(0, 256, (6, 4, 5), np.uint8), DRAWS.integers(0, 256, (2, 4, 5), np.uint8)
COLOUR = DRAWS.integers(0, 256, (6, 4, 5, 3), np.uint8)
LABELS = np.array([0, 1, 0, 1, 0, 1], np.uint8)
CLASSES = ("a", "b")


def entry(form: str, names: dict[str, str], folder: Path | None = None, image=(4, 5, 1), **settings: Any) -> Entry:
    """With the checksums of the files in the folder, if one is given, so that only other faults remain."""
    pinned = {
        role: File(name=name, sha256=hashlib.sha256((folder / name).read_bytes()).hexdigest() if folder else None)
        for role, name in names.items()
    }
    fields = {"description": "", "image": image, "classes": CLASSES, "format": form, "sources": ("x",), "files": pinned}
    return Entry(**fields | settings)


def refused(entry: Entry, folder: Path) -> str:
    with pytest.raises(DataError) as caught:
        read(entry, folder)
    return str(caught.value)


# IDX

IDX = {role: f"{role}.gz" for role in sorted(FILES["idx"])}


def idx_bytes(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


def write_idx(folder: Path, images: np.ndarray = TRAIN, contents: Mapping[str, bytes] = MappingProxyType({})) -> Entry:
    standard = {
        "train_images": idx_bytes(images),
        "train_labels": idx_bytes(LABELS),
        "test_images": idx_bytes(images[:2]),
        "test_labels": idx_bytes(LABELS[:2]),
    }
    for role, content in (standard | dict(contents)).items():
        (folder / IDX[role]).write_bytes(gzip.compress(content))
    return entry("idx", IDX, folder, image=(*images.shape[1:3], 3 if images.ndim == 4 else 1))


@pytest.mark.parametrize("images", [TRAIN, COLOUR], ids=["grey", "colour"])
def test_idx_files_are_read_as_written(tmp_path: Path, images: np.ndarray):
    splits = read(write_idx(tmp_path, images), tmp_path)
    assert np.array_equal(splits["train"].images, images.reshape(6, 4, 5, -1))
    assert splits["train"].labels.tolist() == LABELS.tolist()
    assert splits["train"].labels.dtype == np.int64
    assert len(splits["test"].images) == 2


def header(*shape: int, kind: int = 8, first: int = 0) -> bytes:
    return bytes([first, 0, kind, len(shape)]) + np.array(shape, ">u4").tobytes()


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ({"train_images": header(6, 4, 5, first=1) + TRAIN.tobytes()}, "train_images.gz: not an IDX file"),
        ({"train_images": b"\0"}, "train_images.gz: not an IDX file"),
        ({"train_images": b""}, "train_images.gz: not an IDX file: it begins with nothing"),
        (
            {"train_images": header(6, 4, 5, kind=13) + bytes(480)},
            "contains type 0x0d in 3 dimensions, not unsigned bytes",
        ),
        ({"train_images": idx_bytes(LABELS)}, "contains type 0x08 in 1 dimensions, not unsigned bytes in 3"),
        ({"train_images": header(6, 4, 5)[:10]}, "train_images.gz: ends within its header"),
        ({"train_images": idx_bytes(TRAIN)[:-1]}, "announces (6, 4, 5), 120 values, but 119 follow"),
        ({"train_images": idx_bytes(TRAIN) + b"x"}, "announces (6, 4, 5), 120 values, but more follow"),
        ({"train_images": idx_bytes(TRAIN[:5])}, "train_labels.gz: 6 labels for 5 images"),
        ({"train_labels": idx_bytes(LABELS[:5])}, "train_labels.gz: 5 labels for 6 images"),
        (
            {"train_images": idx_bytes(TRAIN.reshape(6, 5, 4))},
            "train_images.gz: the images are 5 x 4 x 1 instead of 4 x 5 x 1",
        ),
        ({"train_images": header(2**32 - 1, 4, 5)}, "a decompression bomb"),
    ],
)
def test_an_invalid_idx_file_is_refused(tmp_path: Path, contents: dict[str, bytes], message: str):
    assert message in refused(write_idx(tmp_path, contents=contents), tmp_path)


@pytest.mark.parametrize("shape", [(0, 2**32 - 1, 2**32 - 1), (6, 0, 2**32 - 1), (0, 4, 5)])
def test_idx_files_without_values_are_refused(tmp_path: Path, shape: tuple[int, ...]):
    written = write_idx(tmp_path, contents={"train_images": header(*shape)})
    assert f"train_images.gz: contains no values: its header announces {shape}" in refused(written, tmp_path)


def test_a_gzip_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(files, "UNPACKED_BYTES", 10_000)
    zeros = np.zeros((50_000, 4, 5), np.uint8)
    written = write_idx(
        tmp_path, contents={"train_images": idx_bytes(zeros), "train_labels": idx_bytes(np.zeros(50_000, np.uint8))}
    )
    monkeypatch.setattr(files, "fill", lambda *_: pytest.fail("unpacked"))
    assert "unpacks to more than" in refused(written, tmp_path)


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def without_end(content: bytes) -> bytes:
    return content[:-4]


def flip(content: bytes) -> bytes:
    """Flip one bit of the packed pixels."""
    wrong = bytearray(content)
    wrong[len(wrong) // 2] ^= 0x10
    return bytes(wrong)


@pytest.mark.parametrize("damage", [cut, without_end, flip])
@pytest.mark.parametrize("pinned", [True, False])
def test_a_damaged_gzip_file_is_refused(tmp_path: Path, damage: Callable[[bytes], bytes], pinned: bool):
    """By its checksum, or without one by the format itself."""
    good = write_idx(tmp_path)
    unpinned = entry("idx", IDX)
    path = tmp_path / IDX["train_images"]
    path.write_bytes(damage(path.read_bytes()))
    message = refused(good if pinned else unpinned, tmp_path)
    assert str(path) in message
    assert ("has the SHA-256" if pinned else "cannot be read") in message
    assert "delete it and rerun the stage download" in message


def test_a_valid_file_with_another_checksum_is_refused(tmp_path: Path):
    good = write_idx(tmp_path)
    (tmp_path / IDX["train_images"]).write_bytes(gzip.compress(idx_bytes(TRAIN[::-1].copy())))
    assert "has the SHA-256" in refused(good, tmp_path)


def test_a_missing_file_is_named(tmp_path: Path):
    good = write_idx(tmp_path)
    (tmp_path / IDX["test_labels"]).unlink()
    assert "test_labels.gz: not found; run the stage download first" in refused(good, tmp_path)


# CSV


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,2,3\n4,5,6\n", "3 columns instead of 20 pixels and a label"),
        (",".join(["1"] * 21) + "\n" + ",".join(["1"] * 20 + ["NaN"]), "not a table of numbers from 0 to 255"),
        (",".join(["1"] * 20 + ["0.5"]), "not a table of numbers from 0 to 255"),
        (",".join(["1"] * 20 + ["256"]), "not a table of numbers from 0 to 255"),
        ("", "not a table of numbers from 0 to 255"),
    ],
)
def test_an_invalid_table_is_refused(tmp_path: Path, text: str, message: str):
    (tmp_path / "t.csv").write_text(text)
    assert message in refused(entry("csv", {"train": "t.csv"}), tmp_path)


def test_a_table_with_many_columns_is_refused_before_it_is_parsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """pandas would need gigabytes of memory for them."""
    monkeypatch.setattr(csv_table.pd, "read_csv", lambda *_, **__: pytest.fail("parsed"))
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(b"0," * 5_000_000))
    assert "5000001 columns instead of 20 pixels" in refused(entry("csv", {"train": "t.csv.gz"}), tmp_path)


def test_a_gzip_bomb_of_a_table_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(files, "UNPACKED_BYTES", 10_000)
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(b"0," * 500_000))
    assert "a decompression bomb" in refused(entry("csv", {"train": "t.csv.gz"}), tmp_path)


# NPZ

ARRAYS = {"x_train": TRAIN, "y_train": LABELS, "x_test": TEST, "y_test": LABELS[:2]}


def write_npz(folder: Path, **arrays: Any) -> Entry:
    written = {name: array for name, array in (ARRAYS | arrays).items() if array is not None}
    np.savez_compressed(folder / "a.npz", **written)
    return entry("npz", {"arrays": "a.npz"}, folder)


def test_npz_files_are_read_as_written_with_and_without_a_test_set(tmp_path: Path):
    splits = read(write_npz(tmp_path, y_train=LABELS[:, np.newaxis].astype(np.int32), extra=TEST), tmp_path)
    assert np.array_equal(splits["train"].images[..., 0], TRAIN)
    assert splits["train"].labels.tolist() == LABELS.tolist()
    assert np.array_equal(splits["test"].images[..., 0], TEST)
    assert list(read(write_npz(tmp_path, x_test=None, y_test=None), tmp_path)) == ["train"]


class Trap:
    """Runs a command when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("trapped",)


NAN = np.where(np.arange(120).reshape(6, 4, 5) < 3, np.nan, 0.5)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x_train": TRAIN.astype(np.float32) / 255}, "a.npz: x_train is float32; save images as uint8"),
        ({"x_train": NAN}, "a.npz: x_train is float64 with 3 NaN; save images as uint8"),
        ({"x_train": TRAIN.astype(np.int16)}, "a.npz: x_train is int16; save images as uint8"),
        ({"y_train": np.where(LABELS, np.nan, 1)}, "a.npz: y_train is float64 with 3 NaN; save labels as integers"),
        ({"x_train": np.array([Trap()] * 6, object)}, "a.npz: x_train contains Python objects, which are not read"),
        ({"y_train": np.array([Trap()] * 6, object)}, "a.npz: y_train contains Python objects, which are not read"),
        ({"x_train": TRAIN.reshape(6, 20)}, "a.npz: x_train has the shape (6, 20)"),
        ({"x_train": COLOUR}, "a.npz: x_train: the images are 4 x 5 x 3 instead of 4 x 5 x 1"),
        ({"y_train": LABELS.reshape(3, 2)}, "a.npz: y_train has the shape (3, 2)"),
        ({"y_train": LABELS[:4]}, "a.npz: y_train: 4 labels for 6 images"),
        ({"y_train": None}, "a.npz: has no array y_train"),
        ({"x_test": TEST[:0], "y_test": LABELS[:0]}, "a.npz: x_test: contains no images"),
        ({"y_test": None}, "a.npz: has no array y_test"),
    ],
)
def test_an_invalid_npz_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arrays: dict[str, Any], message: str
):
    monkeypatch.chdir(tmp_path)
    assert message in refused(write_npz(tmp_path, **arrays), tmp_path)
    assert not (tmp_path / "trapped").exists()


def test_an_npz_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(files, "UNPACKED_BYTES", 10_000)
    written = write_npz(tmp_path, x_train=np.zeros((50_000, 4, 5), np.uint8))
    monkeypatch.setattr(np.lib.format, "read_array", lambda *_, **__: pytest.fail("unpacked"))
    assert "a decompression bomb" in refused(written, tmp_path)


def test_a_file_that_is_not_a_zip_archive_is_refused(tmp_path: Path):
    (tmp_path / "a.npz").write_bytes(b"something else")
    assert "a.npz: cannot be read" in refused(entry("npz", {"arrays": "a.npz"}), tmp_path)


def test_a_member_that_is_not_an_array_is_refused(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        for name in ARRAYS:
            archive.writestr(f"{name}.npy", b"something else")
    assert "a.npz: x_train is not an array" in refused(entry("npz", {"arrays": "a.npz"}), tmp_path)


def raw_npz(folder: Path, head: bytes, *extra: str) -> Entry:
    """An archive whose x_train has a header of its own."""
    with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(folder / "a.npz", "w") as archive:
        archive.writestr("x_train.npy", b"\x93NUMPY\x01\0" + len(head).to_bytes(2, "little") + head + bytes(100))
        archive.writestr("y_train.npy", b"")
        for name in extra:
            archive.writestr(name, b"")
    return entry("npz", {"arrays": "a.npz"})


@pytest.mark.parametrize(
    "shape",
    ["(1766847, 42, 42, 1000)", "(6, 4, 5)", "(-6, -4, 5)", "(0, 9223372036854775807, 4)", "(10**30,)", "(1.5,)"],
)
def test_an_array_of_another_size_than_its_header_is_refused(tmp_path: Path, shape: str):
    head = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    assert "a.npz: x_train is not an array: " in refused(raw_npz(tmp_path, head), tmp_path)


def test_an_array_that_is_contained_twice_is_refused(tmp_path: Path):
    assert "a.npz: contains y_train.npy more than once" in refused(raw_npz(tmp_path, b"", "y_train.npy"), tmp_path)


def test_a_member_without_the_ending_npy_is_no_array(tmp_path: Path):
    assert "a.npz: has no array y_test" in refused(raw_npz(tmp_path, b"", "x_test.npy", "y_test"), tmp_path)


def test_an_encrypted_npz_file_is_refused(tmp_path: Path):
    write_npz(tmp_path)
    content = bytearray((tmp_path / "a.npz").read_bytes())
    for mark, place in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        start = content.find(mark)
        while start >= 0:
            content[start + place] |= 1
            start = content.find(mark, start + 1)
    (tmp_path / "a.npz").write_bytes(content)
    message = refused(entry("npz", {"arrays": "a.npz"}), tmp_path)
    assert "a.npz: x_train is encrypted" in message


def test_the_largest_labels_do_not_become_negative(tmp_path: Path):
    written = write_npz(tmp_path, y_train=LABELS.astype(np.uint64) + 2**63)
    assert read(written, tmp_path)["train"].labels.tolist() == [2**63 - 1] * 6


def test_a_pipe_in_place_of_a_file_is_refused(tmp_path: Path):
    """Opening it would wait for ever."""
    os.mkfifo(tmp_path / "a.npz")
    assert "a.npz: not a regular file" in refused(entry("npz", {"arrays": "a.npz"}), tmp_path)


# Folders of images


def encoded(image: np.ndarray, kind: str = "PNG", mode: str | None = None, **options: Any) -> bytes:
    content = io.BytesIO()
    Image.fromarray(image).convert(mode).save(content, kind, **options)
    return content.getvalue()


IMAGES = {
    f"{CLASSES[label]}/{n}.png": encoded(image) for n, (image, label) in enumerate(zip(TRAIN, LABELS, strict=True))
}


def write_zip(
    folder: Path, members: Mapping[str, bytes | None] | None = None, image=(4, 5, 1), **settings: Any
) -> Entry:
    with zipfile.ZipFile(folder / "i.zip", "w") as archive:
        for name, content in (IMAGES if members is None else members).items():
            if content is not None:
                archive.writestr(name, content)
    return entry("folder", {"images": "i.zip"}, folder, image, **settings)


def test_labels_are_the_names_of_the_folders(tmp_path: Path):
    hidden = {"a/.DS_Store": b"x", "__MACOSX/a/0.png": b"x", "README.txt": b"x"}
    splits = read(write_zip(tmp_path, IMAGES | hidden), tmp_path)
    assert list(splits) == ["train"]
    assert np.array_equal(splits["train"].images[..., 0], TRAIN)
    assert splits["train"].labels.tolist() == LABELS.tolist()
    assert splits["train"].names == tuple(IMAGES)


@pytest.mark.parametrize("around", ["", "photos-v2/"])
def test_split_folders_and_a_single_top_folder_are_accepted(tmp_path: Path, around: str):
    members = {f"{around}{split}/{name}": content for split in ("train", "test") for name, content in IMAGES.items()}
    splits = read(write_zip(tmp_path, members), tmp_path)
    assert {split: len(images.images) for split, images in splits.items()} == {"train": 6, "test": 6}


@pytest.mark.parametrize("name", ["i.tar", "i.tar.gz", "i.tgz"])
def test_tar_archives_are_read(tmp_path: Path, name: str):
    with tarfile.open(tmp_path / name, "w" if name == "i.tar" else "w:gz") as archive:
        for member, content in IMAGES.items():
            info = tarfile.TarInfo(member)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    splits = read(entry("folder", {"images": name}, tmp_path), tmp_path)
    assert np.array_equal(splits["train"].images[..., 0], TRAIN)


def test_colour_jpeg_and_palette_images_are_read(tmp_path: Path):
    flat = np.full((4, 5, 3), (200, 100, 50), np.uint8)
    members = {
        "a/1.jpg": encoded(flat, "JPEG", quality=95),
        "a/2.png": encoded(flat, mode="P"),
        "b/3.jpeg": encoded(TRAIN[0], "JPEG"),
        "b/4.png": encoded(flat),
    }
    images = read(write_zip(tmp_path, members, image=(4, 5, 3)), tmp_path)["train"].images
    assert np.abs(images[[0, 1]].astype(int) - flat).max() <= 5
    assert np.array_equal(images[2, ..., 0], images[2, ..., 1])
    assert np.array_equal(images[3], flat)


def test_images_are_resized_on_request_and_turned_upright(tmp_path: Path):
    half = np.zeros((40, 10), np.uint8)
    half[:20] = 200
    turned = Image.Exif()
    turned[0x0112] = 6  # the camera was held sideways: the stored image has its top on the right
    members = {"a/1.png": encoded(half), "b/1.jpg": encoded(np.rot90(half).copy(), "JPEG", exif=turned)}
    images = read(write_zip(tmp_path, members, resize=True), tmp_path)["train"].images
    for image in images[..., 0]:
        assert image[0].min() > 190
        assert image[-1].max() < 10


def sideways(image: np.ndarray, kind: str) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(np.rot90(image).copy(), kind, exif=exif)


def test_the_size_is_that_of_the_upright_image(tmp_path: Path):
    """Nothing is resampled unless the entry allows it."""
    members = {"a/9.png": sideways(TRAIN[0], "PNG"), "b/9.png": encoded(TRAIN[1])}
    images = read(write_zip(tmp_path, members), tmp_path)["train"].images
    assert np.array_equal(images[..., 0], TRAIN[:2])
    wrong = IMAGES | {"a/9.jpg": sideways(TRAIN[0].T.copy(), "JPEG")}
    assert "a/9.jpg: is 5 x 4 pixels instead of 4 x 5" in refused(write_zip(tmp_path, wrong), tmp_path)


def test_accented_class_folders_match_however_they_are_stored(tmp_path: Path):
    classes = ("café", "ñ")
    for stored in ("NFC", "NFD"):
        for listed in ("NFC", "NFD"):
            members = {f"{unicodedata.normalize(stored, name)}/1.png": encoded(TRAIN[0]) for name in classes}
            names = tuple(unicodedata.normalize(listed, name) for name in classes)
            assert read(write_zip(tmp_path, members, classes=names), tmp_path)["train"].labels.tolist() == [0, 1]


@pytest.mark.parametrize("classes", [("bus", "train"), ("test", "bus"), ("train", "test"), ("a", "train")])
@pytest.mark.parametrize("around", ["", "photos/"])
def test_classes_may_be_named_like_splits(tmp_path: Path, classes: tuple[str, ...], around: str):
    plain = {f"{around}{name}/{n}.png": encoded(TRAIN[n]) for n, name in enumerate(classes)}
    splits = read(write_zip(tmp_path, plain, classes=classes), tmp_path)
    assert {split: images.labels.tolist() for split, images in splits.items()} == {"train": [0, 1]}
    divided = {
        f"{around}{split}/{name}/{n}.png": encoded(TRAIN[n])
        for split in ("train", "test")
        for n, name in enumerate(classes)
    }
    splits = read(write_zip(tmp_path, divided, classes=classes), tmp_path)
    assert {split: images.labels.tolist() for split, images in splits.items()} == {"train": [0, 1], "test": [0, 1]}


@pytest.mark.parametrize("again", ["a/0.png", "a/./0.png", "a//0.png"])
@pytest.mark.parametrize("kind", ["i.zip", "i.tar"])
def test_an_image_that_is_contained_twice_is_refused(tmp_path: Path, again: str, kind: str):
    with warnings.catch_warnings(action="ignore"):
        write_zip(tmp_path)
        with zipfile.ZipFile(tmp_path / "i.zip", "a") as archive:
            archive.writestr(again, IMAGES["a/2.png"])
        with zipfile.ZipFile(tmp_path / "i.zip") as archive, tarfile.open(tmp_path / "i.tar", "w") as packed:
            for info in archive.infolist():
                member = tarfile.TarInfo(info.filename)
                member.size = info.file_size
                packed.addfile(member, io.BytesIO(archive.read(info)))
    assert f"{kind}: a/0.png: contained more than once" in refused(entry("folder", {"images": kind}), tmp_path)


@pytest.mark.parametrize("name", ["a/caf\udce9.png", "a/1\x1b[31m.png", "a/1\n.png"])
def test_a_name_that_cannot_be_printed_is_refused(tmp_path: Path, name: str):
    member = tarfile.TarInfo(name)
    with tarfile.open(tmp_path / "i.tar", "w") as archive:
        archive.addfile(member)
    message = refused(entry("folder", {"images": "i.tar"}), tmp_path)
    assert "the name has control characters or is not UTF-8" in message
    assert message.isprintable()


def test_a_folder_named_like_a_formula_is_refused(tmp_path: Path):
    """Names of images are written to tables."""
    members = {f"=1+1/{name}": content for name, content in IMAGES.items()}
    assert "begins like a formula of a spreadsheet" in refused(write_zip(tmp_path, members), tmp_path)


@pytest.mark.parametrize("content", [b"", b"not an image"])
def test_the_message_of_an_unreadable_image_has_no_address(tmp_path: Path, content: bytes):
    message = refused(write_zip(tmp_path, IMAGES | {"a/9.png": content}), tmp_path)
    assert message.endswith(("i.zip: a/9.png: is empty", "does not decode as PNG or JPEG: it is neither"))


@pytest.mark.parametrize("damage", [cut, without_end, flip])
def test_the_checksum_of_a_compressed_tar_archive_is_verified(tmp_path: Path, damage: Callable[[bytes], bytes]):
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for name, data in IMAGES.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    packed = gzip.compress(content.getvalue())
    (tmp_path / "i.tar.gz").write_bytes(damage(packed))
    assert "i.tar.gz: damaged: " in refused(entry("folder", {"images": "i.tar.gz"}), tmp_path)
    (tmp_path / "i.tar.gz").write_bytes(packed + gzip.compress(bytes(3 * 2**20)))
    assert "other data follow the end" in refused(entry("folder", {"images": "i.tar.gz"}), tmp_path)


def png_bomb(side: int) -> bytes:
    """A small PNG file that announces `side` rows and columns of pixels."""
    bomb = bytearray(encoded(TRAIN[0]))
    bomb[16:24] = np.array([side, side], ">u4").tobytes()
    bomb[29:33] = zlib.crc32(bomb[12:29]).to_bytes(4, "big")
    return bytes(bomb)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"a/9.png": encoded(TRAIN[0][:3])}, "i.zip: a/9.png: is 3 x 5 pixels instead of 4 x 5"),
        ({"a/9.png": b"not an image"}, "i.zip: a/9.png: does not decode as PNG or JPEG"),
        ({"a/9.png": encoded(TRAIN[0])[:60]}, "i.zip: a/9.png: does not decode as PNG or JPEG"),
        ({"a/9.png": flip(encoded(TRAIN[0]))}, "i.zip: a/9.png: does not decode as PNG or JPEG"),
        ({"a/9.gif": encoded(TRAIN[0], "GIF")}, "i.zip: a/9.gif: does not decode as PNG or JPEG"),
        ({"a/9.png": encoded(COLOUR[0])}, "i.zip: a/9.png: has colour; data/catalog.yaml expects grey images"),
        ({"a/9.png": encoded(COLOUR[0], mode="RGBA")}, "i.zip: a/9.png: has an alpha channel"),
        ({"c/9.png": encoded(TRAIN[0])}, "i.zip: c/9.png: c is not one of the classes of data/catalog.yaml: a, b"),
        (dict.fromkeys(name for name in IMAGES if name[0] == "b"), "no images in the folders of these classes: b"),
        (dict.fromkeys(IMAGES), "no images in the folders of these classes: a, b"),
        ({"../9.png": encoded(TRAIN[0])}, "i.zip: ../9.png: a path that leads outside the archive"),
        ({"a/../../9.png": encoded(TRAIN[0])}, "a path that leads outside the archive"),
        ({"/a/9.png": encoded(TRAIN[0])}, "a path that leads outside the archive"),
        ({"a\\9.png": encoded(TRAIN[0])}, "a path that leads outside the archive"),
    ],
)
def test_an_invalid_folder_of_images_is_refused(tmp_path: Path, members: dict[str, bytes | None], message: str):
    assert message in refused(write_zip(tmp_path, IMAGES | members), tmp_path)


@pytest.mark.parametrize("side", [10_000, 30_000])
def test_an_image_bomb_is_refused_even_if_images_are_resized(tmp_path: Path, side: int):
    written = write_zip(tmp_path, IMAGES | {"a/9.png": png_bomb(side)}, resize=True)
    with warnings.catch_warnings(action="ignore"):  # Pillow only warns of the smaller one
        message = refused(written, tmp_path)
    assert f"a/9.png: does not decode as PNG or JPEG: Image size ({side**2} pixels) exceeds" in message


def test_a_link_in_a_zip_archive_is_refused(tmp_path: Path):
    write_zip(tmp_path)
    link = zipfile.ZipInfo("a/9.png")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "i.zip", "a") as archive:
        archive.writestr(link, "/etc/passwd")
    assert "i.zip: a/9.png: a link or device" in refused(entry("folder", {"images": "i.zip"}), tmp_path)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE])
def test_a_link_or_device_in_a_tar_archive_is_refused(tmp_path: Path, kind: bytes):
    link = tarfile.TarInfo("a/9.png")
    link.type, link.linkname = kind, "/etc/passwd"
    with tarfile.open(tmp_path / "i.tar", "w") as archive:
        archive.addfile(link)
    assert "i.tar: a/9.png: a link or device" in refused(entry("folder", {"images": "i.tar"}), tmp_path)


def test_a_member_above_the_size_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(archives, "MEMBER_BYTES", 1000)
    written = write_zip(tmp_path, IMAGES | {"a/9.png": bytes(1001)})
    assert "a/9.png: unpacks to 1,001 bytes; allowed: 1,000" in refused(written, tmp_path)


@pytest.mark.parametrize("name", ["i.zip", "i.tar.gz"])
def test_a_damaged_archive_is_refused(tmp_path: Path, name: str):
    if name == "i.zip":
        write_zip(tmp_path)
    else:
        (tmp_path / name).write_bytes(gzip.compress(b"something else"))
    whole = (tmp_path / name).read_bytes()
    for content in (whole[: len(whole) // 2], b"something else"):
        (tmp_path / name).write_bytes(content)
        assert f"{name}: damaged" in refused(entry("folder", {"images": name}), tmp_path)
