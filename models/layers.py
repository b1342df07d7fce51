"""A network layer by layer: shape, parameters, multiply-adds and receptive field of each, without TensorFlow.

`plan` is the one place that knows which layers a specification means and in which order; `models.cnn` turns each of
them into the Keras layer of the same name. Shapes leave out the batch: (height, width, channels) or (features,).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, prod
from typing import Any

from models.spec import Activation, Block, Head, Initializer, Network, Padding, Pooling

Shape = tuple[int, ...]


class ShapeError(ValueError):
    """A layer that leaves nothing of its input. `key` is where in the network it is written, `found` what is there."""

    def __init__(self, key: str, found: object, message: str) -> None:
        super().__init__(message)
        self.key = key
        self.found = found


def output_size(size: int, window: int, stride: int, padding: Padding) -> int:
    """Positions of a window along one axis: floor((size - window) / stride) + 1, or ceil(size / stride) for `same`."""
    return -(-size // stride) if padding == "same" else (size - window) // stride + 1


def fractional_size(size: int, ratio: float) -> int:
    """Regions of fractional pooling along one axis: floor(size / ratio)."""
    return int(size / ratio + 1e-9)  # 33 / 1.1 is 29.999999999999996


@dataclass(frozen=True)
class Layer:
    """One layer; `key` is the place in the network's specification that it comes from."""

    name: str
    key: str

    def output_shape(self, shape: Shape) -> Shape:
        return shape

    def parameters(self, shape: Shape) -> int:
        """Weights, trainable or not, for an input of this shape."""
        return 0

    def non_trainable(self, shape: Shape) -> int:
        return 0

    def multiply_adds(self, shape: Shape) -> int:
        """Of one image, forwards, by kernels: each of their weights once at each position. Biases, pooling and
        normalisation cost next to nothing and count as 0."""
        return 0

    def window(self, size: int) -> tuple[int, Fraction]:
        """Along an axis of this size: how many of its inputs one output sees, and the step from output to output."""
        return 1, Fraction(1)


@dataclass(frozen=True)
class Convolution(Layer):
    filters: int
    kernel_size: int
    stride: int
    padding: Padding
    activation: Activation
    kernel_initializer: Initializer
    separable: bool

    def output_shape(self, shape: Shape) -> Shape:
        limit = f"a kernel of at most {min(shape[:2])}, or padding: same"
        return *_positions(shape, self.kernel_size, self.stride, self.padding, self.key, limit), self.filters

    def parameters(self, shape: Shape) -> int:
        return self._kernel(shape[-1]) + self.filters

    def multiply_adds(self, shape: Shape) -> int:
        height, width, _ = self.output_shape(shape)
        return height * width * self._kernel(shape[-1])

    def window(self, size: int) -> tuple[int, Fraction]:
        return self.kernel_size, Fraction(self.stride)

    def _kernel(self, channels: int) -> int:
        """Weights without the biases; separable: one filter for each channel, then the mixing of channels."""
        if self.separable:
            return channels * self.kernel_size**2 + channels * self.filters
        return channels * self.kernel_size**2 * self.filters


@dataclass(frozen=True)
class Pool(Layer):
    """Pooling by windows of one size."""

    pooling: Pooling

    def output_shape(self, shape: Shape) -> Shape:
        pooling = self.pooling
        limit = f"a window of at most {min(shape[:2])}, padding: same, or kind: none"
        return *_positions(shape, pooling.window, pooling.step, pooling.padding, self.key, limit), shape[-1]

    def parameters(self, shape: Shape) -> int:
        return 1 if self.pooling.kind == "gem" else 0

    def window(self, size: int) -> tuple[int, Fraction]:
        blur = 2 if self.pooling.kind == "blur" else 0  # its filter of three adds a neighbour on either side
        return self.pooling.window + blur, Fraction(self.pooling.step)


@dataclass(frozen=True)
class FractionalPool(Layer):
    """Pooling by regions of different sizes."""

    pooling: Pooling

    def output_shape(self, shape: Shape) -> Shape:
        height, width = (fractional_size(size, self.pooling.reduction) for size in shape[:2])
        if min(height, width) < 1:
            limit = f"a ratio of at most {min(shape[:2])}, or kind: none"
            raise ShapeError(self.key, self.pooling.reduction, _nothing_left(shape, limit))
        return height, width, shape[-1]

    def window(self, size: int) -> tuple[int, Fraction]:
        step = Fraction(size, fractional_size(size, self.pooling.reduction))
        return ceil(step), step


@dataclass(frozen=True)
class Dropout(Layer):
    rate: float


@dataclass(frozen=True)
class SpatialDropout(Dropout):
    """Dropout of whole feature maps."""


@dataclass(frozen=True)
class BatchNormalization(Layer):
    def parameters(self, shape: Shape) -> int:
        return 4 * shape[-1]  # scale, offset, moving mean, moving variance

    def non_trainable(self, shape: Shape) -> int:
        return 2 * shape[-1]


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

    def window(self, size: int) -> tuple[int, Fraction]:
        return size, Fraction(size)


@dataclass(frozen=True)
class Dense(Layer):
    units: int
    activation: str

    def output_shape(self, shape: Shape) -> Shape:
        return (self.units,)

    def parameters(self, shape: Shape) -> int:
        return self.units * (shape[-1] + 1)

    def multiply_adds(self, shape: Shape) -> int:
        return self.units * shape[-1]

    def window(self, size: int) -> tuple[int, Fraction]:
        return size, Fraction(size)


@dataclass(frozen=True)
class Output(Dense):
    """The last layer: computed in float32 whatever the precision of the others."""


@dataclass(frozen=True)
class Traced:
    """A layer of a network for images of one size.

    `receptive_field`: height and width, in pixels of the image, of what one value of the output can depend on.
    """

    layer: Layer
    output_shape: Shape
    parameters: int
    non_trainable: int
    multiply_adds: int
    receptive_field: tuple[int, int]


def plan(network: Network, image: Shape, classes: int) -> Iterator[Layer]:
    """The layers that a specification means for images of shape (height, width, channels), in order."""
    channels = image[-1]
    for index, block in enumerate(network.blocks):
        channels = block.filters[-1] if block.filters else channels
        yield from _block(block, channels, f"block{index + 1}", f"blocks.{index}")
    yield from _head(network.head, classes)


def follow(network: Network, image: Shape, classes: int) -> Iterator[Traced]:
    """Each layer of the network in turn, for images of shape (height, width, channels).

    Raises:
        ShapeError: a convolution or pooling leaves nothing of its input; the layers before it have been given.
    """
    shape, rows, columns = image, _Axis(image[0], image[0]), _Axis(image[1], image[1])
    for layer in plan(network, image, classes):
        output = layer.output_shape(shape)
        height, width = output[:2] if len(output) == 3 else (None, None)
        rows, columns = rows.after(layer, height), columns.after(layer, width)
        yield Traced(
            layer,
            output,
            layer.parameters(shape),
            layer.non_trainable(shape),
            layer.multiply_adds(shape),
            (rows.receptive_field, columns.receptive_field),
        )
        shape = output


def trace(network: Network, image: Shape, classes: int) -> list[Traced]:
    """Follow an image of shape (height, width, channels) through the network.

    Raises:
        ShapeError: a convolution or pooling leaves nothing of its input.
    """
    return list(follow(network, image, classes))


@dataclass(frozen=True)
class _Axis:
    """Height or width on its way through the network.

    `positions` along it stand `jump` pixels of the image apart, and each of them sees `field` pixels.
    """

    pixels: int
    positions: int
    field: Fraction = Fraction(1)
    jump: Fraction = Fraction(1)

    @property
    def receptive_field(self) -> int:
        return min(ceil(self.field), self.pixels)

    def after(self, layer: Layer, positions: int | None) -> "_Axis":
        """`positions` is None where the output is a vector: of one position or, after flattening, of all in turn."""
        window, step = layer.window(self.positions)
        left = positions or int(self.positions / step)
        return _Axis(self.pixels, left, self.field + (window - 1) * self.jump, self.jump * step)


def _block(block: Block, channels: int, name: str, key: str) -> Iterator[Layer]:
    """`channels` are those that the block gives on."""
    activations = _for_each(block.activation, block.filters)
    initializers = _for_each(block.kernel_initializer, block.filters)
    for number, (filters, activation, initializer) in enumerate(
        zip(block.filters, activations, initializers, strict=True), start=1
    ):
        yield Convolution(
            f"{name}_conv{number}",
            f"{key}.kernel_size",
            filters,
            block.kernel_size,
            1,
            block.padding,
            activation,
            initializer,
            block.convolution == "separable",
        )
    yield from _pooling(block, channels, f"{name}_pool", f"{key}.pooling")
    if block.dropout:
        kind = SpatialDropout if block.dropout_kind == "spatial" else Dropout
        yield kind(f"{name}_dropout", f"{key}.dropout", block.dropout)
    if block.batch_norm:
        yield BatchNormalization(f"{name}_norm", f"{key}.batch_norm")


def _pooling(block: Block, channels: int, name: str, key: str) -> Iterator[Layer]:
    pooling = block.pooling
    match pooling.kind:
        case "none":
            return
        case "strided":
            yield Convolution(
                name,
                f"{key}.window",
                channels,
                pooling.window,
                pooling.step,
                pooling.padding,
                _last(block.activation),
                _last(block.kernel_initializer),
                block.convolution == "separable",
            )
        case "fractional_max":
            yield FractionalPool(name, f"{key}.ratio", pooling)
        case _:
            yield Pool(name, f"{key}.window", pooling)


def _head(head: Head, classes: int) -> Iterator[Layer]:
    if head.pooling == "flatten":
        yield Flatten("head_flatten", "head.pooling")
    else:
        yield GlobalPool("head_pool", "head.pooling", head.pooling, head.power)
    if head.batch_norm:
        yield BatchNormalization("head_norm", "head.batch_norm")
    for number, units in enumerate(head.dense, start=1):
        yield Dense(f"head_dense{number}", f"head.dense.{number - 1}", units, head.activation)
        if head.dropout:
            yield Dropout(f"head_dropout{number}", "head.dropout", head.dropout)
    if head.dropout and not head.dense:
        yield Dropout("head_dropout", "head.dropout", head.dropout)
    yield Output("output", "head.output", classes, "softmax" if head.output == "softmax" else "linear")


def _for_each(value: Any, filters: tuple[int, ...]) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,) * len(filters)


def _last(value: Any) -> Any:
    return value[-1] if isinstance(value, tuple) else value


def _positions(shape: Shape, window: int, stride: int, padding: Padding, key: str, limit: str) -> tuple[int, int]:
    height, width = (output_size(size, window, stride, padding) for size in shape[:2])
    if min(height, width) < 1:
        raise ShapeError(key, window, _nothing_left(shape, limit))
    return height, width


def _nothing_left(shape: Shape, limit: str) -> str:
    return f"leaves nothing of {shape[0]}x{shape[1]} feature maps; allowed: {limit}"
