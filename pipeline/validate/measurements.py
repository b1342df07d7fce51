"""Measurements of every image, class and split: the tables that pipeline/validate/schema.py checks."""

import hashlib
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pandas as pd

from pipeline.core import machine
from pipeline.core.dataset import SPLITS
from pipeline.formats.images import Images
from pipeline.validate import label_errors, near_duplicates, registration

VALUES = 2**22  # pixels held as floats at a time
CHUNK = 4096  # pairs compared at a time
NONE = -1  # in a column of row numbers
CHANCE = 3  # standard errors by which the means of two splits may differ before the difference counts as drift
REGISTERED = 3.0  # weight of a residual after registration, which fits seven unknowns, as a distance
THREADS = 8  # at most: each holds a chunk
Columns = dict[str, np.ndarray]


@dataclass(frozen=True)
class Tables:
    """The results of `compare`, `class_table` and `split_table`."""

    images: pd.DataFrame
    classes: pd.DataFrame
    splits: pd.DataFrame


def measure(published: dict[str, Images]) -> tuple[pd.DataFrame, np.ndarray]:
    """Measure each image by itself: one row per image, and its low frequencies, float16 (n, c, k).

    `published` and `index` identify the image; range, mean and std are those of its pixels, 0 to 255; `ink` the share
    of pixels above 127; `sha256` the digest of the pixels.
    """
    tables, spectra = [], []
    for name, split in published.items():
        count, height, width, channels = split.images.shape
        spectrum = np.empty((count, channels, near_duplicates.COARSE**2), np.float16)

        def measured(chunk: slice, images: np.ndarray = split.images, spectrum: np.ndarray = spectrum) -> Columns:
            spectrum[chunk] = near_duplicates.frequencies(images[chunk])
            return _statistics(images[chunk])

        with ThreadPoolExecutor(min(machine.cores(), THREADS)) as pool:
            parts = list(pool.map(measured, chunks(count, (height, width, channels))))
        columns = {column: np.concatenate([part[column] for part in parts]) for column in parts[0]}
        shape = {"height": height, "width": width, "channels": channels}
        identity = {"published": name, "index": np.arange(count, dtype=np.int32), "label": split.labels}
        tables.append(pd.DataFrame({**identity, **shape, **columns}))
        spectra.append(spectrum)
    return pd.concat(tables, ignore_index=True), np.concatenate(spectra)


def chunks(count: int, shape: tuple[int, ...]) -> list[slice]:
    """Slices of `count` images of the shape (height, width, channels) that each fit into little memory."""
    size = max(1, VALUES // math.prod(shape))
    return [slice(start, start + size) for start in range(0, count, size)]


def _statistics(images: np.ndarray) -> Columns:
    pixels = images.reshape(len(images), -1)
    centred = pixels.astype(np.float32)
    mean = centred.mean(axis=1)
    centred -= mean[:, np.newaxis]
    return {
        "range": np.ptp(pixels, axis=1),
        "mean": mean,
        "std": np.sqrt(np.einsum("ij,ij->i", centred, centred) / pixels.shape[1]),
        "ink": (np.count_nonzero(pixels > 127, axis=1) / pixels.shape[1]).astype(np.float32),
        "sha256": np.array([hashlib.sha256(image.data).hexdigest() for image in pixels], object),
    }


def compare(
    rows: pd.DataFrame, spectrum: np.ndarray, published: dict[str, Images], classes: int, near: float, seed: int
) -> pd.DataFrame:
    """Compare the images with each other, and return the rows with the results.

    `copy_of` is the row of the first image with the same pixels, `near_to` the most similar earlier row and `distance`
    its distance (`near_duplicates.distances`, or that after registration if it is less; infinite if not below `near`),
    NONE if there is no such row;
    `label_margin` and `best_other_label` are those of `label_errors.margins`.
    """
    numbers = pd.Series(np.arange(len(rows)), index=rows.index)
    first = numbers.groupby(rows["sha256"].to_numpy(), sort=False).transform("min").to_numpy()
    copied = first != np.arange(len(rows))
    split, label = rows["split"].to_numpy(), rows["label"].to_numpy()
    distance, near_to = _nearest_earlier(rows, spectrum, _reduced(published), near, seed)
    margin, best = label_errors.margins(spectrum, label, classes, seed)
    return rows.assign(
        copy_of=np.where(copied, first, NONE).astype(np.int32),
        copied_within_split=rows.duplicated(["sha256", "split"]).to_numpy(),
        copied_across_splits=copied & (split != split[first]),
        copied_with_other_label=copied & (label != label[first]),
        near_to=near_to,
        distance=distance,
        label_margin=margin,
        best_other_label=best.astype(np.int32),
    )


def _reduced(published: dict[str, Images]) -> dict[str, Images]:
    """The images at the size at which pairs are compared: a large one may be part of many pairs."""
    height, width, channels = shape = next(iter(published.values())).images.shape[1:]
    side = registration.SIDE
    if max(height, width) <= side:
        return published
    result = {}
    for name, split in published.items():
        images = np.empty((len(split.images), min(height, side), min(width, side), channels), np.uint8)
        for chunk in chunks(len(images), shape):
            images[chunk] = registration.reduced(split.images[chunk])
        result[name] = Images(images, split.labels)
    return result


def _nearest_earlier(
    rows: pd.DataFrame, spectrum: np.ndarray, published: dict[str, Images], near: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    distance = np.full(len(rows), np.inf, np.float32)
    near_to = np.full(len(rows), NONE, np.int32)
    earlier, later = _close_pairs(rows, spectrum, near)
    found = np.empty(len(earlier), np.float32)
    for chunk in chunks(len(earlier), next(iter(published.values())).images.shape[1:]):
        fine = [
            near_duplicates.frequencies(pixels(published, rows.iloc[each[chunk]]), near_duplicates.FINE)
            for each in (earlier, later)
        ]
        found[chunk] = near_duplicates.distances(*fine)
    one, other, residual = _registered_pairs(rows, published, seed)
    earlier, later = np.concatenate([earlier, one]), np.concatenate([later, other])
    found = np.concatenate([found, REGISTERED * residual])
    worst_first = np.argsort(found, kind="stable")[::-1]  # of several assignments to one row, the last counts
    worst_first = worst_first[found[worst_first] < near]
    distance[later[worst_first]] = found[worst_first]
    near_to[later[worst_first]] = earlier[worst_first]
    return distance, near_to


def _registered_pairs(
    rows: pd.DataFrame, published: dict[str, Images], seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of similar, not equal images, as earlier and later rows, and what is left of them after registration."""
    shape = next(iter(published.values())).images.shape[1:]
    first = np.flatnonzero(~rows.duplicated("sha256").to_numpy())
    if min(shape[:2]) < registration.SMALLEST or len(first) == 0:
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32)

    def prepared(chosen: np.ndarray, smoothing: float) -> np.ndarray:
        return registration.prepared(pixels(published, rows.iloc[chosen]), smoothing)

    def described(chosen: np.ndarray, axes: np.ndarray) -> np.ndarray:
        parts = (chosen[chunk] for chunk in chunks(len(chosen), shape))
        return np.concatenate([registration.descriptors(prepared(part, registration.BLUNT)) @ axes for part in parts])

    sample = np.random.default_rng(seed).permutation(first)[: registration.SAMPLE]
    axes = registration.principal_axes(described(sample, np.eye(registration.GRID**2, dtype=np.float32)))
    lower, higher = registration.neighbours(described(first, axes), seed)
    one, other = first[lower], first[higher]
    found = np.empty(len(one), np.float32)
    for chunk in chunks(len(one), shape):
        left, right = (prepared(each[chunk], registration.SMOOTHING) for each in (one, other))
        found[chunk] = registration.residuals(left, right)
    return one, other, found


def _close_pairs(rows: pd.DataFrame, spectrum: np.ndarray, near: float) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of images that differ in the coarse frequencies by noise at most, each once, without exact copies."""
    digest = rows["sha256"].to_numpy(object)
    pairs = [np.empty(0, np.int64)]
    for one, other in near_duplicates.candidates(near_duplicates.hashes(spectrum)):
        for start in range(0, len(one), CHUNK):
            left, right = one[start : start + CHUNK], other[start : start + CHUNK]
            close = near_duplicates.distances(spectrum[left], spectrum[right]) < near_duplicates.WHITE * near
            close &= digest[left] != digest[right]
            pairs.append(left[close].astype(np.int64) * len(rows) + right[close])
    earlier, later = np.divmod(np.unique(np.concatenate(pairs)), max(len(rows), 1))
    return earlier, later


def pixels(published: dict[str, Images], rows: pd.DataFrame) -> np.ndarray:
    """The images of the given rows, (n, height, width, channels), in their order."""
    shape = next(iter(published.values())).images.shape[1:]
    images = np.empty((len(rows), *shape), np.uint8)
    split, index = rows["published"].to_numpy(), rows["index"].to_numpy()
    for name, content in published.items():
        chosen = split == name
        images[chosen] = content.images[index[chosen]]
    return images


def class_table(rows: pd.DataFrame, names: tuple[str, ...], expected: tuple[float, ...]) -> pd.DataFrame:
    """One row per class and split, also for a class without images; `ratio` is its share over the expected share."""
    splits = [name for name in SPLITS if name in set(rows["split"])]
    every = pd.MultiIndex.from_product([splits, range(len(names))], names=["split", "label"])
    counts = rows.groupby(["split", "label"]).size().reindex(every, fill_value=0).rename("images").reset_index()
    counts["share"] = counts["images"] / counts.groupby("split")["images"].transform("sum").clip(lower=1)
    counts["expected"] = counts["label"].map(dict(enumerate(expected)))
    counts["ratio"] = counts["share"] / counts["expected"]
    counts.insert(2, "name", counts["label"].map(dict(enumerate(names))))
    return counts


def split_table(rows: pd.DataFrame, classes: pd.DataFrame) -> pd.DataFrame:
    """One row per split: counts, means over its images, and their drift from the training images.

    Drift is in standard deviations between training images, less the difference that chance alone explains.
    """
    present = classes[classes["images"] > 0].groupby("split")
    measured = ["mean", "std", "ink"]
    means = rows[measured].astype("float64").groupby(rows["split"]).mean()
    table = pd.DataFrame(
        {
            "images": present["images"].sum(),
            "classes": present.size(),
            "imbalance": present["ratio"].max() / present["ratio"].min(),
        }
    ).join(means)
    train = rows[rows["split"] == "train"]
    chance = CHANCE * np.sqrt(1 / table["images"] + 1 / max(len(train), 1))
    chance[table.index == "train"] = 0.0
    for column in measured:
        spread = max(float(train[column].std(ddof=0)), np.finfo(np.float32).eps)
        difference = (table[column] - train[column].mean()).abs() / spread
        table[f"{column}_drift"] = (difference - chance).clip(lower=0)
    return table.reindex([name for name in SPLITS if name in table.index]).reset_index(names="split")
