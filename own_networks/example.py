"""An own network with a custom layer; docs/own_networks.md explains it.

models:
  mine: {builder: "example:make", arguments: {width: 32}}
"""

import keras
from keras import layers, ops


@keras.saving.register_keras_serializable(package="example")
class Scale(layers.Layer):
    """Multiplies each channel by a learned factor."""

    def build(self, input_shape):
        self.factors = self.add_weight(shape=(input_shape[-1],), initializer="ones", name="factors")

    def call(self, inputs):
        return inputs * ops.cast(self.factors, inputs.dtype)


def make(image, classes, width=16, dropout=0.0):
    """A small residual network for images of shape (height, width, channels), values in [0, 1]."""
    inputs = keras.Input(image)
    features = layers.Conv2D(width, 3, padding="same", activation="relu")(inputs)
    features = layers.MaxPooling2D()(features)
    residual = layers.Conv2D(width, 3, padding="same", activation="relu")(features)
    features = layers.add([features, Scale()(residual)])
    features = layers.BatchNormalization()(features)
    features = layers.Flatten()(layers.MaxPooling2D()(features))
    features = layers.Dropout(dropout)(features)
    return keras.Model(inputs, layers.Dense(classes, activation="softmax")(features))
