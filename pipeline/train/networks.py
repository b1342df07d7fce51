"""The Keras model of a fit: a network of blocks or of the user's own code, with starting weights and frozen layers."""

import keras

from models import cnn, own_network
from models.own_code import LayerRow, OwnCode
from pipeline.core.config import AnyNetwork, NetworkConfig
from pipeline.core.dataset import DatasetInfo
from pipeline.core.errors import TrainingError
from pipeline.core.records import Counts
from pipeline.train.task import FitSpec


def build(spec: FitSpec, info: DatasetInfo) -> keras.Model:
    """Build the model to train.

    Raises:
        TrainingError: the user's code fails, or starting weights or frozen layers do not fit the network.
    """
    network, classes = spec.network, len(info.classes)
    try:
        if isinstance(network, NetworkConfig):
            model = cnn.build(network, info.image, classes, spec.precision, to_train=True, seed=spec.seed)
        else:
            code = OwnCode(network.file, spec.files[network.file])
            model = own_network.build(network, code, info.image, classes, spec.precision, spec.seed)
        if network.weights:
            own_network.load_weights(model, network.weights, spec.files[network.weights])
        own_network.freeze(model, network.freeze)
    except own_network.BuildError as error:
        raise TrainingError(str(error)) from error.__cause__
    return model


def for_inference(model: keras.Model, spec: FitSpec, info: DatasetInfo) -> keras.Model:
    """The same weights in Keras's own layers, without the optimizer, which would triple the file."""
    if not isinstance(spec.network, NetworkConfig):
        return own_network.for_inference(model)
    copy = cnn.build(spec.network, info.image, len(info.classes), spec.precision)
    own_network.freeze(copy, spec.network.freeze)
    copy.set_weights(model.get_weights())
    return copy


def layers(model: keras.Model, network: AnyNetwork) -> list[LayerRow] | None:
    """The layers of a network of the user's own code; those of others are known from their configuration."""
    return None if isinstance(network, NetworkConfig) else own_network.layer_rows(model)


def counts(layers: list[LayerRow] | None, network: AnyNetwork, info: DatasetInfo) -> Counts:
    """The counts of a network, given what `layers` returns."""
    known = network.trace(info.image, len(info.classes)) if isinstance(network, NetworkConfig) else []
    return Counts.of(layers or known)
