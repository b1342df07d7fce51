"""Build the Keras model of a specification."""

import random
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import singledispatch

import keras

from models import architecture, fast_layers, pooling
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
    made = _layers_to_train(plan, dtype) if to_train else (_keras_layer(layer, dtype) for layer in plan)
    seeded = made if seed is None else _seeded(made, random.Random(seed))
    return keras.Sequential([keras.Input(image, name="image"), *seeded], name="network")


def _seeded(layers: Iterable[keras.Layer], seeds: random.Random) -> Iterator[keras.Layer]:
    """Set the seeds that Keras would draw from Python's global generator, which other threads draw from as well."""
    for layer in layers:
        for name in ("kernel_initializer", "depthwise_initializer", "pointwise_initializer"):
            if (initializer := getattr(layer, name, None)) is not None:
                initializer.seed = seeds.randint(1, 10**9)
        if (generator := getattr(layer, "seed_generator", None)) is not None:
            generator.state.assign([seeds.randint(1, 10**9), 0])
        yield layer


def _layers_to_train(plan: Iterable[architecture.Layer], dtype: str) -> Iterator[keras.Layer]:
    """Layers for training. ReLU commutes with max pooling and is moved after it, to smaller feature maps."""
    waiting = None
    for layer in plan:
        if waiting and isinstance(layer, architecture.Pool) and layer.pooling.kind == "max":
            yield _keras_layer(replace(waiting, activation="linear"), dtype)
            yield _keras_layer(layer, dtype)
            yield keras.layers.Activation("relu", name=f"{waiting.name}_relu", dtype=dtype)
            waiting = None
            continue
        if waiting:
            yield _keras_layer(waiting, dtype)
        waiting = layer if isinstance(layer, architecture.Convolution) and layer.activation == "relu" else None
        if type(layer) is architecture.Dropout:
            yield fast_layers.Dropout(layer.rate, name=layer.name, dtype=dtype)
        elif isinstance(layer, architecture.BatchNormalization):
            yield fast_layers.BatchNormalization(name=layer.name, dtype=dtype)
        elif not waiting:
            yield _keras_layer(layer, dtype)


@singledispatch
def _keras_layer(layer: architecture.Layer, dtype: str) -> keras.Layer:
    raise TypeError(f"no Keras layer for {type(layer).__name__}")


@_keras_layer.register
def _(layer: architecture.Convolution, dtype: str) -> keras.Layer:
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
def _(layer: architecture.Pool | architecture.FractionalPool, dtype: str) -> keras.Layer:
    return pooling.layer(layer.pooling, name=layer.name, dtype=dtype)


@_keras_layer.register
def _(layer: architecture.GlobalPool, dtype: str) -> keras.Layer:
    return pooling.global_layer(layer.kind, layer.power, name=layer.name, dtype=dtype)


@_keras_layer.register
def _(layer: architecture.Dropout, dtype: str) -> keras.Layer:
    return keras.layers.Dropout(layer.rate, name=layer.name, dtype=dtype)


@_keras_layer.register
def _(layer: architecture.SpatialDropout, dtype: str) -> keras.Layer:
    return keras.layers.SpatialDropout2D(layer.rate, name=layer.name, dtype=dtype)


@_keras_layer.register
def _(layer: architecture.BatchNormalization, dtype: str) -> keras.Layer:
    return keras.layers.BatchNormalization(name=layer.name, dtype=dtype)


@_keras_layer.register
def _(layer: architecture.Flatten, dtype: str) -> keras.Layer:
    return keras.layers.Flatten(name=layer.name, dtype=dtype)


@_keras_layer.register
def _(layer: architecture.Dense, dtype: str) -> keras.Layer:
    return keras.layers.Dense(layer.units, activation=layer.activation, name=layer.name, dtype=dtype)


@_keras_layer.register
def _(layer: architecture.Output, dtype: str) -> keras.Layer:
    return keras.layers.Dense(layer.units, activation=layer.activation, name=layer.name, dtype="float32")
