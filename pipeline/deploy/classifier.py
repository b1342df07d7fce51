"""Classification of pictures, with warnings about unusual ones."""

from dataclasses import dataclass

import numpy as np

from pipeline.deploy.network import LoadedNetwork
from pipeline.deploy.pictures import Picture
from pipeline.runtime import saliency, unusual
from pipeline.runtime.unusual import Scores

DIRECTIONS = ("", "90 degrees counter-clockwise", "180 degrees", "90 degrees clockwise")


@dataclass(frozen=True)
class Classified:
    """Probabilities of the classes, (n,), the most probable class, and warnings."""

    probabilities: np.ndarray
    best: int
    warnings: list[str]


class Classifier:
    """A loaded network that classifies prepared pictures. Turned and several objects are looked for in drawings alone:
    where the catalogue gives `ink`."""

    def __init__(self, loaded: LoadedNetwork) -> None:
        self.loaded = loaded
        limits = loaded.limits
        self._scorer = unusual.Scorer(loaded.model) if limits else None
        self._turns = limits is not None and limits.turn is not None and loaded.entry.ink is not None

    def classify(self, picture: Picture) -> Classified:
        """Classify a picture, and compare its scores with the limits."""
        images = picture.image[np.newaxis]
        if self._scorer is None:
            [probabilities], warnings = self.loaded.predict(images), picture.notes
            return Classified(probabilities, int(probabilities.argmax()), [*warnings])
        scores = self._scorer.turned(images) if self._turns else [self._scorer(images)]
        [probabilities] = scores[0].probabilities
        warnings = [*picture.notes, *self._warnings(picture, scores)]
        return Classified(probabilities, int(probabilities.argmax()), warnings)

    def saliency(self, picture: Picture, label: int) -> np.ndarray | None:
        """The evidence for a class at each pixel, (height, width), at least 0; None without convolutions."""
        images = np.rint(picture.image[np.newaxis] * 255).astype(np.uint8)
        found = saliency.grad_cam(self.loaded.model, images, np.array([label]))
        return None if found is None else found[0]

    def _warnings(self, picture: Picture, scores: list[Scores]) -> list[str]:
        limits, entry = self.loaded.limits, self.loaded.entry
        if limits is None:
            return []
        found = []
        if scores[0].familiarity[0] < limits.familiarity:
            found.append(
                f"out of distribution: {1 - unusual.OUT_OF_DISTRIBUTION:.0%} of the validation images resemble the "
                "training images more"
            )
        if limits.second_part is not None and entry.ink is not None and picture.second_part > limits.second_part:
            found.append(
                f"several objects: the second part has {picture.second_part:.0%} of the area of the largest; "
                "expected: one object"
            )
        if self._turns and limits.turn is not None and unusual.turn(scores)[0] > limits.turn:
            best = int(np.argmax([each.familiarity[0] for each in scores]))
            label = entry.classes[int(scores[best].probabilities[0].argmax())]
            found.append(f"turned: clearer if rotated by {DIRECTIONS[best]}, as {label}")
        return found
