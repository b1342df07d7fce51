"""A network layer by layer, with the shape and the parameters of each, computed without TensorFlow.

`plan` is the one place that knows which layers a specification means and in which order; `models.cnn` turns each of
them into the Keras layer of the same name. Shapes leave out the batch: (height, width, channels) or (features,).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
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


@dataclass(frozen=True)
class Convolution(Layer):
    filters: int
    kernel_size: int
    padding: Padding
    activation: Activation
    kernel_initializer: Initializer

    def output_shape(self, shape: Shape) -> Shape:
        height, width = (output_size(size, self.kernel_size, 1, self.padding) for size in shape[:2])
        if min(height, width) < 1:
            limit = f"a kernel of at most {min(shape[:2])}, or padding: same"
            raise ShapeError(
                f"{self.key}.kernel_size", self.kernel_size, f"leaves nothing of {_size(shape)}; allowed: {limit}"
            )
        return height, width, self.filters

    def parameters(self, shape: Shape) -> int:
        return self.filters * (self.kernel_size**2 * shape[-1] + 1)


@dataclass(frozen=True)
class Pool(Layer):
    pooling: Pooling

    def output_shape(self, shape: Shape) -> Shape:
        window, step, padding = self.pooling.window, self.pooling.step, self.pooling.padding
        height, width = (output_size(size, window, step, padding) for size in shape[:2])
        if min(height, width) < 1:
            limit = f"a window of at most {min(shape[:2])}, padding: same, or kind: none"
            raise ShapeError(f"{self.key}.window", window, f"leaves nothing of {_size(shape)}; allowed: {limit}")
        return height, width, shape[-1]


@dataclass(frozen=True)
class Dropout(Layer):
    rate: float


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

    def output_shape(self, shape: Shape) -> Shape:
        return (shape[-1],)


@dataclass(frozen=True)
class Dense(Layer):
    units: int
    activation: str

    def output_shape(self, shape: Shape) -> Shape:
        return (self.units,)

    def parameters(self, shape: Shape) -> int:
        return self.units * (shape[-1] + 1)


@dataclass(frozen=True)
class Output(Dense):
    """The last layer: computed in float32 whatever the precision of the others."""


@dataclass(frozen=True)
class Traced:
    """A layer of a network for images of one size."""

    layer: Layer
    output_shape: Shape
    parameters: int
    non_trainable: int


def plan(network: Network, classes: int) -> Iterator[Layer]:
    """The layers that a specification means, in order."""
    for index, block in enumerate(network.blocks):
        yield from _block(block, f"block{index + 1}", f"blocks.{index}")
    yield from _head(network.head, classes)


def trace(network: Network, image: Shape, classes: int) -> list[Traced]:
    """Follow an image of shape (height, width, channels) through the network.

    Raises:
        ShapeError: a convolution or pooling leaves nothing of its input.
    """
    traced, shape = [], image
    for layer in plan(network, classes):
        output = layer.output_shape(shape)
        traced.append(Traced(layer, output, layer.parameters(shape), layer.non_trainable(shape)))
        shape = output
    return traced


def _block(block: Block, name: str, key: str) -> Iterator[Layer]:
    activations = _for_each(block.activation, block.filters)
    initializers = _for_each(block.kernel_initializer, block.filters)
    for number, (filters, activation, initializer) in enumerate(
        zip(block.filters, activations, initializers, strict=True), start=1
    ):
        yield Convolution(
            f"{name}_conv{number}", key, filters, block.kernel_size, block.padding, activation, initializer
        )
    if block.pooling.kind != "none":
        yield Pool(f"{name}_pool", f"{key}.pooling", block.pooling)
    if block.dropout:
        yield Dropout(f"{name}_dropout", f"{key}.dropout", block.dropout)
    if block.batch_norm:
        yield BatchNormalization(f"{name}_norm", f"{key}.batch_norm")


def _head(head: Head, classes: int) -> Iterator[Layer]:
    if head.pooling == "flatten":
        yield Flatten("head_flatten", "head.pooling")
    else:
        yield GlobalPool("head_pool", "head.pooling", head.pooling)
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


def _size(shape: Shape) -> str:
    return f"{shape[0]}x{shape[1]} feature maps"
