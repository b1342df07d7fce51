"""Architecture of a network: which layers it has, and their shapes, parameters, multiply-adds and receptive fields.

`plan` alone decides which layers a specification has, and in which order; `models.cnn` maps each to a Keras layer of
the same name. TensorFlow is not needed.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from math import ceil
from typing import Any

from models import layer_types as kinds
from models.layer_types import Convolution, Layer, Shape, ShapeError
from models.spec import Block, Head, Margins, Network, Normalization, Padding, pair

MOST_PARAMETERS = 10**9  # of a network: 4 GB, and three times as much to train it
IMAGE = "image"  # name of the input


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
    """Yield the layers of a network for images of shape (height, width, channels), in order.

    Raises:
        ShapeError: a number of filters or groups does not fit the number of channels.
    """
    channels, entering = image[-1], IMAGE
    for index, (block, name) in enumerate(zip(network.blocks, network.names, strict=True)):
        for layer in _block(block, channels, entering, name, f"blocks.{index}"):
            entering = layer.name
            yield layer
        channels = block.filters[-1] if block.filters else channels
    yield from _head(network.head, classes)


def follow(network: Network, image: Shape, classes: int) -> Iterator[Traced]:
    """Yield each layer with its properties for images of shape (height, width, channels).

    Raises:
        ShapeError: the layers do not fit each other, or the network is too large; those before have been yielded.
    """
    parameters = 0
    output = _Output(image, (_Axis(image[0], image[0]), _Axis(image[1], image[1])))
    known = {IMAGE: output}
    for layer in plan(network, image, classes):
        inputs = [known[name] for name in layer.inputs] or [output]
        shape = inputs[0].shape
        if isinstance(layer, kinds.Add) and (other := inputs[1].shape) != shape:
            sizes = f"{shape[0]}x{shape[1]} instead of {other[0]}x{other[1]}"
            raise ShapeError(layer.key, "true", f"the convolutions give {sizes} feature maps; allowed: padding: same")
        own = layer.parameters(shape)
        if (parameters := parameters + own) > MOST_PARAMETERS:
            raise ShapeError(layer.key, f"{own:,} parameters", f"allowed: at most {MOST_PARAMETERS:,} in a network")
        output = known[layer.name] = _Output(made := layer.output_shape(shape), _axes(layer, inputs, made))
        height, width = (axis.receptive_field for axis in output.axes)
        yield Traced(layer, made, own, layer.non_trainable(shape), layer.multiply_adds(shape), (height, width))


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

    def after(self, window: int, step: Fraction, positions: int | None) -> "_Axis":
        """`positions` is None if the output is a vector: it has one position or, flattened, all of them in turn."""
        left = positions or int(self.positions / step)
        return _Axis(self.pixels, left, self.field + (window - 1) * self.jump, self.jump * step)


@dataclass(frozen=True)
class _Output:
    """The output of a layer."""

    shape: Shape
    axes: tuple[_Axis, _Axis]


def _axes(layer: Layer, inputs: list[_Output], shape: Shape) -> tuple[_Axis, _Axis]:
    """The axes of a layer's output; where inputs come together, each position sees what any of them sees."""

    def along(number: int) -> _Axis:
        axis = inputs[0].axes[number]
        axis = replace(axis, field=max(other.axes[number].field for other in inputs))
        return axis.after(*layer.window(axis.positions, number), shape[number] if len(shape) == 3 else None)

    return along(0), along(1)


def _block(block: Block, channels: int, entering: str, name: str, key: str) -> Iterator[Layer]:
    """Layers of a block, whose input is the output of the layer `entering`, with so many channels."""
    for unit in range(block.repeat if block.filters else 0):
        for layer in _unit(block, unit, (channels, entering), name, key):
            entering = layer.name
            yield layer
        channels = block.filters[-1]
    yield from _pooling(block, channels, f"{name}_pool", f"{key}.pooling")
    if block.dropout:
        kind = kinds.SpatialDropout if block.dropout_kind == "spatial" else kinds.Dropout
        yield kind(f"{name}_dropout", f"{key}.dropout", block.dropout)
    if not block.normalized:
        place = f"{key}.batch_norm" if block.batch_norm else f"{key}.normalization"
        yield from _norm(block.norm, channels, f"{name}_norm", place)


def _unit(block: Block, unit: int, source: tuple[int, str], name: str, key: str) -> Iterator[Layer]:
    """One repetition of a block's convolutions; `source` are the channels and the name of the layer before it."""
    channels, entering = source
    stride = pair(block.stride) if unit == 0 else (1, 1)
    activations = _for_each(block.activation, block.filters)
    initializers = _for_each(block.kernel_initializer, block.filters)
    last = ""
    for index, filters in enumerate(block.filters):
        convolution = Convolution(
            f"{name}_conv{unit * len(block.filters) + index + 1}",
            f"{key}.kernel_size",
            filters,
            pair(block.kernel_size),
            stride if index == 0 else (1, 1),
            pair(block.dilation),
            "same",
            activations[index],
            initializers[index],
            block.convolution,
            block.groups,
            block.bias,
        )
        ends = block.residual and index == len(block.filters) - 1
        for layer in _convolution(convolution, block, channels, block.padding, ends=ends):
            last = layer.name
            yield layer
        channels = filters
    if block.squeeze_excitation:
        yield from _gate(last, channels, block.squeeze_excitation, f"{name}_gate{unit + 1}", key)
        last = f"{name}_gate{unit + 1}"
    if block.residual:
        if source[0] != channels or stride != (1, 1):
            shortcut = Convolution(
                f"{name}_shortcut{unit + 1}",
                f"{key}.residual",
                channels,
                (1, 1),
                stride,
                (1, 1),
                "same",
                "linear",
                initializers[-1],
                "standard",
                1,
                block.bias,
                inputs=(entering,),
            )
            for layer in _normalized(shortcut, block):
                entering = layer.name
                yield layer
        yield kinds.Add(f"{name}_add{unit + 1}", f"{key}.residual", inputs=(last, entering))
        yield from _activation(f"{name}_add{unit + 1}", f"{key}.activation", activations[-1])


def _convolution(
    convolution: Convolution, block: Block, channels: int, padding: Margins, *, ends: bool = False
) -> Iterator[Layer]:
    """A convolution with its padding, normalization and activation, which is left out where it `ends` a residual."""
    name, key = convolution.name, convolution.key
    _require_channels(convolution, channels)
    if convolution.kind == "depthwise":
        convolution = replace(convolution, multiplier=convolution.filters // channels)
    yield from _zeros(name, key, padding)
    convolution = replace(convolution, padding=_window_padding(padding))
    if convolution.kind == "separable" and block.normalized:
        yield from _normalized(
            replace(convolution, name=f"{name}_depthwise", filters=channels, kind="depthwise"), block
        )
        convolution = replace(
            convolution, kernel_size=(1, 1), stride=(1, 1), dilation=(1, 1), padding="same", kind="standard"
        )
    yield from _normalized(replace(convolution, activation="linear") if ends else convolution, block)


def _normalized(convolution: Convolution, block: Block) -> Iterator[Layer]:
    """A convolution, with its normalization between it and its activation if it has one."""
    if not block.normalized:
        yield convolution
        return
    name, key = convolution.name, _block_key(convolution)
    yield replace(convolution, activation="linear")
    yield from _norm(block.norm, convolution.filters, f"{name}_norm", f"{key}.normalization")
    yield from _activation(name, f"{key}.activation", convolution.activation)


def _norm(norm: Normalization, channels: int, name: str, key: str) -> Iterator[Layer]:
    match norm.kind:
        case "batch":
            yield kinds.BatchNormalization(name, key)
        case "layer":
            yield kinds.LayerNormalization(name, key)
        case "group":
            if channels % norm.number:
                raise ShapeError(f"{key}.groups", norm.number, f"allowed: divisors of the {channels} channels")
            yield kinds.GroupNormalization(name, key, norm.number)


def _activation(name: str, key: str, activation: Any) -> Iterator[Layer]:
    if activation != "linear":
        yield kinds.Activate(f"{name}_activation", key, activation)


def _gate(maps: str, channels: int, ratio: int, name: str, key: str) -> Iterator[Layer]:
    """Squeeze-and-excitation of the output of the layer `maps`: Hu et al., arXiv:1709.01507."""
    key = f"{key}.squeeze_excitation"
    yield kinds.Squeeze(f"{name}_squeeze", key)
    yield kinds.Excitation(f"{name}_dense1", key, max(1, channels // ratio), "relu")
    yield kinds.Excitation(f"{name}_dense2", key, channels, "sigmoid")
    yield kinds.Multiply(name, key, inputs=(maps, f"{name}_dense2"))


def _pooling(block: Block, channels: int, name: str, key: str) -> Iterator[Layer]:
    pooling = block.pooling
    match pooling.kind:
        case "none":
            return
        case "strided":
            convolution = Convolution(
                name,
                f"{key}.window",
                channels,
                pair(pooling.window),
                pair(pooling.step),
                (1, 1),
                "same",
                _last(block.activation),
                _last(block.kernel_initializer),
                block.convolution,
                block.groups,
                block.bias,
            )
            yield from _convolution(convolution, block, channels, pooling.padding)
        case "fractional_max":
            yield kinds.FractionalPool(name, f"{key}.ratio", pooling)
        case _:
            yield from _zeros(name, f"{key}.padding", pooling.padding)
            yield kinds.Pool(name, f"{key}.window", pooling, _window_padding(pooling.padding))


def _head(head: Head, classes: int) -> Iterator[Layer]:
    if head.pooling == "flatten":
        yield kinds.Flatten("head_flatten", "head.pooling")
    else:
        yield kinds.GlobalPool("head_pool", "head.pooling", head.pooling, head.power)
    if head.batch_norm:
        yield kinds.BatchNormalization("head_norm", "head.batch_norm")
    for number, units in enumerate(head.dense, start=1):
        yield kinds.Dense(f"head_dense{number}", f"head.dense.{number - 1}", units, head.activation)
        if head.dropout:
            yield kinds.Dropout(f"head_dropout{number}", "head.dropout", head.dropout)
    if head.dropout and not head.dense:
        yield kinds.Dropout("head_dropout", "head.dropout", head.dropout)
    yield kinds.Output("output", "head.output", classes, "softmax" if head.output == "softmax" else "linear")


def _block_key(layer: Layer) -> str:
    return ".".join(layer.key.split(".")[:2])


def _require_channels(convolution: Convolution, channels: int) -> None:
    key = _block_key(convolution)
    if channels % convolution.groups:
        raise ShapeError(f"{key}.groups", convolution.groups, f"allowed: divisors of the {channels} channels")
    if convolution.filters % convolution.groups:
        message = f"allowed: divisors of the {convolution.filters} filters"
        raise ShapeError(f"{key}.groups", convolution.groups, message)
    if convolution.kind == "depthwise" and convolution.filters % channels:
        message = f"a depthwise convolution; allowed: multiples of the {channels} channels"
        raise ShapeError(f"{key}.filters", convolution.filters, message)


def _zeros(name: str, key: str, padding: Margins) -> Iterator[Layer]:
    """A layer that adds zeros, where the padding is a number or a pair."""
    if not isinstance(padding, str) and pair(padding) != (0, 0):
        yield kinds.ZeroPadding(f"{name}_zeros", key, pair(padding))


def _window_padding(padding: Margins) -> Padding:
    return padding if isinstance(padding, str) else "valid"


def _for_each(value: Any, filters: tuple[int, ...]) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,) * len(filters)


def _last(value: Any) -> Any:
    return value[-1] if isinstance(value, tuple) else value
