"""Labelled images in memory, as every format yields them."""

from dataclasses import dataclass

import numpy as np

from pipeline.core.catalog import Entry
from pipeline.core.errors import DataError


@dataclass(frozen=True)
class Images:
    """uint8 images of shape (n, height, width, channels), int64 labels of shape (n,), and any file names."""

    images: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...] | None = None


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
