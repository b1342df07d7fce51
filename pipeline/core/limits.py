"""Limits of the scores that tell unusual images from those that a network was made for."""

from models.spec import Spec


class Limits(Spec):
    """Quantiles of the scores of the validation images; `pipeline/runtime/unusual.py` defines the scores.

    familiarity: images below it are out of distribution.
    turn: images above it are turned; None: the images are not square.
    second_part: drawings above it are of several objects; None: the images have more than one channel.
    """

    familiarity: float
    turn: float | None
    second_part: float | None
