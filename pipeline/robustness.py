"""On what networks fail: corrupted images, shifted images, and images that show none of their classes.

A network is a function from uint8 images (n, h, w, c) to probabilities (n, classes). What is made of the images is made
once and shown to every network before the next is made, so memory does not grow with the number of corruptions.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import binomtest
from sklearn.metrics import roc_auc_score
from tqdm import tqdm

from pipeline import config, corruptions
from pipeline.errors import DataError

Predict = Callable[[np.ndarray], np.ndarray]

CLEAN = "clean"
OTHER = "other_dataset"
CONFIDENCE = 0.95  # of the intervals
NOISE_DEVIATION = 64  # of Gaussian noise, about the middle grey


@dataclass(frozen=True)
class Robustness:
    """What `corruption_errors`, `corruption_summary`, `shift_consistency` and `detection` return."""

    corruption: pd.DataFrame
    summary: pd.DataFrame
    shift: pd.DataFrame
    foreign: pd.DataFrame

    def figures(self, model: str) -> dict[str, float]:
        """The same of one network, by name; without those that there are no images for."""
        summed = self.summary.set_index("model").loc[model]
        shift, foreign = (table[table["model"] == model] for table in (self.shift, self.foreign))
        figures = {
            "corruption_error": summed["mean_error"],
            "corruption_mce": summed["mce"],
            **{f"consistency_{pixels}px": share for pixels, share in shift.set_index("shift")["consistency"].items()},
            **{f"auroc_{against}": area for against, area in foreign.set_index("against")["auroc"].items()},
        }
        return {name: float(value) for name, value in figures.items() if not np.isnan(value)}


def examine(
    models: Mapping[str, Predict],
    images: np.ndarray,
    labels: np.ndarray,
    seed: int,
    wanted: config.Robustness,
    other: np.ndarray | None = None,
) -> Robustness:
    """All of it, relative to the first network.

    Args:
        other: images of another dataset.
    """
    reference = next(iter(models))
    errors = corruption_errors(models, images, labels, reference, seed, limit=wanted.corrupted_images)
    return Robustness(
        errors,
        corruption_summary(errors),
        shift_consistency(models, images, seed, wanted.shifted_images, wanted.max_shift),
        detection(models, images, seed, other, wanted.foreign_images),
    )


def sample(count: int, limit: int | None, seed: int) -> np.ndarray:
    """Numbers of at most `limit` of so many images, ascending; all of them without a limit."""
    if limit is None or count <= limit:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, limit, replace=False))


def corruption_errors(
    models: Mapping[str, Predict],
    images: np.ndarray,
    labels: np.ndarray,
    reference: str,
    seed: int,
    names: Iterable[str] = corruptions.CORRUPTIONS,
    limit: int | None = None,
) -> pd.DataFrame:
    """Error rates on images as they are (`clean`) and under each corruption.

    Args:
        limit: at most so many images, drawn from the seed; None: all.

    Returns:
        A row for each network and corruption: model, corruption, error (share of wrong answers), and relative: the
        error over that of the reference network under the same corruption; NaN if the reference has none. That is the
        corruption error CE of D. Hendrycks and T. Dietterich (2019, arXiv 1903.12261), at a single severity.

    Raises:
        DataError: the reference is none of the networks.
    """
    if reference not in models:
        raise DataError(f"the reference {reference} is none of the networks: {', '.join(models)}")
    chosen = sample(len(images), limit, seed)
    images, labels = images[chosen], labels[chosen]
    kinds = [CLEAN, *names]
    errors = {}
    for kind in tqdm(kinds, desc="corruptions", disable=None, leave=False):
        changed = images if kind == CLEAN else corruptions.corrupt(kind, images, seed)
        for model, predict in models.items():
            errors[model, kind] = float(np.mean(predict(changed).argmax(axis=1) != labels))
    rows = [
        (
            model,
            kind,
            errors[model, kind],
            errors[model, kind] / errors[reference, kind] if errors[reference, kind] else np.nan,
        )
        for model in models
        for kind in kinds
    ]
    return pd.DataFrame(rows, columns=["model", "corruption", "error", "relative"])


def corruption_summary(errors: pd.DataFrame) -> pd.DataFrame:
    """What `corruption_errors` comes to, a row for each network in the same order.

    Returns:
        model, clean_error, mean_error over the corruptions, mce (the mean of the relative errors, over the corruptions
        under which the reference errs), worst (the corruption with the highest error).
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
    models: Mapping[str, Predict], images: np.ndarray, seed: int, limit: int | None = 500, furthest: int = 4
) -> pd.DataFrame:
    """How often a network's answer outlives shifts of up to 1, 2, ... `furthest` pixels along either axis.

    Only images with a border of at least `furthest` black pixels on every side are shifted, so that no shift loses
    anything of what they show; the same images serve for every distance. Black comes in.

    Args:
        limit: at most so many images, drawn from the seed; None: all that can be shifted.

    Returns:
        A row for each network and distance: model, shift, images (their number), consistency: the share of images with
        the same predicted class under all (2 shift + 1)^2 - 1 shifts as without, its 95 % Wilson interval from low to
        high, and pairwise: how often two different ones of the (2 shift + 1)^2 places get the same class, the mean over
        images, which is the consistency of R. Zhang (2019, arXiv 1904.11486). No rows where no image can be shifted.
    """
    shiftable = _shiftable(images, furthest)
    still = images[shiftable[sample(len(shiftable), limit, seed)]]
    answers: dict[str, list[np.ndarray]] = {model: [] for model in models}  # of the images at each place so far
    rows: dict[str, list[tuple]] = {model: [] for model in models}
    for shift in tqdm(range(furthest + 1 if len(still) else 0), desc="shifts", disable=None, leave=False):
        places = _ring(shift)
        shifted = np.concatenate([np.roll(still, place, axis=(1, 2)) for place in places])  # what leaves is black
        for model, predict in models.items():
            answers[model] += list(predict(shifted).argmax(axis=1).reshape(len(places), len(still)))
            if shift:
                rows[model].append((model, shift, *_consistency(np.stack(answers[model]))))
    return pd.DataFrame(
        [row for model in models for row in rows[model]],
        columns=["model", "shift", "images", "consistency", "low", "high", "pairwise"],
    )


def _consistency(answers: np.ndarray) -> tuple[int, float, float, float, float]:
    """What `shift_consistency` returns for one network, from its classes at every place, (places, n); the first row is
    that of the images as they are."""
    places, count = answers.shape
    same = int((answers == answers[0]).all(axis=0).sum())
    interval = binomtest(same, count).proportion_ci(CONFIDENCE, method="wilson")
    votes = (answers[..., np.newaxis] == np.unique(answers)).sum(axis=0)  # of each class for each image
    pairs = (votes * (votes - 1)).sum(axis=1) / (places * (places - 1))
    return count, same / count, interval.low, interval.high, float(pairs.mean())


def most_consistent(consistency: pd.DataFrame) -> pd.DataFrame:
    """The consistency of each network in a row, of each shift in a column; the highest mean over the shifts first."""
    wide = consistency.pivot(index="model", columns="shift", values="consistency")
    return wide.loc[wide.mean(axis=1).sort_values(ascending=False, kind="stable").index]


def detection(
    models: Mapping[str, Predict],
    images: np.ndarray,
    seed: int,
    other: np.ndarray | None = None,
    limit: int | None = 2000,
) -> pd.DataFrame:
    """How well the highest probability tells images of the classes from others (D. Hendrycks, K. Gimpel, 2017,
    arXiv 1610.02136).

    Args:
        other: images of another dataset, of the same height, width and channels.
        limit: at most so many images of either kind, drawn from the seed; None: all.

    Returns:
        A row for each network and kind of foreign image: model, against, auroc. 1: every image of the classes gets a
        higher probability for its class than any foreign one; 0.5: no better than chance; below: worse.

    Raises:
        DataError: the other images are of another shape.
    """
    if other is not None and other.shape[1:] != images.shape[1:]:
        raise DataError(f"images of another dataset have the shape {other.shape[1:]}; allowed: {images.shape[1:]}")
    foreign = FOREIGN if other is None else FOREIGN | {OTHER: lambda _, rng: other[sample(len(other), limit, seed)]}
    images = images[sample(len(images), limit, seed)]
    known = {model: predict(images).max(axis=1) for model, predict in models.items()}
    found = {}
    for kind, make in tqdm(foreign.items(), desc="foreign images", disable=None, leave=False):
        made = make(images, np.random.default_rng([seed, *kind.encode()]))
        truth = np.repeat([True, False], [len(images), len(made)])
        for model, predict in models.items():
            found[model, kind] = float(roc_auc_score(truth, np.concatenate([known[model], predict(made).max(axis=1)])))
    rows = [(model, kind, found[model, kind]) for model in models for kind in foreign]
    return pd.DataFrame(rows, columns=["model", "against", "auroc"])


def uniform_noise(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 256, images.shape, np.uint8)


def gaussian_noise(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    values = rng.standard_normal(images.shape, np.float32) * NOISE_DEVIATION + 255 / 2
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def permuted(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The same pixels in another order, drawn for each image by itself; the channels of a pixel stay together."""
    pixels = images.reshape(len(images), -1, images.shape[3])
    order = rng.random(pixels.shape[:2], np.float32).argsort(axis=1, kind="stable")
    return np.take_along_axis(pixels, order[..., np.newaxis], axis=1).reshape(images.shape)


def inverted(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return 255 - images


def blank(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One grey for all pixels, from black to white in equal steps over the images."""
    greys = np.rint(np.linspace(0, 255, len(images))).astype(np.uint8)
    return np.broadcast_to(greys[:, np.newaxis, np.newaxis, np.newaxis], images.shape).copy()


FOREIGN: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "uniform_noise": uniform_noise,
    "gaussian_noise": gaussian_noise,
    "permuted": permuted,
    "inverted": inverted,
    "blank": blank,
}


def _shiftable(images: np.ndarray, border: int) -> np.ndarray:
    """Numbers of the images with so many black pixels on every side."""
    lit = images.max(axis=3) > 0
    inside = lit[:, border:-border, border:-border].sum(axis=(1, 2))
    return np.flatnonzero(lit.sum(axis=(1, 2)) == inside)


def _ring(shift: int) -> list[tuple[int, int]]:
    """The places (down, across) whose greater distance along an axis is `shift`; (0, 0) for 0."""
    steps = range(-shift, shift + 1)
    return [(down, across) for down in steps for across in steps if max(abs(down), abs(across)) == shift]
