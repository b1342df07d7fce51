"""Detection of out-of-distribution images, which show none of the classes, by low confidence."""

import math
from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score
from tqdm import tqdm

from pipeline.core import config
from pipeline.core.errors import DataError
from pipeline.core.paths import Paths
from pipeline.evaluate.robustness import sample
from pipeline.formats.read import read
from pipeline.runtime.predictor import Predict

OTHER = "other_dataset"
VALUES = 2**24  # pixels times channels that are made at a time, to bound the memory
NOISE_STD = 64  # of Gaussian noise, about the middle grey


def load_images(dataset: str | None, paths: Paths) -> np.ndarray | None:
    """The test images of another dataset, whose files are checked as `validate` checks them; None for None.

    Raises:
        DataError: the dataset was not downloaded, or a file is damaged.
    """
    if dataset is None:
        return None
    if not paths.raw(dataset).is_dir():
        raise DataError(
            f"{paths.raw(dataset)}: not found, but needed for evaluate.robustness.out_of_distribution_dataset; run "
            f"`dvc repro download` once with data.dataset: {dataset}, or set it to null"
        )
    published = read(config.load_catalog(paths)[dataset], paths.raw(dataset))
    return published.get("test", published["train"]).images


def detection(
    models: Mapping[str, Predict],
    images: np.ndarray,
    seed: int,
    other: np.ndarray | None = None,
    limit: int | None = 2000,
) -> pd.DataFrame:
    """AUROC of detection by the maximum probability (D. Hendrycks, K. Gimpel, 2017, arXiv 1610.02136).

    Args:
        other: images of another dataset, of the same height, width and channels.
        limit: at most so many images of either kind, drawn from the seed; None: all.

    Returns:
        A row for each network and kind of out-of-distribution image: model, against, auroc. 1: every image of the
        classes gets a higher confidence than any other image; 0.5: no better than chance.

    Raises:
        DataError: the other images are of another shape.
    """
    if other is not None and other.shape[1:] != images.shape[1:]:
        raise DataError(f"images of another dataset have the shape {other.shape[1:]}; allowed: {images.shape[1:]}")
    kinds = KINDS if other is None else KINDS | {OTHER: lambda _, rng: other[sample(len(other), limit, seed)]}
    images = images[sample(len(images), limit, seed)]
    known = {model: predict(images).max(axis=1) for model, predict in models.items()}
    areas = {}
    for kind, make in tqdm(kinds.items(), desc="out-of-distribution images", disable=None, leave=False):
        rng = np.random.default_rng([seed, *kind.encode()])
        size = len(images) if kind == OTHER else max(1, VALUES // math.prod(images.shape[1:]))
        parts = [make(images[start : start + size], rng) for start in range(0, len(images), size)]
        made = np.concatenate(parts)
        truth = np.repeat([True, False], [len(images), len(made)])
        for model, predict in models.items():
            areas[model, kind] = float(roc_auc_score(truth, np.concatenate([known[model], predict(made).max(axis=1)])))
    rows = [(model, kind, areas[model, kind]) for model in models for kind in kinds]
    return pd.DataFrame(rows, columns=["model", "against", "auroc"])


def uniform_noise(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 256, images.shape, np.uint8)


def gaussian_noise(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    values = rng.standard_normal(images.shape, np.float32) * NOISE_STD + 255 / 2
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def permuted(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The pixels of each image in a random order of its own; the channels of a pixel stay together."""
    pixels = images.reshape(len(images), -1, images.shape[3])
    order = rng.random(pixels.shape[:2], np.float32).argsort(axis=1, kind="stable")
    return np.take_along_axis(pixels, order[..., np.newaxis], axis=1).reshape(images.shape)


def inverted(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return 255 - images


def blank(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One grey for all pixels, from black to white in equal steps over the images."""
    greys = np.rint(np.linspace(0, 255, len(images))).astype(np.uint8)
    return np.broadcast_to(greys[:, np.newaxis, np.newaxis, np.newaxis], images.shape).copy()


KINDS: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "uniform_noise": uniform_noise,
    "gaussian_noise": gaussian_noise,
    "permuted": permuted,
    "inverted": inverted,
    "blank": blank,
}
