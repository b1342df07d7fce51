"""Build the Keras model of a specification."""

import random
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import singledispatch
from typing import Any

import keras

from models import architecture, fast_layers, pooling
from models import layer_types as kinds
from models.spec import Network

POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16"}


def build(
    network: Network,
    image: tuple[int, int, int],
    classes: int,
    precision: str = "float32",
    *,
    to_train: bool = False,
    seed: int | None = None,
) -> keras.Model:
    """Build an untrained model for images of shape (height, width, channels), values in [0, 1].

    Output: (batch, classes), float32: probabilities or logits, depending on `network.head.output`. The precision is
    set per layer, not globally, so that resetting Keras's global state cannot change it.

    Args:
        to_train: use drop-in layers that train faster (`models.fast_layers`). Weights and function are the same, but
            the model is not meant to be saved.
        seed: of initial weights, dropout and random pooling; None: they differ between models.
    """
    plan, dtype = list(architecture.plan(network, image, classes)), POLICIES[precision]
    plan = list(_relu_after_pooling(plan)) if to_train else plan
    made = ((fast_layers.layer(layer, dtype) if to_train else None) or _keras_layer(layer, dtype) for layer in plan)
    layers = list(made if seed is None else _seeded(made, random.Random(seed)))
    start = keras.Input(image, name=architecture.IMAGE)
    if any(layer.inputs for layer in plan):
        return keras.Model(start, _connected(start, plan, layers), name="network")
    return keras.Sequential([start, *layers], name="network")


def _connected(image: Any, plan: Iterable[kinds.Layer], layers: Iterable[keras.Layer]) -> Any:
    """The output of layers that take the outputs of others by name, or that of the layer before."""
    known, values = {architecture.IMAGE: image}, image
    for layer, made in zip(plan, layers, strict=True):
        inputs = [known[name] for name in layer.inputs]
        values = known[layer.name] = made(inputs if len(inputs) > 1 else inputs[0] if inputs else values)
    return values


def _seeded(layers: Iterable[keras.Layer], seeds: random.Random) -> Iterator[keras.Layer]:
    """Set the seeds that Keras would draw from Python's global generator, which other threads draw from as well."""
    for layer in layers:
        for name in ("kernel_initializer", "depthwise_initializer", "pointwise_initializer"):
            if (initializer := getattr(layer, name, None)) is not None:
                initializer.seed = seeds.randint(1, 10**9)
        if (generator := getattr(layer, "seed_generator", None)) is not None:
            generator.state.assign([seeds.randint(1, 10**9), 0])
        yield layer


def _relu_after_pooling(plan: Iterable[kinds.Layer]) -> Iterator[kinds.Layer]:
    """The layers for training: ReLU commutes with max pooling and is moved after it, to smaller feature maps."""
    waiting, moved = None, dict[str, str]()  # name of a pooling layer -> that of the ReLU behind it
    for planned in plan:
        layer = replace(planned, inputs=tuple(moved.get(name, name) for name in planned.inputs))
        if waiting and isinstance(layer, kinds.Pool) and layer.pooling.kind == "max":
            moved[layer.name] = f"{waiting.name}_relu"
            yield replace(waiting, activation="linear")
            yield layer
            yield kinds.Activate(moved[layer.name], waiting.key, "relu")
            waiting = None
            continue
        if waiting:
            yield waiting
        waiting = layer if isinstance(layer, kinds.Convolution) and layer.activation == "relu" else None
        if not waiting:
            yield layer


@singledispatch
def _keras_layer(layer: kinds.Layer, dtype: str) -> keras.Layer:
    raise TypeError(f"no Keras layer for {type(layer).__name__}")


@_keras_layer.register
def _(layer: kinds.ZeroPadding, dtype: str) -> keras.Layer:
    return keras.layers.ZeroPadding2D(layer.margins, name=layer.name, dtype=dtype)


@_keras_layer.register
def _(layer: kinds.Convolution, dtype: str) -> keras.Layer:
    common = {
        "kernel_size": layer.kernel_size,
        "strides": layer.stride,
        "dilation_rate": layer.dilation,
        "padding": layer.padding,
        "activation": layer.activation,
        "use_bias": layer.use_bias,
        "name": layer.name,
        "dtype": dtype,
    }
    initializer = layer.kernel_initializer
    match layer.kind:
        case "standard":
            return keras.layers.Conv2D(layer.filters, groups=layer.groups, kernel_initializer=initializer, **common)
        case "separable":
            return keras.layers.SeparableConv2D(
                layer.filters, depthwise_initializer=initializer, pointwise_initializer=initializer, **common
            )
        case "depthwise":
            return keras.layers.DepthwiseConv2D(
                depth_multiplier=layer.multiplier, depthwise_initializer=initializer, **common
            )


@_keras_layer.register
def _(layer: kinds.Activate, dtype: str) -> keras.Layer:
    return keras.layers.Activation(layer.activation, name=layer.name, dtype=dtype)


@_keras_layer.register
def _(layer: kinds.Pool, dtype: str) -> keras.Layer:
    return pooling.layer(layer.pooling, padding=layer.padding, name=layer.name, dtype=dtype)


@_keras_layer.register
def _(layer: kinds.FractionalPool, dtype: str) -> keras.Layer:
    return pooling.layer(layer.pooling, name=layer.name, dtype=dtype)


@_keras_layer.register
def _(layer: kinds.GlobalPool, dtype: str) -> keras.Layer:
    return pooling.global_layer(layer.kind, layer.power, name=layer.name, dtype=dtype)


@_keras_layer.register
def _(layer: kinds.Dropout, dtype: str) -> keras.Layer:
    return keras.layers.Dropout(layer.rate, name=layer.name, dtype=dtype)


@_keras_layer.register
def _(layer: kinds.SpatialDropout, dtype: str) -> keras.Layer:
    return keras.layers.SpatialDropout2D(layer.rate, name=layer.name, dtype=dtype)


@_keras_layer.register
def _(layer: kinds.BatchNormalization, dtype: str) -> keras.Layer:
    return keras.layers.BatchNormalization(name=layer.name, dtype=dtype)


@_keras_layer.register
def _(layer: kinds.LayerNormalization, dtype: str) -> keras.Layer:
    return keras.layers.LayerNormalization(name=layer.name, dtype=dtype)


@_keras_layer.register
def _(layer: kinds.GroupNormalization, dtype: str) -> keras.Layer:
    return keras.layers.GroupNormalization(layer.groups, name=layer.name, dtype=dtype)


@_keras_layer.register
def _(layer: kinds.Add, dtype: str) -> keras.Layer:
    return keras.layers.Add(name=layer.name, dtype=dtype)


@_keras_layer.register
def _(layer: kinds.Multiply, dtype: str) -> keras.Layer:
    return keras.layers.Multiply(name=layer.name, dtype=dtype)


@_keras_layer.register
def _(layer: kinds.Squeeze, dtype: str) -> keras.Layer:
    return keras.layers.GlobalAveragePooling2D(keepdims=True, name=layer.name, dtype=dtype)


@_keras_layer.register
def _(layer: kinds.Flatten, dtype: str) -> keras.Layer:
    return keras.layers.Flatten(name=layer.name, dtype=dtype)


@_keras_layer.register
def _(layer: kinds.Linear, dtype: str) -> keras.Layer:
    return keras.layers.Dense(layer.units, activation=layer.activation, name=layer.name, dtype=dtype)


@_keras_layer.register
def _(layer: kinds.Output, dtype: str) -> keras.Layer:
    return keras.layers.Dense(layer.units, activation=layer.activation, name=layer.name, dtype="float32")
