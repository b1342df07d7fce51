"""What can be measured of every image before anything is trained: the tables that pipeline/schema.py checks."""

import hashlib
import math

import numpy as np
import pandas as pd

from pipeline import label_errors, similarity
from pipeline.readers import Images
from pipeline.schema import SPLITS

VALUES = 2**22  # pixels that are held as floats at a time
CHUNK = 4096  # pairs that are compared at a time
NONE = -1  # in a column of row numbers
CHANCE = 3  # standard errors by which the means of two splits may differ before it counts as drift
PREFILTER = 4  # times the bound on near duplicates, in the coarse frequencies, within which the fine ones are compared


def measure(published: dict[str, Images]) -> tuple[pd.DataFrame, np.ndarray]:
    """One row per image, split by split as published, and the low frequencies of the images, float16 (n, c, k).

    `published` and `index` say where an image is; minimum to deviation are over its pixels, of 255; `ink` is the share
    of pixels above 127; `sha256` is that of the pixels.
    """
    tables, spectra = [], []
    for name, split in published.items():
        count, height, width, channels = split.images.shape
        spectrum = np.empty((count, channels, similarity.COARSE**2), np.float16)
        figures: dict[str, list[np.ndarray]] = {}
        for chunk in chunks(count, (height, width, channels)):
            images = split.images[chunk]
            spectrum[chunk] = similarity.frequencies(images)
            for figure, values in _figures(images).items():
                figures.setdefault(figure, []).append(values)
        shape = {"height": height, "width": width, "channels": channels}
        columns = {figure: np.concatenate(values) for figure, values in figures.items()}
        where = {"published": name, "index": np.arange(count, dtype=np.int32), "label": split.labels}
        tables.append(pd.DataFrame({**where, **shape, **columns}))
        spectra.append(spectrum)
    return pd.concat(tables, ignore_index=True), np.concatenate(spectra)


def chunks(count: int, shape: tuple[int, ...]) -> list[slice]:
    """Images of a shape (height, width, channels) in portions that fit into little memory."""
    size = max(1, VALUES // math.prod(shape))
    return [slice(start, start + size) for start in range(0, count, size)]


def _figures(images: np.ndarray) -> dict[str, np.ndarray]:
    pixels = images.reshape(len(images), -1)
    minimum, maximum = pixels.min(axis=1), pixels.max(axis=1)
    away = pixels.astype(np.float32)
    mean = away.mean(axis=1)
    away -= mean[:, np.newaxis]
    return {
        "minimum": minimum,
        "maximum": maximum,
        "range": maximum - minimum,
        "mean": mean,
        "deviation": np.sqrt(np.einsum("ij,ij->i", away, away) / pixels.shape[1]),
        "ink": (np.count_nonzero(pixels > 127, axis=1) / pixels.shape[1]).astype(np.float32),
        "sha256": np.array([hashlib.sha256(image.data).hexdigest() for image in pixels], object),
    }


def compare(
    rows: pd.DataFrame, spectrum: np.ndarray, published: dict[str, Images], classes: int, near: float, seed: int
) -> pd.DataFrame:
    """The rows with what only the other images can tell.

    `copy_of` is the row of the first image with the same pixels, `near_to` the earlier row that looks most alike and
    `distance` how far it is off (`similarity.distances`; infinite beyond `near`), NONE where there is none;
    `label_margin` and `best_other_label` are those of `label_errors`.
    """
    first = _first_copy(rows)
    copied = first != np.arange(len(rows))
    split, label = rows["split"].to_numpy(), rows["label"].to_numpy()
    distance, near_to = _nearest_earlier(rows, spectrum, published, near)
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


def _first_copy(rows: pd.DataFrame) -> np.ndarray:
    numbers = pd.Series(np.arange(len(rows)), index=rows.index)
    return numbers.groupby(rows["sha256"].to_numpy(), sort=False).transform("min").to_numpy()


def _nearest_earlier(
    rows: pd.DataFrame, spectrum: np.ndarray, published: dict[str, Images], near: float
) -> tuple[np.ndarray, np.ndarray]:
    distance = np.full(len(rows), np.inf, np.float32)
    near_to = np.full(len(rows), NONE, np.int32)
    earlier, later = _close_pairs(rows, spectrum, near)
    found = np.empty(len(earlier), np.float32)
    for some in chunks(len(earlier), next(iter(published.values())).images.shape[1:]):
        fine = [
            similarity.frequencies(pixels(published, rows.iloc[each[some]]), similarity.FINE)
            for each in (earlier, later)
        ]
        found[some] = similarity.distances(*fine)
    worst_first = np.argsort(found, kind="stable")[::-1]  # what is written last counts
    worst_first = worst_first[found[worst_first] < near]
    distance[later[worst_first]] = found[worst_first]
    near_to[later[worst_first]] = earlier[worst_first]
    return distance, near_to


def _close_pairs(rows: pd.DataFrame, spectrum: np.ndarray, near: float) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of images that look alike in the coarse frequencies, each once, without exact copies."""
    digest = rows["sha256"].to_numpy(object)
    pairs = [np.empty(0, np.int64)]
    for one, other in similarity.candidates(similarity.hashes(spectrum)):
        for start in range(0, len(one), CHUNK):
            left, right = one[start : start + CHUNK], other[start : start + CHUNK]
            close = similarity.distances(spectrum[left], spectrum[right]) < PREFILTER * near
            close &= digest[left] != digest[right]
            pairs.append(left[close].astype(np.int64) * len(rows) + right[close])
    earlier, later = np.divmod(np.unique(np.concatenate(pairs)), max(len(rows), 1))
    return earlier, later


def pixels(published: dict[str, Images], rows: pd.DataFrame) -> np.ndarray:
    """The images of some rows, (n, height, width, channels), in their order."""
    shape = next(iter(published.values())).images.shape[1:]
    images = np.empty((len(rows), *shape), np.uint8)
    where, index = rows["published"].to_numpy(), rows["index"].to_numpy()
    for name, split in published.items():
        chosen = where == name
        images[chosen] = split.images[index[chosen]]
    return images


def class_table(rows: pd.DataFrame, names: tuple[str, ...], expected: tuple[float, ...]) -> pd.DataFrame:
    """One row for every class of every split, also where it has no image; `ratio` is its share over the expected."""
    splits = [name for name in SPLITS if name in set(rows["split"])]
    every = pd.MultiIndex.from_product([splits, range(len(names))], names=["split", "label"])
    counts = rows.groupby(["split", "label"]).size().reindex(every, fill_value=0).rename("images").reset_index()
    counts["share"] = counts["images"] / counts.groupby("split")["images"].transform("sum").clip(lower=1)
    counts["expected"] = counts["label"].map(dict(enumerate(expected)))
    counts["ratio"] = counts["share"] / counts["expected"]
    counts.insert(2, "name", counts["label"].map(dict(enumerate(names))))
    return counts


def split_table(rows: pd.DataFrame, classes: pd.DataFrame) -> pd.DataFrame:
    """One row per split: counts, means over its images, and how far these are from those of the training images.

    A drift is in standard deviations between training images, less what chance alone explains.
    """
    present = classes[classes["images"] > 0].groupby("split")
    figures = ["mean", "deviation", "ink"]
    means = rows[figures].astype("float64").groupby(rows["split"]).mean()
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
    for figure in figures:
        spread = max(float(train[figure].std(ddof=0)), np.finfo(np.float32).eps)
        off = (table[figure] - train[figure].mean()).abs() / spread
        table[f"{figure}_drift"] = (off - chance).clip(lower=0)
    return table.reindex([name for name in SPLITS if name in table.index]).reset_index(names="split")
