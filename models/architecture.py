"""Architecture of a network: output shape, parameters, multiply-adds and receptive field of each layer.

`plan` alone decides which layers a specification has, and in which order; `models.cnn` maps each to a Keras layer of
the same name. Shapes omit the batch: (height, width, channels) or (features,). TensorFlow is not needed.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, prod
from typing import Any

from models.spec import Activation, Block, Head, Initializer, Network, Padding, Pooling

Shape = tuple[int, ...]
MOST_PARAMETERS = 10**9  # of a network: 4 GB, and three times as much to train it


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
    """A layer; `key` is its place in the network's specification."""

    name: str
    key: str

    def output_shape(self, shape: Shape) -> Shape:
        return shape

    def parameters(self, shape: Shape) -> int:
        """Number of weights, trainable or not, for an input of this shape."""
        return 0

    def non_trainable(self, shape: Shape) -> int:
        return 0

    def multiply_adds(self, shape: Shape) -> int:
        """Multiply-adds of the kernels in the forward pass of one image: weights times positions.

        Biases, pooling and normalisation are negligible and count as 0.
        """
        return 0

    def window(self, size: int) -> tuple[int, Fraction]:
        """Window and step along an axis of this size, in inputs."""
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
        """Number of weights without biases. Separable: one filter per channel, then a 1x1 convolution."""
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
        blur = 2 if self.pooling.kind == "blur" else 0  # the filter [1, 2, 1] reaches one value further on either side
        return self.pooling.window + blur, Fraction(self.pooling.step)


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
    """The last layer, always computed in float32."""


@dataclass(frozen=True)
class Traced:
    """A layer with its properties for one image size; `receptive_field` is (height, width) in pixels of the image."""

    layer: Layer
    output_shape: Shape
    parameters: int
    non_trainable: int
    multiply_adds: int
    receptive_field: tuple[int, int]


def plan(network: Network, image: Shape, classes: int) -> Iterator[Layer]:
    """Yield the layers of a network for images of shape (height, width, channels), in order."""
    channels = image[-1]
    for index, block in enumerate(network.blocks):
        channels = block.filters[-1] if block.filters else channels
        yield from _block(block, channels, f"block{index + 1}", f"blocks.{index}")
    yield from _head(network.head, classes)


def follow(network: Network, image: Shape, classes: int) -> Iterator[Traced]:
    """Yield each layer with its properties for images of shape (height, width, channels).

    Raises:
        ShapeError: a layer's output would be empty, or the network too large; the layers before it have been yielded.
    """
    parameters = 0
    shape, rows, columns = image, _Axis(image[0], image[0]), _Axis(image[1], image[1])
    for layer in plan(network, image, classes):
        output, own = layer.output_shape(shape), layer.parameters(shape)
        if (parameters := parameters + own) > MOST_PARAMETERS:
            raise ShapeError(layer.key, f"{own:,} parameters", f"allowed: at most {MOST_PARAMETERS:,} in a network")
        height, width = output[:2] if len(output) == 3 else (None, None)
        rows, columns = rows.after(layer, height), columns.after(layer, width)
        yield Traced(
            layer,
            output,
            own,
            layer.non_trainable(shape),
            layer.multiply_adds(shape),
            (rows.receptive_field, columns.receptive_field),
        )
        shape = output


def trace(network: Network, image: Shape, classes: int) -> list[Traced]:
    """List what `follow` yields, and raise what it raises."""
    return list(follow(network, image, classes))


@dataclass(frozen=True)
class _Axis:
    """One axis of the feature maps: `positions` that are `jump` image pixels apart and see `field` pixels each."""

    pixels: int
    positions: int
    field: Fraction = Fraction(1)
    jump: Fraction = Fraction(1)

    @property
    def receptive_field(self) -> int:
        return min(ceil(self.field), self.pixels)

    def after(self, layer: Layer, positions: int | None) -> "_Axis":
        """`positions` is None if the output is a vector: it has one position or, flattened, all of them in turn."""
        window, step = layer.window(self.positions)
        left = positions or int(self.positions / step)
        return _Axis(self.pixels, left, self.field + (window - 1) * self.jump, self.jump * step)


def _block(block: Block, channels: int, name: str, key: str) -> Iterator[Layer]:
    """Layers of a block; `channels` is its number of output channels."""
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
        raise ShapeError(key, window, _too_large(shape, limit))
    return height, width


def _too_large(shape: Shape, limit: str) -> str:
    return f"too large for {shape[0]}x{shape[1]} feature maps; allowed: {limit}"
