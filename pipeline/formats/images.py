"""Labelled images, as every format yields them: in memory, or mapped from a temporary file."""

import math
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.core import atomic
from pipeline.core.catalog import Entry
from pipeline.core.errors import DataError

IN_MEMORY = 2**27  # bytes of an array; 60,000 images of MNIST are 2**25.5


@dataclass(frozen=True)
class Images:
    """uint8 images of shape (n, height, width, channels), int64 labels of shape (n,), and any file names."""

    images: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...] | None = None


def room(shape: tuple[int, ...], folder: Path) -> np.ndarray:
    """An uint8 array to fill; above IN_MEMORY bytes, one in a file without a name, beside the folder that is read.

    The operating system keeps as much of the file in memory as there is room for. The file ends with the array.

    Raises:
        DataError: the disk is full, or not writable.
    """
    size = math.prod(shape)
    if size <= IN_MEMORY:
        return np.empty(shape, np.uint8)
    with atomic.writing(folder), tempfile.TemporaryFile(dir=folder.parent) as file:
        if hasattr(os, "posix_fallocate"):  # a full disk would otherwise kill the process when a page is written
            os.posix_fallocate(file.fileno(), 0, size)
        return np.memmap(file, np.uint8, "w+", shape=shape)


def checked(images: np.ndarray, labels: np.ndarray, entry: Entry, images_name: str, labels_name: str) -> Images:
    """Images and labels that fit each other and the catalog entry.

    Raises:
        DataError: their numbers or the image size differ, or there are none. The names say where each was read from.
    """
    if len(images) != len(labels):
        raise DataError(f"{labels_name}: {len(labels):,} labels for {len(images):,} images")
    if len(images) == 0:
        raise DataError(f"{images_name}: contains no images")
    if entry.image[2] == 1 and images.ndim == 3:
        images = images[..., np.newaxis]
    if images.shape[1:] != entry.image:
        found, expected = (" x ".join(map(str, shape)) for shape in (images.shape[1:], entry.image))
        raise DataError(f"{images_name}: the images are {found} instead of {expected}, the size in data/catalog.yaml")
    return Images(images, labels.astype(np.int64))
