"""A multi-column network: small networks side by side, whose probabilities are averaged; docs/recipe.md measures it.

models:
  columns: {builder: "multi_column:make", arguments: {columns: [residual, plain], angle: 8}, fit: {batch_size: 256}}

As in Ciresan et al.: Multi-column deep neural networks for image classification, arXiv:1202.2745. Each column trains on
its own part of each batch, as if alone: if batch size, learning rate and number of epochs are multiplied by the number
of columns, and L2 divided by it, it takes the steps that it would take alone.
"""

import json

import keras
import numpy as np
from keras import layers, ops

from models import cnn, fast_layers
from models.spec import Network

NORMALIZED = {"kernel_initializer": "he_normal", "batch_norm": True}
UNIT = {
    "residual": True,
    "kernel_initializer": "he_normal",
    "normalization": {"kind": "batch", "place": "convolution"},
    "pooling": {"kind": "none"},
}
COLUMNS = {  # networks in the vocabulary of docs/networks.md
    "plain": {
        "blocks": [
            NORMALIZED | {"filters": [32, 32], "padding": "valid"},
            NORMALIZED | {"filters": [64, 64], "padding": "valid", "dropout": 0.1},
            NORMALIZED | {"filters": [96, 96], "dropout": 0.3},
        ],
    },
    "residual": {
        "blocks": [
            UNIT | {"filters": [16, 16]},
            UNIT | {"filters": [32, 32], "stride": 2},
            UNIT | {"filters": [64, 64], "stride": 2, "repeat": 2},
            UNIT | {"filters": [128, 128], "stride": 2},
        ],
        "head": {"pooling": "global_average", "dropout": 0.3},
    },
}
# Columns are trained and saved with these in place of Keras's own.
for layer in (fast_layers.BatchNormalization, fast_layers.Dropout):
    keras.saving.register_keras_serializable(package="multi_column")(layer)


@keras.saving.register_keras_serializable(package="multi_column")
class Views(layers.Layer):
    """Adds copies of the images, rotated by plus and minus `angle` degrees, behind them. In training, adds none.

    Pixels are interpolated bilinearly, and zero outside the image.
    """

    def __init__(self, angle, **options):
        super().__init__(**options)
        self.angle = angle

    def call(self, images, training=False):
        return images if training else ops.concatenate([images, *(self._rotated(images, sign) for sign in (1, -1))])

    def _rotated(self, images, sign):
        height, width, channels = images.shape[1:]
        places, weights = rotation(height, width, sign * self.angle)
        corners = ops.take(ops.reshape(images, (-1, height * width, channels)), places, axis=1)
        pixels = ops.sum(corners * ops.cast(weights[..., None], images.dtype), axis=2)
        return ops.reshape(pixels, (-1, height, width, channels))

    def get_config(self):
        return super().get_config() | {"angle": self.angle}


def rotation(height, width, angle):
    """Indices and weights of the four pixels, (height * width, 4), that each pixel of a rotated image is a sum of."""
    row, column = np.mgrid[:height, :width].reshape(2, -1) - [[(height - 1) / 2], [(width - 1) / 2]]
    cosine, sine = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    row, column = row * cosine - column * sine + (height - 1) / 2, row * sine + column * cosine + (width - 1) / 2
    places, weights = [], []
    for top in (np.floor(row), np.floor(row) + 1):
        for left in (np.floor(column), np.floor(column) + 1):
            inside = (top >= 0) & (top < height) & (left >= 0) & (left < width)
            places.append(np.where(inside, top * width + left, 0))
            weights.append(inside * (1 - abs(row - top)) * (1 - abs(column - left)))
    return np.stack(places, 1).astype(np.int32), np.stack(weights, 1).astype(np.float32)


@keras.saving.register_keras_serializable(package="multi_column")
class Share(layers.Layer):
    """In training, the part of the batch that is of one column; else all of it."""

    def __init__(self, column, columns, **options):
        super().__init__(**options)
        self.column = column
        self.columns = columns

    def call(self, images, training=False):
        count = ops.shape(images)[0]
        if not training:
            return images
        if isinstance(count, int) and count < self.columns:
            raise ValueError(f"a batch of {count} images has no image for each of {self.columns} columns")
        return images[count * self.column // self.columns : count * (self.column + 1) // self.columns]

    def get_config(self):
        return super().get_config() | {"column": self.column, "columns": self.columns}


@keras.saving.register_keras_serializable(package="multi_column")
class Mean(layers.Layer):
    """The mean of the probabilities of all columns and views; in training, those of each image's column, in order."""

    def __init__(self, views, **options):
        super().__init__(**options)
        self.views = views

    def call(self, columns, training=False):
        if training:
            return ops.concatenate(columns)
        mean = ops.mean(ops.stack(columns), axis=0)
        return ops.mean(ops.reshape(mean, (self.views, -1, mean.shape[-1])), axis=0)

    def get_config(self):
        return super().get_config() | {"views": self.views}


def make(image, classes, columns=("residual", "residual"), angle=0):
    """A network for images of shape (height, width, channels), values in [0, 1].

    Args:
        columns: kinds of columns, each a key of `COLUMNS`.
        angle: in degrees, by which inference also rotates the images to both sides; 0: it does not.
    """
    if unknown := set(columns) - set(COLUMNS):
        raise ValueError(f"columns: unknown {', '.join(sorted(unknown))}; allowed: {', '.join(COLUMNS)}")
    inputs = keras.Input(image)
    images = Views(angle, dtype="float32")(inputs) if angle else inputs
    outputs = []
    for number, kind in enumerate(columns):
        network = Network.model_validate_json(json.dumps(COLUMNS[kind]))
        column = cnn.build(network, image, classes, precision(), to_train=True)
        column.name = f"column{number + 1}"
        outputs.append(column(Share(number, len(columns), name=f"share{number + 1}")(images)))
    return keras.Model(inputs, Mean(3 if angle else 1, dtype="float32")(outputs))


def precision():
    """That of Keras's global policy, by its name in params.yaml."""
    return next(name for name, policy in cnn.POLICIES.items() if policy == keras.config.dtype_policy().name)
