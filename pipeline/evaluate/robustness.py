"""Robustness metrics: corrupted and shifted images.

Networks are functions from uint8 images (n, h, w, c) to probabilities (n, classes). Each part of the changed images is
made once and shown to every network before the next is made, so memory does not grow with their number.
"""

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd
from tqdm import tqdm

from pipeline.core.dataset import Split
from pipeline.evaluate import corruptions
from pipeline.evaluate.metrics import proportion_interval
from pipeline.runtime.predictor import Predict

CLEAN = "clean"
PART = 2**26  # bytes of images that are changed and predicted at a time: MNIST's test images are one part


def sample(count: int, limit: int | None, seed: int) -> np.ndarray:
    """Indices of at most `limit` of so many images, ascending; of all of them without a limit."""
    if limit is None or count <= limit:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, limit, replace=False))


def corruption_errors(models: Mapping[str, Predict], test: Split, seed: int, limit: int | None = None) -> pd.DataFrame:
    """Error rates on unchanged images (`clean`) and under each corruption.

    Args:
        limit: at most so many images, drawn from the seed; None: all.

    Returns:
        A row for each network and corruption: model, corruption, error (share of wrong predictions), and relative: the
        error divided by that of the first network under the same corruption; NaN if that makes none. This is the
        corruption error CE of D. Hendrycks and T. Dietterich (2019, arXiv 1903.12261), at a single severity.
    """
    chosen = sample(len(test.images), limit, seed)
    size = max(1, PART // math.prod(test.images.shape[1:]))
    parts = [chosen[start : start + size] for start in range(0, len(chosen), size)]
    kinds = [CLEAN, *corruptions.CORRUPTIONS]
    errors = {}
    for kind in tqdm(kinds, desc="corruptions", disable=None, leave=False):
        wrong = dict.fromkeys(models, 0)
        for number, part in enumerate(parts):
            images = test.images[part]
            changed = images if kind == CLEAN else corruptions.corrupt(kind, images, seed, number)
            for model, predict in models.items():
                wrong[model] += int(np.sum(predict(changed).argmax(axis=1) != test.labels[part]))
        errors |= {(model, kind): wrong[model] / len(chosen) for model in models}
    found = pd.DataFrame(
        [(model, kind, errors[model, kind]) for model in models for kind in kinds],
        columns=["model", "corruption", "error"],
    )
    of_reference = np.tile(found["error"][: len(kinds)], len(models))
    return found.assign(relative=found["error"] / np.where(of_reference, of_reference, np.nan))


def corruption_summary(errors: pd.DataFrame) -> pd.DataFrame:
    """Summarize `corruption_errors`: a row for each network in the same order.

    Returns:
        model, clean_error, mean_error over the corruptions, mce (the mean of the relative errors, where the first
        network makes errors), worst (the corruption with the highest error).
    """
    corrupted = errors[errors["corruption"] != CLEAN]
    groups = corrupted.groupby("model", sort=False)
    clean = errors[errors["corruption"] == CLEAN].set_index("model")["error"]
    worst = corrupted.loc[groups["error"].idxmax()].set_index("model")["corruption"]
    return (
        groups.agg(mean_error=("error", "mean"), mce=("relative", "mean"))
        .assign(clean_error=clean, worst=worst)
        .reset_index()[["model", "clean_error", "mean_error", "mce", "worst"]]
    )


def shift_consistency(
    models: Mapping[str, Predict], images: np.ndarray, seed: int, limit: int | None = 500, max_shift: int = 4
) -> pd.DataFrame:
    """Share of images whose prediction survives every shift of up to 1, 2, ... `max_shift` pixels along either axis.

    Only images with a border of at least `max_shift` black pixels on every side are shifted, so that no shift loses any
    of their content; the same images serve for every distance. The gap is filled with black.

    Args:
        limit: at most so many images, drawn from the seed; None: all that can be shifted.

    Returns:
        A row for each network and distance: model, shift, images (their number), consistency: the share of images with
        the same predicted class under all (2 shift + 1)^2 - 1 shifts as without, its 95 % Wilson interval from low to
        high, and pairwise: how often two different positions of the (2 shift + 1)^2 get the same class, the mean over
        images, which is the consistency of R. Zhang (2019, arXiv 1904.11486). No rows if no image can be shifted.
    """
    shiftable = _shiftable(images, max_shift)
    still = images[shiftable[sample(len(shiftable), limit, seed)]]
    predicted: dict[str, list[np.ndarray]] = {model: [] for model in models}  # classes at each position so far
    rows: dict[str, list[tuple]] = {model: [] for model in models}
    for shift in tqdm(range(max_shift + 1 if len(still) else 0), desc="shifts", disable=None, leave=False):
        offsets = _ring(shift)
        size = max(1, PART // still.size)
        for part in [offsets[start : start + size] for start in range(0, len(offsets), size)]:
            shifted = np.concatenate([np.roll(still, offset, axis=(1, 2)) for offset in part])  # what leaves is black
            for model, predict in models.items():
                predicted[model] += list(predict(shifted).argmax(axis=1).reshape(len(part), len(still)))
        if shift:
            for model in models:
                rows[model].append((model, shift, *_consistency(np.stack(predicted[model]))))
    return pd.DataFrame(
        [row for model in models for row in rows[model]],
        columns=["model", "shift", "images", "consistency", "low", "high", "pairwise"],
    )


def _consistency(predicted: np.ndarray) -> tuple[int, float, float, float, float]:
    """The columns of `shift_consistency` from `images` on, for classes (positions, n); the first row is unshifted."""
    positions, count = predicted.shape
    same = int((predicted == predicted[0]).all(axis=0).sum())
    votes = (predicted[..., np.newaxis] == np.unique(predicted)).sum(axis=0)  # of each class for each image
    pairs = (votes * (votes - 1)).sum(axis=1) / (positions * (positions - 1))
    return count, same / count, *proportion_interval(same, count), float(pairs.mean())


def _shiftable(images: np.ndarray, border: int) -> np.ndarray:
    """Indices of the images with so many black pixels on every side."""
    size, found = max(1, PART // math.prod(images.shape[1:])), []
    for start in range(0, len(images), size):
        lit = images[start : start + size].max(axis=3) > 0
        inside = lit[:, border:-border, border:-border].sum(axis=(1, 2))
        found.append(start + np.flatnonzero(lit.sum(axis=(1, 2)) == inside))
    return np.concatenate(found)


def _ring(shift: int) -> list[tuple[int, int]]:
    """The offsets (down, across) whose greater distance along an axis is `shift`; (0, 0) for 0."""
    steps = range(-shift, shift + 1)
    return [(down, across) for down in steps for across in steps if max(abs(down), abs(across)) == shift]
