"""Keras networks as LiteRT files, and how these answer."""

import os
import warnings
from typing import Any

import keras
import numpy as np
import tensorflow as tf

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
    softmax = network.layers[-1].get_config()["activation"] == "softmax"

    @tf.function(input_signature=[tf.TensorSpec((1, *model.input_shape[1:]), tf.float32, name="image")])
    def answer(image: tf.Tensor) -> tf.Tensor:
        outputs = network(image, training=False)
        return outputs if softmax else tf.nn.softmax(outputs)

    converter = tf.lite.TFLiteConverter.from_concrete_functions([answer.get_concrete_function()], network)
    try:
        return converter.convert()
    except Exception as error:
        raise DataError(f"LiteRT cannot express the network: {str(error).splitlines()[0]}") from None


def run(content: bytes, images: np.ndarray) -> np.ndarray:
    """Probabilities of shape (n, classes) that a LiteRT file gives for images of shape (n, height, width, channels)."""
    with warnings.catch_warnings(action="ignore"):  # that the interpreter has moved to a package of its own
        interpreter = tf.lite.Interpreter(model_content=content, num_threads=os.cpu_count())
    interpreter.allocate_tensors()
    [given], [asked] = interpreter.get_input_details(), interpreter.get_output_details()
    answers = []
    for image in images:
        interpreter.set_tensor(given["index"], image[None])
        interpreter.invoke()
        answers.append(interpreter.get_tensor(asked["index"])[0])
    return np.stack(answers)
