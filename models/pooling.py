"""Kind of pooling -> Keras layer: one table for the windows of a block, one for the head."""

import keras

from models.spec import Pooling

KINDS = {
    "max": keras.layers.MaxPooling2D,
    "average": keras.layers.AveragePooling2D,
}

GLOBAL_KINDS = {
    "global_average": keras.layers.GlobalAveragePooling2D,
    "global_max": keras.layers.GlobalMaxPooling2D,
}


def layer(pooling: Pooling, **kwargs) -> keras.Layer:
    """The layer for one specification; `kwargs` are Keras's own: name, dtype."""
    return KINDS[pooling.kind](pool_size=pooling.window, strides=pooling.step, padding=pooling.padding, **kwargs)
