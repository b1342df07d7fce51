"""Specification -> Keras model."""

from functools import singledispatch

import keras

from models import layers, pooling
from models.spec import Network

POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16"}


def build(network: Network, image: tuple[int, int, int], classes: int, precision: str = "float32") -> keras.Model:
    """An untrained model for images of shape (height, width, channels), values in [0, 1].

    Output: (batch, classes), probabilities or logits as `network.head.output` says, always float32. The precision is
    given to each layer rather than set globally, so that nothing which resets Keras's global state can change it.
    """
    model = keras.Sequential([keras.Input(image, name="image")], name="network")
    for layer in layers.plan(network, image, classes):
        model.add(_keras_layer(layer, POLICIES[precision]))
    return model


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
