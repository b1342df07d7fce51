"""Build the Keras model of a network of the user's own code; starting weights and frozen layers of any network."""

import random
import tempfile
import warnings
from collections.abc import Iterable, Sequence
from fnmatch import filter as matching_names
from pathlib import Path
from unittest import mock

import keras
import numpy as np

from models.cnn import POLICIES
from models.inference import PROBABILITIES
from models.own_code import FOLDER, LayerRow, OwnCode, OwnNetwork

LOGITS = "logits"  # the name of the last layer of a network that is trained on logits
PROBES = 4  # random images by which the declared output is checked


class BuildError(Exception):
    """A builder, starting weights or frozen layers that cannot be used."""


def build(
    network: OwnNetwork, code: OwnCode, image: tuple[int, int, int], classes: int, precision: str, seed: int
) -> keras.Model:
    """Build an untrained model for images of shape (height, width, channels), values in [0, 1].

    The output, (batch, classes), is that of the builder's model, in float32.

    Args:
        code: the builder's file.
        seed: of initial weights and dropout.

    Raises:
        BuildError: the builder fails, or its model does not fit images and classes, or could not be saved.
    """
    place = f"{FOLDER}/{network.file}"
    before = keras.config.dtype_policy()
    keras.utils.set_random_seed(seed)
    keras.config.set_dtype_policy(POLICIES[precision])
    try:
        # Keras draws the seeds of layers from Python's global generator, which other threads draw from as well.
        with mock.patch("keras.src.random.seed_generator.python_random", random.Random(seed)):
            made = getattr(code.load(), network.function)(image, classes, **network.arguments)
            if not isinstance(made, keras.Model):
                raise BuildError(f"{place}: {network.function} returned {type(made).__name__}; allowed: a keras.Model")
            if getattr(made, "inputs", None) is None:  # a subclass of keras.Model
                inputs = keras.Input(image, name="image")
                made = keras.Model(inputs, made(inputs))
    except BuildError:
        raise
    except Exception as error:
        raise BuildError(f"{place}: {network.builder} failed: {type(error).__name__}: {error}") from error
    finally:
        keras.config.set_dtype_policy(before)
    _check_shapes(made, image, classes, place)
    _check_layers(made, place)
    name = LOGITS if network.output == "logits" else PROBABILITIES
    outputs = keras.layers.Activation("linear", name=name, dtype="float32")(made.outputs[0])
    model = keras.Model(made.inputs[0], outputs, name="network")
    _check_output(model, network, image, place)
    return model


def for_inference(model: keras.Model) -> keras.Model:
    """The same layers with probabilities as the output, without the optimizer."""
    last = model.layers[-1]
    outputs = model.outputs[0]
    if last.name == LOGITS:
        outputs = keras.layers.Activation("softmax", name=PROBABILITIES, dtype="float32")(last.input)
    return keras.Model(model.inputs[0], outputs, name="network")


def _check_shapes(model: keras.Model, image: tuple[int, ...], classes: int, place: str) -> None:
    shapes = [tuple(each.shape[1:]) for each in (*model.inputs, *model.outputs)]
    if shapes != [image, (classes,)]:
        raise BuildError(f"{place}: the model maps {shapes[:-1]} to {shapes[-1]}; needed: {[image]} to {(classes,)}")


def _check_layers(model: keras.Model, place: str) -> None:
    """Refuse layers that could be trained, but not loaded again."""
    for layer in _all_layers(model):
        kind = type(layer)
        if isinstance(layer, keras.layers.Lambda):
            raise BuildError(
                f"{place}: {layer.name} is a Lambda layer, which cannot be saved safely; write a layer, a class with "
                "the decorator @keras.saving.register_keras_serializable()"
            )
        own = kind.__module__.startswith(f"{FOLDER}.")
        if own and keras.saving.get_registered_object(keras.saving.get_registered_name(kind)) is not kind:
            raise BuildError(
                f"{place}: the class {kind.__name__} could not be loaded again; write "
                "@keras.saving.register_keras_serializable() above it"
            )


def _check_output(model: keras.Model, network: OwnNetwork, image: tuple[int, ...], place: str) -> None:
    probes = np.random.default_rng(0).random((PROBES, *image), np.float32)
    outputs = keras.ops.convert_to_numpy(model(probes, training=False))
    probable = bool((outputs >= 0).all() and np.allclose(outputs.sum(axis=1), 1, atol=0.05))
    if probable != (network.output == "softmax"):
        found = "probabilities" if probable else "no probabilities"
        wanted = "softmax" if probable else "logits, or end the network with a softmax"
        raise BuildError(f"{place}: the model returns {found}, but output is {network.output}; set output: {wanted}")


def _all_layers(model: keras.Model) -> list[keras.Layer]:
    return list(model._flatten_layers(include_self=False))


def layer_rows(model: keras.Model) -> list[LayerRow]:
    """The layers of a built network with their counts; a model within the network is one layer."""
    return [
        LayerRow(
            layer.name,
            type(layer).__name__,
            _output_shape(layer),
            sum(_sizes(layer.weights)),
            sum(_sizes(layer.non_trainable_weights)),
        )
        for layer in model.layers
        if not isinstance(layer, keras.layers.InputLayer)
    ]


def _output_shape(layer: keras.Layer) -> tuple[int, ...]:
    try:
        return tuple(layer.output.shape[1:])
    except (AttributeError, ValueError):  # several outputs, or a layer that is used several times
        return ()


def _sizes(variables: Iterable[keras.Variable]) -> list[int]:
    return [int(np.prod(variable.shape)) for variable in variables]


def freeze(model: keras.Model, patterns: Sequence[str]) -> None:
    """Keep the weights of the layers whose names match a pattern; batch normalization uses its moving statistics.

    Raises:
        BuildError: a pattern matches no layer with weights, or nothing is left to train.
    """
    layers = [layer for layer in _all_layers(model) if layer.weights]
    names = [layer.name for layer in layers]
    for pattern in patterns:
        matching = matching_names(names, pattern)
        if not matching:
            raise BuildError(f"freeze: no layer with weights matches {pattern!r}; layers: {', '.join(names)}")
        for layer in layers:
            if layer.name in matching:  # others are left alone: a model passes the value on to its layers
                layer.trainable = False
    if patterns and not model.trainable_variables:
        raise BuildError("freeze: all layers are frozen, so there is nothing to train")


def load_weights(model: keras.Model, name: str, content: bytes) -> None:
    """Set the weights that a file has for the model, and print which layers it has none for.

    From a .keras file and from a legacy .h5 file, by the names of the layers; from a .weights.h5 file, by their kinds
    and order. Weights of another shape are left out: those of a head for other classes.

    Raises:
        BuildError: the file is not readable, or has no weights for the model.
    """
    before = [keras.ops.convert_to_numpy(variable) for variable in model.weights]
    for variable, values in zip(model.weights, before, strict=True):
        variable.assign(np.full_like(values, np.nan))  # marks the weights that the file lacks
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(action="ignore"):
        path = Path(folder) / name
        path.write_bytes(content)
        try:
            if name.endswith(".keras"):
                _copy_by_name(keras.saving.load_model(path, compile=False, safe_mode=True), model)
            elif name.endswith(".weights.h5"):
                model.load_weights(path, skip_mismatch=True)
            else:
                model.load_weights(path, skip_mismatch=True, by_name=True)
        except Exception as error:
            reason = str(error).partition("\n")[0]
            raise BuildError(f"weights: {FOLDER}/{name} is not readable as weights: {reason}") from error
    missing = set()
    for variable, values in zip(model.weights, before, strict=True):
        if np.isnan(keras.ops.convert_to_numpy(variable)).any():
            variable.assign(values)
            missing.add(variable.path)
    if len(missing) == len(before):
        raise BuildError(
            f"weights: {FOLDER}/{name} has no weights for this network: no layer has the same name and shapes"
        )
    layers = [layer for layer in _all_layers(model) if layer.weights and not layer._layers]
    new = [layer.name for layer in layers if any(variable.path in missing for variable in layer.weights)]
    rest = f"; not: {', '.join(new)}" if new else ""
    print(f"weights of {len(layers) - len(new)} layers from {FOLDER}/{name}{rest}", flush=True)


def _copy_by_name(source: keras.Model, target: keras.Model) -> None:
    known = {layer.name: layer for layer in _all_layers(source)}
    for layer in _all_layers(target):
        own, found = layer.weights, known[layer.name].weights if layer.name in known else []
        if [each.shape for each in own] == [each.shape for each in found]:
            layer.set_weights([keras.ops.convert_to_numpy(each) for each in found])
