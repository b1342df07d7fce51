"""Conversion of Keras networks to LiteRT, and inference with the result."""

import io
import os
import warnings
from contextlib import redirect_stdout
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow.lite.python.convert_phase import ConverterError

from models import inference
from pipeline.core.errors import DataError


def in_float32(model: keras.Model) -> keras.Model:
    """Copy a network, with its weights, into one that computes in float32."""

    def widened(value: Any) -> Any:
        if isinstance(value, list):
            return [widened(item) for item in value]
        if not isinstance(value, dict):
            return value
        if value.get("class_name") == "DTypePolicy":
            return value | {"config": {"name": "float32"}}
        return {key: widened(item) for key, item in value.items()}

    copy = type(model).from_config(widened(model.get_config()))
    copy.set_weights(model.get_weights())
    return copy


def convert(model: keras.Model) -> bytes:
    """Convert a network to a LiteRT file.

    Returns:
        The content of the file, which maps one image, (1, height, width, channels), to probabilities, (1, classes).

    Raises:
        DataError: the network has an operation that LiteRT lacks.
    """
    network = in_float32(model)
    # A batch of one: with fixed sizes LiteRT plans all of its memory in advance.
    image = keras.Input(batch_shape=(1, *model.input_shape[1:]), name="image")
    outputs = network(image)
    if not inference.returns_probabilities(network):
        outputs = keras.layers.Softmax(name="probabilities")(outputs)
    # From the Keras model: a concrete function would keep variables, which LiteRT reads as NaN.
    converter = tf.lite.TFLiteConverter.from_keras_model(keras.Model(image, outputs))
    try:
        with redirect_stdout(io.StringIO()):
            return converter.convert()
    except ConverterError as error:
        raise DataError(f"LiteRT cannot represent the network: {str(error).splitlines()[0]}") from None


def run(content: bytes, images: np.ndarray) -> np.ndarray:
    """Predict with a LiteRT file: images of shape (n, height, width, channels) to probabilities (n, classes).

    Raises:
        DataError: LiteRT cannot run an operation that it could convert.
    """
    with warnings.catch_warnings(action="ignore"):  # the interpreter's move to a package of its own
        interpreter = tf.lite.Interpreter(model_content=content, num_threads=os.cpu_count())
    try:
        interpreter.allocate_tensors()
    except RuntimeError as error:
        raise DataError(f"LiteRT cannot run the network: {error}") from None
    [image_input], [output] = interpreter.get_input_details(), interpreter.get_output_details()
    probabilities = []
    for image in images:
        interpreter.set_tensor(image_input["index"], image[None])
        interpreter.invoke()
        probabilities.append(interpreter.get_tensor(output["index"])[0])
    return np.stack(probabilities)
