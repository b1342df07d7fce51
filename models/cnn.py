"""Specification -> Keras model."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import singledispatch

import keras

from models import kernels, layers, pooling
from models.spec import Network

POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16"}


def build(
    network: Network,
    image: tuple[int, int, int],
    classes: int,
    precision: str = "float32",
    *,
    to_train: bool = False,
) -> keras.Model:
    """An untrained model for images of shape (height, width, channels), values in [0, 1].

    Output: (batch, classes), probabilities or logits as `network.head.output` says, always float32. The precision is
    given to each layer rather than set globally, so that nothing which resets Keras's global state can change it.

    Args:
        to_train: the same weights and function with layers that train faster, which are not meant to be saved.
    """
    plan, dtype = list(layers.plan(network, image, classes)), POLICIES[precision]
    made = _layers_to_train(plan, dtype) if to_train else (_keras_layer(layer, dtype) for layer in plan)
    return keras.Sequential([keras.Input(image, name="image"), *made], name="network")


def _layers_to_train(plan: Iterable[layers.Layer], dtype: str) -> Iterator[keras.Layer]:
    """A ReLU before max pooling is moved behind it: both take the larger of values, so nothing changes but its size."""
    waiting = None
    for layer in plan:
        if waiting and isinstance(layer, layers.Pool) and layer.pooling.kind == "max":
            yield _keras_layer(replace(waiting, activation="linear"), dtype)
            yield _keras_layer(layer, dtype)
            yield keras.layers.Activation("relu", name=f"{waiting.name}_relu", dtype=dtype)
            waiting = None
            continue
        if waiting:
            yield _keras_layer(waiting, dtype)
        waiting = layer if isinstance(layer, layers.Convolution) and layer.activation == "relu" else None
        if type(layer) is layers.Dropout:
            yield kernels.Dropout(layer.rate, name=layer.name, dtype=dtype)
        elif isinstance(layer, layers.BatchNormalization):
            yield kernels.BatchNormalization(name=layer.name, dtype=dtype)
        elif not waiting:
            yield _keras_layer(layer, dtype)


@singledispatch
def _keras_layer(layer: layers.Layer, dtype: str) -> keras.Layer:
    raise TypeError(f"no Keras layer for {type(layer).__name__}")


@_keras_layer.register
def _(layer: layers.Convolution, dtype: str) -> keras.Layer:
    common = {
        "filters": layer.filters,
        "kernel_size": layer.kernel_size,
        "strides": layer.stride,
        "padding": layer.padding,
        "activation": layer.activation,
        "name": layer.name,
        "dtype": dtype,
    }
    if not layer.separable:
        return keras.layers.Conv2D(kernel_initializer=layer.kernel_initializer, **common)
    return keras.layers.SeparableConv2D(
        depthwise_initializer=layer.kernel_initializer, pointwise_initializer=layer.kernel_initializer, **common
    )


@_keras_layer.register
def _(layer: layers.Pool | layers.FractionalPool, dtype: str) -> keras.Layer:
    return pooling.layer(layer.pooling, name=layer.name, dtype=dtype)


@_keras_layer.register
def _(layer: layers.GlobalPool, dtype: str) -> keras.Layer:
    return pooling.global_layer(layer.kind, layer.power, name=layer.name, dtype=dtype)


@_keras_layer.register
def _(layer: layers.Dropout, dtype: str) -> keras.Layer:
    return keras.layers.Dropout(layer.rate, name=layer.name, dtype=dtype)


@_keras_layer.register
def _(layer: layers.SpatialDropout, dtype: str) -> keras.Layer:
    return keras.layers.SpatialDropout2D(layer.rate, name=layer.name, dtype=dtype)


@_keras_layer.register
def _(layer: layers.BatchNormalization, dtype: str) -> keras.Layer:
    return keras.layers.BatchNormalization(name=layer.name, dtype=dtype)


@_keras_layer.register
def _(layer: layers.Flatten, dtype: str) -> keras.Layer:
    return keras.layers.Flatten(name=layer.name, dtype=dtype)


@_keras_layer.register
def _(layer: layers.Dense, dtype: str) -> keras.Layer:
    return keras.layers.Dense(layer.units, activation=layer.activation, name=layer.name, dtype=dtype)


@_keras_layer.register
def _(layer: layers.Output, dtype: str) -> keras.Layer:
    return keras.layers.Dense(layer.units, activation=layer.activation, name=layer.name, dtype="float32")
