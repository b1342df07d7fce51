"""Scores that tell unusual images from those that a network was made for, and their limits.

Each limit is a quantile of the scores of validation images, so that a known share of usual images lies beyond it.

Familiarity is the cosine of the angle between the vector that enters the output layer and the weights of the nearest
class, less their mean over the classes. A noisy image gives a long vector, hence a large logit and a high probability;
the cosine does not depend on the length. The turn is the gain in familiarity by a quarter turn, a half turn or a
three-quarter turn, whichever is largest.
"""

import math
from dataclasses import dataclass

import keras
import numpy as np

from models import inference
from pipeline.core.limits import Limits
from pipeline.runtime import drawing

OUT_OF_DISTRIBUTION = 0.02  # share of validation images beyond each limit, at most
TURNED = 0.01
SEVERAL = 0.01
SMALLEST_PART = 0.1  # of the largest part: smaller ones are dots, or gaps in a stroke
MAX_IMAGES = 2000  # validation images that the limits follow from
VALUES = 2**24  # pixels times channels that are held as floats at a time, before they are turned
TURNS = 4


@dataclass(frozen=True)
class Scores:
    """float64 probabilities (n, classes) and familiarity (n,), from -1 to 1."""

    probabilities: np.ndarray
    familiarity: np.ndarray


class Scorer:
    """Predicts probabilities and familiarity together."""

    def __init__(self, model: keras.Model) -> None:
        output = inference.classifier(model)
        assert output is not None
        self._model = model
        self._with_vector = keras.Model(model.inputs[0], [output.input, model.outputs[0]])
        kernel = keras.ops.convert_to_numpy(output.kernel).astype(np.float32)
        self._classes = _of_length_one((kernel - kernel.mean(axis=1, keepdims=True)).T)

    def __call__(self, images: np.ndarray) -> Scores:
        """Score images (n, height, width, channels), float32 in [0, 1]."""
        size = inference.batch_size(images.shape[1:])
        parts = [
            self._with_vector.predict_on_batch(images[start : start + size]) for start in range(0, len(images), size)
        ]
        vectors, outputs = (np.concatenate(each).astype(np.float32) for each in zip(*parts, strict=True))
        familiarity = (_of_length_one(vectors) @ self._classes.T).max(axis=1)
        return Scores(inference.normalised(self._model, outputs), familiarity)

    def turned(self, images: np.ndarray) -> list[Scores]:
        """Score square images, and the same turned counter-clockwise by one, two and three right angles."""
        together = self(np.concatenate([np.rot90(images, turn, axes=(1, 2)) for turn in range(TURNS)]))
        shares = zip(np.split(together.probabilities, TURNS), np.split(together.familiarity, TURNS), strict=True)
        return [Scores(*share) for share in shares]


def turn(scores: list[Scores]) -> np.ndarray:
    """The turn, (n,), given the scores of `Scorer.turned`."""
    return np.max([each.familiarity for each in scores[1:]], axis=0) - scores[0].familiarity


def limits(model: keras.Model, images: np.ndarray) -> Limits:
    """Compute the limits from validation images, uint8 (n, height, width, channels), of a network that ends in a dense
    layer."""
    chosen = np.linspace(0, len(images) - 1, min(len(images), MAX_IMAGES), dtype=int)
    size = max(1, VALUES // math.prod(images.shape[1:]))
    scorer, familiarity, turns, parts = Scorer(model), [], [], []
    for start in range(0, len(chosen), size):
        pixels = images[chosen[start : start + size]].astype(np.float32) / 255
        scores = scorer.turned(pixels) if square(pixels.shape[1:]) else [scorer(pixels)]
        familiarity.extend(scores[0].familiarity)
        if len(scores) > 1:
            turns.extend(turn(scores))
        if pixels.shape[3] == 1:
            parts += [drawing.second_part(drawing.mask(drawing.contrast(image)[0])) for image in pixels[..., 0]]
    return Limits(
        familiarity=float(np.quantile(familiarity, OUT_OF_DISTRIBUTION, method="lower")),
        turn=max(0.0, float(np.quantile(turns, 1 - TURNED, method="higher"))) if turns else None,
        second_part=max(SMALLEST_PART, float(np.quantile(parts, 1 - SEVERAL, method="higher"))) if parts else None,
    )


def square(shape: tuple[int, ...]) -> bool:
    """Return whether images of this shape, (height, width, channels), can be turned by a right angle."""
    return shape[0] == shape[1]


def _of_length_one(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.finfo(np.float32).tiny)
