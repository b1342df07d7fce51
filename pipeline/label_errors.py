"""How well the label of every image fits what the other images say: a ranking of likely label errors.

A linear classifier on random features (A. Rahimi, B. Recht, Random features for large-scale kernel machines, 2007),
fitted by least squares to one half of the images and asked about the other. It is no rival to a network, but it needs
no TensorFlow, takes seconds and never saw the label that it judges.
"""

import numpy as np

from pipeline import similarity

UNITS = 1024
FITTED = 2**14  # images of a half that are learned from: more would cost time and help little
HALVES = 2
BIAS = 0.3  # its standard deviation; the inputs have length 1 and the weights the variance 1
TRUSTED = 0.5  # share of the labels that the classifier has to agree with
RIDGE = 3e-3  # share of the mean square of a unit
CHUNK = 4096


def margins(spectrum: np.ndarray, labels: np.ndarray, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """What speaks for the given label minus what speaks for the best other one, and that other one.

    About 1: surely right; about -1: surely wrong. NaN where a label is none of 0 to classes - 1, and everywhere if the
    classifier agrees with less than half of the labels: then it is the one that is wrong.

    Args:
        spectrum: frequencies of the images, (n, channels, k).

    Returns:
        margins, float32 (n,), and the best other label, int64 (n,).
    """
    draws = np.random.default_rng(seed)
    inputs = spectrum.shape[1] * spectrum.shape[2]
    weights = draws.standard_normal((inputs, UNITS), np.float32)
    bias = BIAS * draws.standard_normal(UNITS, np.float32)
    known = (labels >= 0) & (labels < classes)
    chunks = [slice(start, start + CHUNK) for start in range(0, len(labels), CHUNK)]

    # At random: the order of the images may go with their labels.
    half = draws.integers(0, HALVES, len(labels))
    learned = known & (draws.random(len(labels)) < HALVES * FITTED / max(len(labels), 1))

    def units(chunk: slice, chosen: np.ndarray) -> np.ndarray:
        vectors = similarity.without_brightness(spectrum[chunk][chosen[chunk]])
        vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6)
        return np.maximum(vectors @ weights + bias, 0)

    scores = np.empty((len(labels), classes), np.float32)
    for number in range(HALVES):
        fit, asked = _Fit(classes), half == number
        fitted = learned & ~asked
        for chunk in chunks:
            fit.add(units(chunk, fitted), labels[chunk][fitted[chunk]])
        solution = fit.solution()
        for chunk in chunks:
            scores[chunk][asked[chunk]] = units(chunk, asked) @ solution
    rows = np.flatnonzero(known)
    result = np.full(len(labels), np.nan, np.float32)
    result[rows] = scores[rows, labels[rows]]
    scores[rows, labels[rows]] = -np.inf
    best = scores.argmax(axis=1)
    result[rows] -= scores[rows, best[rows]]
    if len(rows) and np.mean(result[rows] > 0) < TRUSTED:
        result[:] = np.nan
    return result, best


class _Fit:
    """Least squares, from sums that grow by chunks of images."""

    def __init__(self, classes: int) -> None:
        self._squares = np.zeros((UNITS, UNITS), np.float32)
        self._targets = np.zeros((UNITS, classes), np.float32)

    def add(self, units: np.ndarray, labels: np.ndarray) -> None:
        self._squares += units.T @ units
        self._targets += units.T @ np.eye(self._targets.shape[1], dtype=np.float32)[labels]

    def solution(self) -> np.ndarray:
        ridge = RIDGE * np.trace(self._squares) / UNITS + 1e-6
        return np.linalg.solve(self._squares + ridge * np.eye(UNITS, dtype=np.float32), self._targets)
