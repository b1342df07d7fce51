"""Pooling layers: those that Keras lacks, and the tables that map a kind of pooling to its layer.

Inputs have shape (batch, height, width, channels), with known height and width; channels are pooled independently. The
layers are registered under the package `convpipe`: a saved model loads wherever this module is imported. Sums and
powers are computed in float32 at least.
"""

from typing import Any

import keras
import numpy as np
from keras import ops

from models import power_mean
from models.layer_types import fractional_size, output_size
from models.spec import POOLING_KEYS, Padding, Pair, Pooling, pair

register = keras.saving.register_keras_serializable(package="convpipe")


class Windowed(keras.layers.Layer):
    """Base class: 2D pooling by windows.

    Args:
        pool_size: side of the windows, or height and width.
        strides: step between windows, one or two as well; None: `pool_size`.
        padding: `valid` or `same`, as in Keras.
    """

    def __init__(
        self, pool_size: int | Pair = 2, strides: int | Pair | None = None, padding: Padding = "valid", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.pool_size = pool_size
        self.strides = strides or pool_size
        self.padding: Padding = padding
        self._window, self._step = pair(self.pool_size), pair(self.strides)

    def compute_output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        batch, height, width, channels = input_shape
        height, width = (
            output_size(size, window, step, self.padding)
            for size, window, step in zip((height, width), self._window, self._step, strict=True)
        )
        return batch, *_some_left(height, width), channels

    def average(self, values: Any) -> Any:
        """Mean of each window, padding excluded."""
        return ops.average_pool(values, self.pool_size, self.strides, self.padding)

    def windows(self, values: Any) -> list[Any]:
        """One array (batch, height, width, channels) per place in a window: its value in every window, 0 as padding."""
        _, height, width, _ = values.shape
        (rows, vertical), (columns, horizontal) = self._slices(height, 0), self._slices(width, 1)
        values = ops.pad(values, ((0, 0), vertical, horizontal, (0, 0)))
        return [values[:, row, column] for row in rows for column in columns]

    def _slices(self, size: int, axis: int) -> tuple[list[slice], tuple[int, int]]:
        """Along one axis: a slice per place in a window, and the padding before and after."""
        window, step = self._window[axis], self._step[axis]
        last = (output_size(size, window, step, self.padding) - 1) * step
        missing = max(last + window - size, 0)  # an odd one is padded at the end, as in Keras
        slices = [slice(offset, offset + last + 1, step) for offset in range(window)]
        return slices, (missing // 2, missing - missing // 2)

    def power_mean(self, values: Any, p: Any) -> Any:
        """Power mean of each window of non-negative values, padding excluded."""
        _, height, width, _ = values.shape
        (rows, vertical), (columns, horizontal) = self._slices(height, 0), self._slices(width, 1)
        if self._step == self._window:  # windows do not overlap: the scale of a window is that of its values
            scale = power_mean.scale(ops.max_pool(values, self.pool_size, self.strides, self.padding))
            if self.padding == "valid":
                values = values[:, : scale.shape[1] * self._step[0], : scale.shape[2] * self._step[1]]
            spread = ops.repeat(ops.repeat(scale, self._step[0], axis=1), self._step[1], axis=2)
            _, height, width, _ = values.shape
            spread = spread[:, vertical[0] : vertical[0] + height, horizontal[0] : horizontal[0] + width]
            return power_mean.root(self.average(power_mean.power(values / spread, p)), p, scale)
        inside = np.pad(np.ones((height, width)), (vertical, horizontal))
        sizes = sum(inside[row, column] for row in rows for column in columns)
        windows = ops.stack(self.windows(values))
        scale = power_mean.scale(ops.max(windows, axis=0))
        total = ops.sum(power_mean.power(windows / scale, p), axis=0)
        return power_mean.root(total / ops.cast(np.expand_dims(sizes, -1), total.dtype), p, scale)

    def get_config(self) -> dict[str, Any]:
        own = {"pool_size": self.pool_size, "strides": self.strides, "padding": self.padding}
        return super().get_config() | own


@register
class LpPooling2D(Windowed):
    """2D pooling by power mean (Lp): (mean |x|^p)^(1/p) of each window.

    p = 1 is the mean of |x|, p = 2 the root mean square; a large p approaches the maximum of |x|. Source: Sermanet,
    Chintala, LeCun, "Convolutional neural networks applied to house numbers digit classification", arXiv:1204.3968.
    Here all values of a window have equal weights.
    """

    def __init__(self, p: float = 2.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.p = p

    def call(self, inputs: Any) -> Any:
        return ops.cast(self.power_mean(ops.abs(power_mean.wide(inputs)), self.p), self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"p": self.p}


@register
class GeMPooling2D(Windowed):
    """2D pooling by generalized mean (GeM): (mean max(x, 1e-6)^p)^(1/p) of each window, with a learned p.

    One p from 1 to 16 serves all channels. Meant for non-negative activations. Source: Radenović, Tolias,
    Chum, "Fine-tuning CNN image retrieval with no human annotation", arXiv:1711.02512, there for whole feature maps.

    Args:
        p: initial value of p.
    """

    def __init__(self, p: float = 3.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.initial_p = p

    def build(self, input_shape: tuple[int, ...]) -> None:
        self.p = power_mean.learned_power(self)

    def call(self, inputs: Any) -> Any:
        return ops.cast(self.power_mean(power_mean.positive(inputs), power_mean.bounded(self.p)), self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"p": self.initial_p}


@register
class GlobalGeMPooling2D(keras.layers.Layer):
    """Global pooling by generalized mean: (batch, height, width, channels) -> (batch, channels). See GeMPooling2D."""

    def __init__(self, p: float = 3.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.initial_p = p

    def build(self, input_shape: tuple[int, ...]) -> None:
        self.p = power_mean.learned_power(self)

    def call(self, inputs: Any) -> Any:
        values, p = power_mean.positive(inputs), power_mean.bounded(self.p)
        scale = power_mean.scale(ops.max(values, axis=(1, 2), keepdims=True))
        pooled = power_mean.root(ops.mean(power_mean.power(values / scale, p), axis=(1, 2), keepdims=True), p, scale)
        return ops.cast(ops.squeeze(pooled, axis=(1, 2)), self.compute_dtype)

    def compute_output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        return input_shape[0], input_shape[-1]

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"p": self.initial_p}


@register
class StochasticPooling2D(Windowed):
    """2D stochastic pooling: one value of each window, drawn with probability x / sum(x).

    At inference, the expectation sum(x^2) / sum(x). Negative values count as 0; a window without positive values gives
    0. Source: Zeiler, Fergus, "Stochastic pooling for regularization of deep convolutional neural networks",
    arXiv:1301.3557.
    """

    def __init__(self, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, inputs: Any, training: bool = False) -> Any:
        values = ops.relu(power_mean.wide(inputs))
        pooled = self._drawn(values) if training else self._expected(values)
        return ops.cast(pooled, self.compute_dtype)

    def _expected(self, values: Any) -> Any:
        mean = self.average(values)
        return self.average(values**2) / ops.where(mean > 0, mean, 1)

    def _drawn(self, values: Any) -> Any:
        """Draw by inverse transform sampling: a uniform point below the sum, located among the cumulative sums."""
        windows = self.windows(values)
        total: Any = sum(windows)
        point = total * keras.random.uniform(ops.shape(total), dtype=total.dtype, seed=self.seed_generator)
        below, pooled = ops.zeros_like(total), ops.zeros_like(total)
        for value in windows:
            drawn = ops.logical_and(below <= point, point < below + value)
            below, pooled = below + value, ops.where(drawn, value, pooled)
        return pooled

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"seed": self.seed}


@register
class FractionalMaxPooling2D(keras.layers.Layer):
    """2D fractional max pooling: the maximum of disjoint regions, with pseudorandom boundaries in training.

    With n = floor(size / ratio) regions along an axis, region i starts at floor((i * size + r) / n); its length is
    size / n, rounded down or up. r is drawn from 0, ..., n - 1 for every batch in training, and is floor(n / 2) at
    inference. Source: Graham, "Fractional max-pooling", arXiv:1412.6071.

    Args:
        ratio: factor by which height and width are reduced; may be fractional.
    """

    def __init__(self, ratio: float = 2**0.5, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.ratio = ratio
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, inputs: Any, training: bool = False) -> Any:
        return self._pooled(self._pooled(inputs, 1, training), 2, training)

    def _pooled(self, values: Any, axis: int, training: bool) -> Any:
        size = values.shape[axis]
        number = fractional_size(size, self.ratio)
        offset: Any = number // 2
        if training:
            offset = keras.random.randint((), 0, number, dtype="int32", seed=self.seed_generator)
        bounds = (ops.arange(number + 1, dtype="int32") * size + offset) // number
        longest = -(-size // number)
        # A shorter region repeats its last value, which does not change the maximum.
        indices = ops.minimum(bounds[:-1, None] + ops.arange(longest, dtype="int32"), bounds[1:, None] - 1)
        return ops.max(ops.take(values, indices, axis=axis), axis=axis + 1)

    def compute_output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        batch, height, width, channels = input_shape
        sizes = (fractional_size(size, self.ratio) for size in (height, width))
        return batch, *_some_left(*sizes), channels

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"ratio": self.ratio, "seed": self.seed}


@register
class MaxBlurPooling2D(Windowed):
    """2D anti-aliased max pooling: max pooling with stride 1, then a [1, 2, 1] / 4 filter with stride `strides`.

    The filter is applied along height and width; borders are reflected. Source: Zhang, "Making convolutional networks
    shift-invariant again", arXiv:1904.11486.
    """

    def call(self, inputs: Any) -> Any:
        values = ops.max_pool(inputs, self.pool_size, strides=1, padding=self.padding)
        return ops.cast(self._blurred(self._blurred(power_mean.wide(values), 1), 2), self.compute_dtype)

    def _blurred(self, values: Any, axis: int) -> Any:
        def part(start: int, stop: int, step: int = 1) -> Any:
            return values[(slice(None),) * axis + (slice(start, stop, step),)]

        size = values.shape[axis]
        neighbour = min(1, size - 1)
        values = ops.concatenate(
            [part(neighbour, neighbour + 1), values, part(size - 1 - neighbour, size - neighbour)], axis=axis
        )
        left, centre, right = (part(offset, size + offset, self._step[axis - 1]) for offset in range(3))
        return (left + 2 * centre + right) / 4


# `strided` is a convolution (models.architecture), and `none` has no layer.
KINDS: dict[str, type[keras.layers.Layer]] = {
    "max": keras.layers.MaxPooling2D,
    "average": keras.layers.AveragePooling2D,
    "lp": LpPooling2D,
    "stochastic": StochasticPooling2D,
    "fractional_max": FractionalMaxPooling2D,
    "gem": GeMPooling2D,
    "blur": MaxBlurPooling2D,
}

# Key of a specification -> argument of the layer, and attribute of the specification that includes the default.
ARGUMENTS = {
    "window": ("pool_size", "window"),
    "stride": ("strides", "step"),
    "padding": ("padding", "padding"),
    "p": ("p", "power"),
    "ratio": ("ratio", "reduction"),
}

GLOBAL_KINDS: dict[str, type[keras.layers.Layer]] = {
    "global_average": keras.layers.GlobalAveragePooling2D,
    "global_max": keras.layers.GlobalMaxPooling2D,
    "gem": GlobalGeMPooling2D,
}


def layer(pooling: Pooling, **kwargs: Any) -> keras.Layer:
    """Build the layer of a specification; `kwargs` are other arguments, or take precedence: padding, name, dtype."""
    own = {ARGUMENTS[key][0]: getattr(pooling, ARGUMENTS[key][1]) for key in POOLING_KEYS[pooling.kind]}
    return KINDS[pooling.kind](**(own | kwargs))


def global_layer(kind: str, power: float, **kwargs: Any) -> keras.Layer:
    """Build the layer of a head that pools feature maps to a vector; `power` is the initial p of GeM."""
    return GLOBAL_KINDS[kind](**kwargs, **({"p": power} if kind == "gem" else {}))


def _some_left(height: int, width: int) -> tuple[int, int]:
    if min(height, width) < 1:
        raise ValueError(f"the output size would be {height}x{width}: the window or ratio is too large for the input")
    return height, width
