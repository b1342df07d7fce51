"""Worked examples from textbooks: pooling, convolution, and networks in plain Keras."""

import json
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
from keras.layers import Conv2D, Dense, Dropout, Flatten, MaxPooling2D
from ruamel.yaml import YAML

from models import architecture, cnn, layer_types, pooling
from models.spec import Network, Pooling

ROOT = Path(__file__).parents[1]
YAML_READER = YAML(typ="safe", pure=True)
GALLERY = YAML_READER.load(ROOT / "models" / "gallery.yaml")
COUNTING = np.arange(1.0, 26.0).reshape(5, 5)  # 1 ... 25, row by row
VERTICAL_EDGE = np.array([[1, 0, -1]] * 3)


def on_one_channel(layer: keras.Layer, image: np.ndarray) -> np.ndarray:
    """Apply a layer to one image of shape (height, width)."""
    return keras.ops.convert_to_numpy(layer(image[np.newaxis, :, :, np.newaxis]))[0, :, :, 0]


def gallery(name: str) -> Network:
    return Network.model_validate_json(json.dumps({key: part for key, part in GALLERY[name].items() if key != "fit"}))


@pytest.mark.parametrize(("kind", "expected"), [("max", [[6, 8], [14, 16]]), ("average", [[3.5, 5.5], [11.5, 13.5]])])
def test_2x2_pooling_of_a_4x4_image(kind: str, expected: list) -> None:
    image = np.arange(1.0, 17.0).reshape(4, 4)
    layer = pooling.layer(Pooling.model_validate({"kind": kind}))
    assert on_one_channel(layer, image).tolist() == expected


def convolved() -> np.ndarray:
    convolution = keras.layers.Conv2D(1, 3, use_bias=False)
    convolution.build((1, 5, 5, 1))
    convolution.set_weights([VERTICAL_EDGE.reshape(3, 3, 1, 1)])
    return on_one_channel(convolution, COUNTING)


def test_vertical_edge_filter() -> None:
    assert convolved().tolist() == [[-6.0] * 3] * 3


@pytest.mark.parametrize(("spec", "size"), [({}, 1), ({"padding": "same"}, 2), ({"stride": 1}, 2)])
def test_pooling_after_the_convolution(spec: dict, size: int) -> None:
    assert on_one_channel(pooling.layer(Pooling.model_validate(spec)), convolved()).tolist() == [[-6.0] * size] * size


def test_3x3_window_has_3x3_positions_in_a_5x5_image() -> None:
    found = on_one_channel(pooling.layer(Pooling(window=3, stride=1)), COUNTING)
    assert found.tolist() == [[13, 14, 15], [18, 19, 20], [23, 24, 25]]


@pytest.mark.parametrize("size", range(3, 12))
@pytest.mark.parametrize("window", [1, 2, 3])
@pytest.mark.parametrize("stride", [1, 2])
def test_output_size_formula(size: int, window: int, stride: int) -> None:
    """floor((size - K + 2P) / S) + 1, with P = 0 for `valid` and P = K // 2 for `same` with odd K."""
    assert layer_types.output_size(size, window, stride, "valid") == np.floor((size - window) / stride) + 1
    if window % 2:
        padded = size + 2 * (window // 2)
        assert layer_types.output_size(size, window, stride, "same") == np.floor((padded - window) / stride) + 1


def test_max_pooling_equals_a_loop() -> None:
    image = np.random.default_rng(1).normal(size=(7, 9)).astype(np.float32)
    for window, stride in [(2, 2), (3, 2), (3, 1), (2, 3)]:
        expected = [
            [image[y * stride : y * stride + window, x * stride : x * stride + window].max() for x in range(columns)]
            for columns in [(9 - window) // stride + 1]
            for y in range((7 - window) // stride + 1)
        ]
        layer = pooling.layer(Pooling(window=window, stride=stride))
        np.testing.assert_array_equal(on_one_channel(layer, image), expected)


def test_convolution_moves_along_with_its_image_and_pooling_by_whole_steps_only():
    """Translation equivariance; invariance would be equal feature maps of both images."""
    image = np.zeros((12, 20), np.float32)
    image[3:9, 4:10] = np.random.default_rng(4).random((6, 6))
    convolution = keras.layers.Conv2D(1, 3, padding="same")
    layers = [lambda x: on_one_channel(convolution, x), lambda x: on_one_channel(pooling.layer(Pooling()), x)]

    def moved(x: np.ndarray, columns: int) -> np.ndarray:
        return np.roll(x, columns, axis=1)

    for shift in (1, 2, 3, 4):
        convolved, pooled = (layer(moved(image, shift)) for layer in layers)
        before, smaller = (layer(image) for layer in layers)
        np.testing.assert_allclose(convolved, moved(before, shift), atol=1e-6)
        assert np.array_equal(pooled, moved(smaller, shift // 2)) == (shift % 2 == 0)
        assert not np.allclose(convolved, before, atol=0.1)  # equivariant, not invariant


def test_relu_is_the_maximum_of_0_and_x() -> None:
    """ReLU as the activation of an identity convolution."""
    network = Network.model_validate_json('{"blocks": [{"filters": [1], "kernel_size": 1}]}')
    convolution = cnn.build(network, (5, 5, 1), 2).layers[0]
    convolution.set_weights([np.ones((1, 1, 1, 1)), np.zeros(1)])
    np.testing.assert_array_equal(on_one_channel(convolution, COUNTING - 13), np.maximum(0, COUNTING - 13))


def test_softmax_output_is_the_softmax_of_the_logits() -> None:
    probable, scored = (
        cnn.build(Network.model_validate({"head": {"output": output}}), (4, 4, 1), 5)
        for output in ("softmax", "logits")
    )
    scored.set_weights(probable.get_weights())
    images = np.random.default_rng(2).normal(size=(6, 4, 4, 1)).astype(np.float32)
    exponentials = np.exp(scored(images).numpy())
    expected = exponentials / exponentials.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(probable(images).numpy(), expected, rtol=1e-5)
    np.testing.assert_allclose(probable(images).numpy().sum(axis=1), 1, rtol=1e-6)


def test_shapes_and_parameters_of_the_overview_network() -> None:
    traced = architecture.trace(gallery("tiny_cnn"), (32, 32, 3), 10)
    assert [row.output_shape for row in traced] == [
        (32, 32, 16),
        (16, 16, 16),
        (16, 16, 32),
        (8, 8, 32),
        (2048,),
        (128,),
        (10,),
    ]
    assert [row.parameters for row in traced if row.parameters] == [448, 4_640, 262_272, 1_290]
    assert sum(row.parameters for row in traced) == 268_650


def dense_baseline() -> list[keras.Layer]:
    return [Flatten(name="flatten"), Dense(128, activation="relu"), Dense(10)]


def converted_cnn() -> list[keras.Layer]:
    return [
        Conv2D(
            filters=32,
            kernel_size=(3, 3),
            strides=(1, 1),
            padding="same",
            activation="relu",
            kernel_initializer="glorot_uniform",
            use_bias=True,
            name="conv1",
        ),
        Conv2D(
            filters=64,
            kernel_size=3,
            strides=1,
            padding="same",
            activation="relu",
            kernel_initializer="he_normal",
            name="conv2",
        ),
        MaxPooling2D(pool_size=(2, 2), strides=2, name="pool1"),
        Dropout(0.25, name="dropout1"),
        Conv2D(filters=128, kernel_size=(3, 3), padding="same", activation="relu", name="conv3"),
        MaxPooling2D(pool_size=2, name="pool2"),
        Flatten(name="flatten"),
        Dense(128, activation="relu", name="fc1"),
        Dropout(0.5, name="dropout2"),
        Dense(10, name="logits"),
    ]


def tiny_cnn() -> list[keras.Layer]:
    return [
        Conv2D(16, 3, padding="same", activation="relu"),
        MaxPooling2D(2, strides=2),
        Conv2D(32, 3, padding="same", activation="relu"),
        MaxPooling2D(2, strides=2),
        Flatten(),
        Dense(128, activation="relu"),
        Dense(10),
    ]


IN_KERAS: dict[str, tuple[Callable[[], list[keras.Layer]], tuple[int, int, int], int]] = {
    "dense_baseline": (dense_baseline, (28, 28, 1), 101_770),
    "converted_cnn": (converted_cnn, (28, 28, 1), 896_906),
    "tiny_cnn": (tiny_cnn, (32, 32, 3), 268_650),
}


@pytest.mark.parametrize("name", IN_KERAS)
def test_layers_equal_those_in_plain_keras(name: str) -> None:
    in_keras, image, parameters = IN_KERAS[name]
    expected = keras.Sequential([keras.Input(image), *in_keras()])
    built = cnn.build(gallery(name), image, 10)

    def described(layer: keras.Layer) -> dict:
        settings = {key: value for key, value in layer.get_config().items() if key != "name"}
        return {"class": type(layer), "output": layer.output.shape, **settings}

    assert [described(layer) for layer in built.layers] == [described(layer) for layer in expected.layers]
    assert built.count_params() == expected.count_params() == parameters
    built.set_weights(expected.get_weights())
    images = np.random.default_rng(3).random((4, *image), dtype=np.float32)
    scores = built(images).numpy()
    np.testing.assert_allclose(scores, expected(images).numpy(), rtol=1e-6)
    assert np.abs(scores.sum(axis=1) - 1).min() > 1e-3  # logits, not probabilities
