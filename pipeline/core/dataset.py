"""The validated dataset on disk: written by `validate`, read by every stage after it.

`data/validated` holds dataset.json and one folder per split with images.npy and labels.npy.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from hashlib import sha256
from mmap import mmap
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.core import atomic
from pipeline.core.errors import DataError
from pipeline.core.paths import Paths

SENT = 2**27  # bytes of images at most that are sent to another process, which may be on another machine
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class DatasetInfo:
    """The content of dataset.json.

    `image` is (height, width, channels), `images` the number of images of each split, `digest` 32 hexadecimal digits
    of all images and labels.
    """

    dataset: str
    image: tuple[int, int, int]
    classes: tuple[str, ...]
    images: dict[str, int]
    digest: str


@dataclass(frozen=True)
class Split:
    """uint8 images of shape (n, height, width, channels) and int64 labels of shape (n,).

    More than SENT bytes of images that are mapped from a file are pickled as its path, and mapped again by the process
    that reads them: it needs the file at the same path.
    """

    images: np.ndarray
    labels: np.ndarray

    def __reduce__(self) -> tuple[Any, ...]:
        if self.mapped is None or self.images.nbytes <= SENT:
            return Split, (np.asarray(self.images), self.labels)
        return _mapped, (str(self.mapped.filename), self.labels)

    @property
    def mapped(self) -> np.memmap | None:
        """The images, if they are all those of a mapped file."""
        images = self.images
        return images if isinstance(images, np.memmap) and isinstance(images.base, mmap) and images.filename else None


@dataclass(frozen=True)
class TrainingData:
    """The splits that training reads. The test images are for evaluation alone."""

    info: DatasetInfo
    train: Split
    validation: Split


def load_info(paths: Paths) -> DatasetInfo:
    """Read data/validated/dataset.json.

    Raises:
        DataError: the file does not exist.
    """
    try:
        info = json.loads((paths.validated / "dataset.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{paths.validated}: no validated data; run `dvc repro validate` first") from None
    return DatasetInfo(**info | {"image": tuple(info["image"]), "classes": tuple(info["classes"])})


def load(paths: Paths, name: str) -> Split:
    """Read the labels of one split, and map its images. Only evaluation reads the test split."""
    folder = paths.split(name)
    return _mapped(str(folder / "images.npy"), np.load(folder / "labels.npy"))


def _mapped(file: str, labels: np.ndarray) -> Split:
    return Split(np.load(file, mmap_mode="r"), labels)


def load_training(paths: Paths) -> TrainingData:
    """Read the training and validation images.

    Raises:
        DataError: there is no validated data.
    """
    return TrainingData(load_info(paths), load(paths, "train"), load(paths, "validation"))


class Writer:
    """Writes the splits of a dataset into an empty folder, chunk by chunk, and then its dataset.json."""

    def __init__(self, folder: Path, dataset: str, image: tuple[int, int, int], classes: tuple[str, ...]) -> None:
        self._folder = folder
        self._dataset = dataset
        self._image = image
        self._classes = classes
        self._counts: dict[str, int] = {}
        self._digest = sha256()

    def write_split(self, name: str, labels: np.ndarray, chunks: Iterable[np.ndarray]) -> None:
        """Write the labels, int64 (n,), and the images, uint8 chunks that together are (n, height, width, channels)."""
        folder = self._folder / name
        folder.mkdir()
        shape = (len(labels), *self._image)
        with (folder / "images.npy").open("wb") as file:
            np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
            for chunk in chunks:
                content = chunk.tobytes()
                file.write(content)
                self._digest.update(content)
        np.save(folder / "labels.npy", labels)
        self._digest.update(labels.tobytes())
        self._counts[name] = len(labels)

    def finish(self) -> DatasetInfo:
        """Write dataset.json."""
        digest = self._digest.hexdigest()[:32]
        info = DatasetInfo(self._dataset, self._image, self._classes, self._counts, digest)
        atomic.write_text(self._folder / "dataset.json", json.dumps(asdict(info), indent=2, ensure_ascii=False) + "\n")
        return info
