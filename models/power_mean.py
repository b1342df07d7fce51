"""Power means in floating point: without overflow, underflow or infinite gradients."""

from typing import Any

import keras
from keras import ops

from models.spec import LARGEST_P

EPSILON = 1e-6  # lower bound of the inputs of GeM pooling
TINY = 1e-37  # replaces 0 in logarithms, whose gradient at 0 is infinite; just above the least normal float32
EMPTY = 1e-30  # mean of the powers of a window without values above TINY; in others one share is 1


def wide(values: Any) -> Any:
    """Cast to float32, unless the values are wider."""
    return ops.cast(values, keras.backend.result_type(values.dtype, "float32"))


def positive(values: Any) -> Any:
    """Values of at least `EPSILON`."""
    values = wide(values)
    return ops.where(values < EPSILON, EPSILON, values)  # not ops.maximum, which may drop NaN


# A power mean is scale * mean((values / scale)^p)^(1/p), with the maximum of each window as its scale: then no power of
# all values of a window overflows or underflows. Where the maximum is 0 or infinite, 1 takes its place.


def scale(largest: Any) -> Any:
    usable = ops.logical_and(largest > TINY, ops.isfinite(largest))
    return ops.stop_gradient(ops.where(usable, largest, 1))


def power(shares: Any, p: Any) -> Any:
    shares = ops.where(shares < TINY, TINY, shares)  # not ops.maximum, which may drop NaN
    return ops.exp(p * ops.log(shares))  # ops.power takes three times as long if p is learned


def root(mean: Any, p: Any, scale: Any) -> Any:
    """The root has an infinite gradient at 0, and most of a digit's image is 0; there the gradient is set to 0."""
    empty = mean < EMPTY
    return ops.where(empty, 0, scale * ops.exp(ops.log(ops.where(empty, 1, mean)) / p))


def learned_power(layer: Any) -> Any:
    # The constraint puts p back after every step: outside, its gradient is 0, and it would stay there.
    return layer.add_weight(
        name="p",
        shape=(),
        initializer=keras.initializers.Constant(layer.initial_p),
        constraint=bounded,
        autocast=False,
    )


def bounded(p: Any) -> Any:
    return ops.clip(p, 1.0, LARGEST_P)
