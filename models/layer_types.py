"""Types of layers: output shape, parameters, multiply-adds and windows of each. TensorFlow is not needed.

Shapes omit the batch: (height, width, channels) or (features,). Pairs are along height and width.
"""

from dataclasses import dataclass, field
from fractions import Fraction
from math import ceil, prod
from typing import Literal

from models.spec import Activation, Initializer, Padding, Pair, Pooling, pair

Shape = tuple[int, ...]


class ShapeError(ValueError):
    """A layer's output would be empty, or the network too large; `key` is the place of the cause, `found` the value."""

    def __init__(self, key: str, found: object, message: str) -> None:
        super().__init__(message)
        self.key = key
        self.found = found


def output_size(size: int, window: int, stride: int, padding: Padding) -> int:
    """Output size along one axis: floor((size - window) / stride) + 1 for `valid`, ceil(size / stride) for `same`."""
    return -(-size // stride) if padding == "same" else (size - window) // stride + 1


def fractional_size(size: int, ratio: float) -> int:
    """Output size of fractional pooling along one axis: floor(size / ratio)."""
    return int(size / ratio + 1e-9)  # 33 / 1.1 is 29.999999999999996


@dataclass(frozen=True)
class Layer:
    """A layer; `key` is its place in the network's specification.

    `inputs` are the names of the layers whose outputs it takes (`image`: the image); empty: the previous layer's.
    """

    name: str
    key: str
    inputs: tuple[str, ...] = field(default=(), kw_only=True)

    def output_shape(self, shape: Shape) -> Shape:
        return shape

    def parameters(self, shape: Shape) -> int:
        """Number of weights, trainable or not, for an input of this shape."""
        return 0

    def non_trainable(self, shape: Shape) -> int:
        return 0

    def multiply_adds(self, shape: Shape) -> int:
        """Multiply-adds of the kernels in the forward pass of one image: weights times positions.

        Biases, pooling and normalization are negligible and count as 0.
        """
        return 0

    def window(self, size: int, axis: int) -> tuple[int, Fraction]:
        """Window and step along an axis (0: height, 1: width) of this size, in inputs."""
        return 1, Fraction(1)


@dataclass(frozen=True)
class ZeroPadding(Layer):
    """Rows and columns of zeros on each side."""

    margins: Pair

    def output_shape(self, shape: Shape) -> Shape:
        return shape[0] + 2 * self.margins[0], shape[1] + 2 * self.margins[1], shape[2]


@dataclass(frozen=True)
class Convolution(Layer):
    filters: int
    kernel_size: Pair
    stride: Pair
    dilation: Pair
    padding: Padding
    activation: Activation
    kernel_initializer: Initializer
    kind: Literal["standard", "separable", "depthwise"]
    groups: int
    use_bias: bool
    multiplier: int = 1  # filters per channel of a depthwise convolution

    @property
    def span(self) -> Pair:
        """Side of the kernel in inputs, gaps of a dilation included."""
        (height, width), (rows, columns) = self.kernel_size, self.dilation
        return (height - 1) * rows + 1, (width - 1) * columns + 1

    def output_shape(self, shape: Shape) -> Shape:
        if self.dilation == (1, 1):
            limit = f"a kernel of at most {_most(shape, self.kernel_size)}, or padding: same"
        else:
            limit = f"a kernel that spans at most {_most(shape, self.kernel_size)} with its dilation, or padding: same"
        found = _written(self.kernel_size)
        return *_positions(shape, self.span, self.stride, self.padding, (self.key, found, limit)), self.filters

    def parameters(self, shape: Shape) -> int:
        return self._kernel(shape[-1]) + (self.filters if self.use_bias else 0)

    def multiply_adds(self, shape: Shape) -> int:
        height, width, _ = self.output_shape(shape)
        return height * width * self._kernel(shape[-1])

    def window(self, size: int, axis: int) -> tuple[int, Fraction]:
        return self.span[axis], Fraction(self.stride[axis])

    def _kernel(self, channels: int) -> int:
        """Number of weights without biases. Separable: one filter per channel, then a 1x1 convolution."""
        if self.kind == "separable":
            return channels * prod(self.kernel_size) + channels * self.filters
        inputs = 1 if self.kind == "depthwise" else channels // self.groups
        return inputs * prod(self.kernel_size) * self.filters


@dataclass(frozen=True)
class Activate(Layer):
    """An activation behind a normalization or a sum."""

    activation: Activation


@dataclass(frozen=True)
class Pool(Layer):
    """Pooling by windows of one size."""

    pooling: Pooling
    padding: Padding

    @property
    def windows(self) -> Pair:
        return pair(self.pooling.window)

    @property
    def step(self) -> Pair:
        return pair(self.pooling.step)

    def output_shape(self, shape: Shape) -> Shape:
        limit = f"a window of at most {_most(shape, self.windows)}, padding: same, or kind: none"
        found = _written(self.windows)
        return *_positions(shape, self.windows, self.step, self.padding, (self.key, found, limit)), shape[-1]

    def parameters(self, shape: Shape) -> int:
        return 1 if self.pooling.kind == "gem" else 0

    def window(self, size: int, axis: int) -> tuple[int, Fraction]:
        blur = 2 if self.pooling.kind == "blur" else 0  # the filter [1, 2, 1] reaches one value further on either side
        return self.windows[axis] + blur, Fraction(self.step[axis])


@dataclass(frozen=True)
class FractionalPool(Layer):
    """Pooling by regions of different sizes."""

    pooling: Pooling

    def output_shape(self, shape: Shape) -> Shape:
        height, width = (fractional_size(size, self.pooling.reduction) for size in shape[:2])
        if min(height, width) < 1:
            limit = f"a ratio of at most {min(shape[:2])}, or kind: none"
            raise ShapeError(self.key, self.pooling.reduction, _too_large(shape, limit))
        return height, width, shape[-1]

    def window(self, size: int, axis: int) -> tuple[int, Fraction]:
        step = Fraction(size, fractional_size(size, self.pooling.reduction))
        return ceil(step), step


@dataclass(frozen=True)
class Dropout(Layer):
    rate: float


@dataclass(frozen=True)
class SpatialDropout(Dropout):
    """Dropout of whole feature maps."""


@dataclass(frozen=True)
class LayerNormalization(Layer):
    """Normalization over the channels at each position."""

    def parameters(self, shape: Shape) -> int:
        return 2 * shape[-1]  # scale, offset


@dataclass(frozen=True)
class GroupNormalization(LayerNormalization):
    """Normalization over all positions and the channels of a group."""

    groups: int

    def window(self, size: int, axis: int) -> tuple[int, Fraction]:
        return 2 * size - 1, Fraction(1)  # each position sees all others


@dataclass(frozen=True)
class BatchNormalization(Layer):
    def parameters(self, shape: Shape) -> int:
        return 4 * shape[-1]  # scale, offset, moving mean, moving variance

    def non_trainable(self, shape: Shape) -> int:
        return 2 * shape[-1]


@dataclass(frozen=True)
class Add(Layer):
    """The sum of several outputs of one shape."""


@dataclass(frozen=True)
class Multiply(Layer):
    """The product of feature maps and a gate, one value per channel."""


@dataclass(frozen=True)
class Flatten(Layer):
    def output_shape(self, shape: Shape) -> Shape:
        return (prod(shape),)


@dataclass(frozen=True)
class GlobalPool(Layer):
    kind: str
    power: float

    def output_shape(self, shape: Shape) -> Shape:
        return (shape[-1],)

    def parameters(self, shape: Shape) -> int:
        return 1 if self.kind == "gem" else 0

    def window(self, size: int, axis: int) -> tuple[int, Fraction]:
        return size, Fraction(size)


@dataclass(frozen=True)
class Squeeze(Layer):
    """The mean of each channel, as feature maps with one position."""

    def output_shape(self, shape: Shape) -> Shape:
        return 1, 1, shape[-1]

    def window(self, size: int, axis: int) -> tuple[int, Fraction]:
        return size, Fraction(size)


@dataclass(frozen=True)
class Linear(Layer):
    """A matrix and a bias on the channels of each position, then an activation."""

    units: int
    activation: str

    def output_shape(self, shape: Shape) -> Shape:
        return *shape[:-1], self.units

    def parameters(self, shape: Shape) -> int:
        return self.units * (shape[-1] + 1)

    def multiply_adds(self, shape: Shape) -> int:
        return self.units * shape[-1]


@dataclass(frozen=True)
class Excitation(Linear):
    """A layer of the gate of squeeze-and-excitation; its input has one position."""


@dataclass(frozen=True)
class Dense(Linear):
    """A dense layer of the head; its input is a vector, which may be flattened feature maps."""

    def window(self, size: int, axis: int) -> tuple[int, Fraction]:
        return size, Fraction(size)


@dataclass(frozen=True)
class Output(Dense):
    """The last layer, always computed in float32."""


def _positions(
    shape: Shape, window: Pair, stride: Pair, padding: Padding, cause: tuple[str, object, str]
) -> tuple[int, int]:
    """Number of positions of a window; `cause` are the key, the value found and what is allowed, for an error."""
    height, width = (
        output_size(size, side, step, padding) for size, side, step in zip(shape, window, stride, strict=False)
    )
    if min(height, width) < 1:
        key, found, limit = cause
        raise ShapeError(key, found, _too_large(shape, limit))
    return height, width


def _most(shape: Shape, window: Pair) -> str:
    """The largest side of a square window in feature maps, or both sides of another."""
    return f"{min(shape[:2])}" if window[0] == window[1] else f"{shape[0]}x{shape[1]}"


def _written(sides: Pair) -> object:
    """A pair as it is written in params.yaml."""
    return sides[0] if sides[0] == sides[1] else list(sides)


def _too_large(shape: Shape, limit: str) -> str:
    return f"too large for {shape[0]}x{shape[1]} feature maps; allowed: {limit}"
