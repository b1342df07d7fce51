"""Likely label errors: a margin for the label of every image, from a classifier fitted to other images.

A linear classifier on random features (A. Rahimi, B. Recht, Random features for large-scale kernel machines, 2007) is
fitted by least squares to one half of the images and applied to the other. It is weaker than a network, but takes
less than a second, needs no TensorFlow, and judges only labels it was not fitted to.

Not cleanlab, which ranks the predictions of a classifier but has none of its own: with scikit-learn's logistic
regression it ranks fewer planted errors first, in 40 times the time, and takes 1 s to import (docs/data.md).
"""

import numpy as np

from pipeline.validate import near_duplicates

UNITS = 1024
FITTED = 2**14  # images of a half that are used for fitting; more would cost time and help little
HALVES = 2
BIAS = 0.3  # its standard deviation; the inputs have norm 1 and the weights unit variance
TRUSTED = 0.5  # share of the labels that the classifier has to agree with
RIDGE = 3e-3  # relative to the mean square of a unit
CHUNK = 4096


def margins(spectrum: np.ndarray, labels: np.ndarray, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The score of the given label minus that of the best other label, and that other label.

    About 1: certainly right; about -1: certainly wrong. NaN for a label outside 0 to classes - 1, and for all labels if
    the classifier agrees with less than half of them: then it is not to be trusted.

    Args:
        spectrum: frequencies of the images, (n, channels, k).

    Returns:
        margins, float32 (n,), and the best other label, int64 (n,).
    """
    random = np.random.default_rng(seed)
    inputs = spectrum.shape[1] * spectrum.shape[2]
    weights = random.standard_normal((inputs, UNITS), np.float32)
    bias = BIAS * random.standard_normal(UNITS, np.float32)
    known = (labels >= 0) & (labels < classes)
    chunks = [slice(start, start + CHUNK) for start in range(0, len(labels), CHUNK)]

    # At random: the images may be ordered by label.
    half = random.integers(0, HALVES, len(labels))
    sampled = known & (random.random(len(labels)) < HALVES * FITTED / max(len(labels), 1))

    def units(chunk: slice, chosen: np.ndarray) -> np.ndarray:
        vectors = near_duplicates.without_brightness(spectrum[chunk][chosen[chunk]])
        vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6)
        return np.maximum(vectors @ weights + bias, 0)

    result, best = np.full(len(labels), np.nan, np.float32), np.empty(len(labels), np.int64)
    for number in range(HALVES):
        judged = half == number
        fitted = sampled & ~judged
        squares, targets = np.zeros((UNITS, UNITS), np.float32), np.zeros((UNITS, classes), np.float32)
        for chunk in chunks:
            features = units(chunk, fitted)
            squares += features.T @ features
            targets += features.T @ np.eye(classes, dtype=np.float32)[labels[chunk][fitted[chunk]]]
        ridge = RIDGE * np.trace(squares) / UNITS + 1e-6
        solution = np.linalg.solve(squares + ridge * np.eye(UNITS, dtype=np.float32), targets)
        for chunk in chunks:
            scores = units(chunk, judged) @ solution
            rows = np.arange(len(labels))[chunk][judged[chunk]]
            own = np.flatnonzero(known[rows])
            given = labels[rows[own]]
            result[rows[own]] = scores[own, given]
            scores[own, given] = -np.inf
            best[rows] = scores.argmax(axis=1)
            result[rows[own]] -= scores[own, best[rows[own]]]
    if known.any() and np.mean(result[known] > 0) < TRUSTED:
        result[:] = np.nan
    return result, best
