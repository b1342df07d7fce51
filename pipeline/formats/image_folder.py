"""Archives of PNG and JPEG files in one folder per class: [train/ or test/]CLASS/image, or a folder of these."""

import io
import os
import unicodedata
import warnings
from collections import Counter, deque
from collections.abc import Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from tqdm import tqdm

from pipeline.core.catalog import Entry
from pipeline.core.errors import DataError
from pipeline.formats import archives, files
from pipeline.formats.images import Images, room

MAX_PIXELS = 50_000_000  # of an image; those of mobile phones have 12 to 50 million
DECODERS = min(os.cpu_count() or 1, 8)  # threads; each may hold an image of MAX_PIXELS
GAP = 2  # a JPEG may be decoded at half the size or less, while it has this many times the pixels of a side it needs
# Pillow's modes that become grey or colour images without loss.
MODES = {1: ("L", {"L", "1"}), 3: ("RGB", {"RGB", "L", "1", "P"})}
MODE_NAMES = {"RGBA": "an alpha channel", "LA": "an alpha channel", "RGB": "colour", "P": "colour", "CMYK": "CMYK"}


def read(entry: Entry, folder: Path) -> dict[str, Images]:
    """Read the archive `images` of the catalog entry."""
    file = entry.files["images"]
    with files.opened(folder, file) as (content, _):
        found = _split_and_label([path for path, _ in archives.members(content, file.name)], entry, file.name)
        content.seek(0)
        counts = Counter(split for split, _ in found.values())
        images = {split: room((count, *entry.image), folder) for split, count in counts.items()}
        labels: dict[str, list[int]] = {split: [] for split in images}
        names: dict[str, list[str]] = {split: [] for split in images}
        decoded = _in_order(content, file.name, entry, found.keys())
        for path, image in tqdm(decoded, "decoding", len(found), unit="image", disable=None, leave=False):
            split, label = found[path]
            images[split][len(labels[split])] = image
            labels[split].append(label)
            names[split].append(str(path))
    return {
        split: Images(images[split], np.array(labels[split], np.int64), tuple(names[split]))
        for split in ("train", "test")
        if split in images
    }


def _split_and_label(paths: list[PurePosixPath], entry: Entry, name: str) -> dict[PurePosixPath, tuple[str, int]]:
    """The split and label of every image, from its folders. Files outside class folders are left out."""
    # NFC: macOS stores accented letters decomposed.
    parts = {path: tuple(unicodedata.normalize("NFC", part) for part in path.parts) for path in paths}
    tops = {part[0] for part in parts.values()}
    if len(tops) == 1 and not tops & {"train", *entry.classes}:
        parts = {path: part[1:] for path, part in parts.items() if part[1:]}
    under_train = [part for part in parts.values() if part[0] == "train"]
    if "train" in entry.classes:  # then the folder may also be that class
        under_train = [part for part in under_train if len(part) > 2 and part[1] in entry.classes]
    with_splits = bool(under_train)
    found = {}
    labels = {known: label for label, known in enumerate(entry.classes)}
    for path, part in parts.items():
        split, *rest = part if with_splits else ("train", *part)
        if len(rest) < 2 or split not in ("train", "test"):
            continue
        if rest[0] not in labels:
            known = ", ".join(entry.classes)
            raise DataError(f"{name}: {path}: {rest[0]} is not one of the classes of data/catalog.yaml: {known}")
        found[path] = (split, labels[rest[0]])
    for split in {split for split, _ in found.values()} | {"train"}:
        present = {label for other, label in found.values() if other == split}
        if empty := [known for known, label in labels.items() if label not in present]:
            raise DataError(f"{name}: {split}: no images in the folders of these classes: {', '.join(empty)}")
    return found


def _in_order(
    content: BinaryIO, name: str, entry: Entry, paths: Collection[PurePosixPath]
) -> Iterator[tuple[PurePosixPath, np.ndarray]]:
    """Decode the images of an archive side by side, a few ahead of the one that is yielded."""
    pending: deque[tuple[PurePosixPath, Future[np.ndarray]]] = deque()
    with (
        ThreadPoolExecutor(DECODERS) as pool,
        warnings.catch_warnings(action="error"),  # Pillow only warns of damaged metadata and of large images
    ):
        for path, data in archives.members(content, name):
            if path in paths:
                pending.append((path, pool.submit(_decoded, data(), f"{name}: {path}", entry)))
            if len(pending) > 2 * DECODERS:
                first, image = pending.popleft()
                yield first, image.result()
        for path, image in pending:
            yield path, image.result()


def _decoded(data: bytes, where: str, entry: Entry) -> np.ndarray:
    """One PNG or JPEG file as an array of the catalog's size and channels."""
    height, width, channels = entry.image
    mode, lossless = MODES[channels]
    side = GAP * max(height, width)
    if not data:
        raise DataError(f"{where}: is empty")
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image:
            if image.width * image.height > MAX_PIXELS:
                size = f"{image.width:,} x {image.height:,} pixels"
                raise DataError(f"{where}: has {size}; allowed: {MAX_PIXELS:,} in all; scale it down")
            if image.mode not in lossless or "transparency" in image.info:
                kind = MODE_NAMES.get(image.mode, f"the mode {image.mode}")
                needed = "grey" if channels == 1 else "colour without transparency"
                raise DataError(f"{where}: has {kind}; data/catalog.yaml expects {needed} images")
            if entry.resize:
                image.draft(None, (side, side))
            upright = ImageOps.exif_transpose(image).convert(mode)
            if not entry.resize and upright.size != (width, height):
                raise DataError(
                    f"{where}: is {upright.size[1]} x {upright.size[0]} pixels instead of {height} x {width}; "
                    "to accept images of other sizes, set resize: true in data/catalog.yaml"
                )
            if upright.size != (width, height):
                upright = upright.resize((width, height), Image.Resampling.BICUBIC)
            return np.asarray(upright).reshape(entry.image)
    except UnidentifiedImageError:  # its message has the address of a buffer in place of the file
        raise DataError(f"{where}: does not decode as PNG or JPEG: it is neither") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Warning) as error:
        raise DataError(f"{where}: does not decode as PNG or JPEG: {files.shown(error)}") from None
