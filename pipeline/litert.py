"""Keras networks as LiteRT files, and how these answer."""

import io
import os
import warnings
from contextlib import redirect_stdout
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow.lite.python.convert_phase import ConverterError

from pipeline.errors import DataError


def in_float32(model: keras.Model) -> keras.Model:
    """The same network with the same weights, computing in float32."""

    def wide(value: Any) -> Any:
        if isinstance(value, list):
            return [wide(item) for item in value]
        if not isinstance(value, dict):
            return value
        if value.get("class_name") == "DTypePolicy":
            return value | {"config": {"name": "float32"}}
        return {key: wide(item) for key, item in value.items()}

    copy = type(model).from_config(wide(model.get_config()))
    copy.set_weights(model.get_weights())
    return copy


def convert(model: keras.Model) -> bytes:
    """A network as a LiteRT file that turns one image, (1, height, width, channels), into probabilities, (1, classes).

    Raises:
        DataError: it has an operation that LiteRT lacks.
    """
    network = in_float32(model)
    # Of one image: with sizes that are known LiteRT plans all of its memory beforehand.
    image = keras.Input(batch_shape=(1, *model.input_shape[1:]), name="image")
    outputs = network(image)
    if network.layers[-1].get_config()["activation"] != "softmax":
        outputs = keras.layers.Softmax(name="probabilities")(outputs)
    # By way of Keras: a plain graph would keep variables, which LiteRT reads as NaN.
    converter = tf.lite.TFLiteConverter.from_keras_model(keras.Model(image, outputs))
    try:
        with redirect_stdout(io.StringIO()):
            return converter.convert()
    except ConverterError as error:
        raise DataError(f"LiteRT cannot express the network: {str(error).splitlines()[0]}") from None


def run(content: bytes, images: np.ndarray) -> np.ndarray:
    """Probabilities of shape (n, classes) that a LiteRT file gives for images of shape (n, height, width, channels).

    Raises:
        DataError: LiteRT converts the network but cannot run it, as windows of GeM pooling.
    """
    with warnings.catch_warnings(action="ignore"):  # that the interpreter has moved to a package of its own
        interpreter = tf.lite.Interpreter(model_content=content, num_threads=os.cpu_count())
    try:
        interpreter.allocate_tensors()
    except RuntimeError as error:
        raise DataError(f"LiteRT cannot run the network: {error}") from None
    [given], [asked] = interpreter.get_input_details(), interpreter.get_output_details()
    answers = []
    for image in images:
        interpreter.set_tensor(given["index"], image[None])
        interpreter.invoke()
        answers.append(interpreter.get_tensor(asked["index"])[0])
    return np.stack(answers)
