"""Keys of a block: equality with the same layers in plain Keras or NumPy, for training, saving and export."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from pydantic import ValidationError

from models import architecture, cnn, inference, pooling
from models.layer_types import ShapeError
from models.spec import Network, Pooling
from pipeline.deploy import litert
from pipeline.evaluate import explanations
from pipeline.runtime import saved_model

IMAGE = (10, 9, 4)
RELU = layers.ReLU
Tensor = Any


def network(*blocks: dict, **head: Any) -> Network:
    return Network.model_validate_json(json.dumps({"blocks": blocks, "head": {"pooling": "global_average"} | head}))


def block(**keys: Any) -> dict:
    return {"filters": [8], "pooling": {"kind": "none"}} | keys


def images(shape: tuple[int, ...] = IMAGE, count: int = 5) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(count, *shape)).astype(np.float32)


def random_weights(model: keras.Model) -> None:
    """Every weight is random, also biases and moving averages."""
    draws = np.random.default_rng(2)
    model.set_weights([draws.uniform(0.1, 0.9, w.shape) / np.prod(w.shape[:-1]) for w in model.get_weights()])


def assert_equal(built: keras.Model, reference: keras.Model, shape: tuple[int, ...] = IMAGE) -> None:
    """Equal predictions with the weights of the layers of the same names."""
    random_weights(built)
    for layer in built.layers:
        if layer.weights:
            reference.get_layer(layer.name).set_weights(layer.get_weights())
    assert built.count_params() == reference.count_params()
    for training in (False, True):
        found, expected = (model(images(shape), training=training).numpy() for model in (built, reference))
        assert np.ptp(expected, axis=0).min() > 1e-6
        np.testing.assert_allclose(found, expected, rtol=2e-4, atol=1e-6)


def conv(name: str, *arguments: Any, **settings: Any) -> layers.Layer:
    return layers.Conv2D(*arguments, name=f"block1_{name}", **{"padding": "same"} | settings)


def norm(name: str) -> layers.Layer:
    return layers.BatchNormalization(name=f"block1_{name}_norm")


def geometry(x: Tensor) -> Tensor:
    x = layers.ZeroPadding2D((2, 0))(x)
    x = conv("conv1", 8, (3, 5), strides=(2, 1), padding="valid", use_bias=False, activation="relu")(x)
    x = layers.ZeroPadding2D((2, 0))(x)
    return conv("conv2", 6, (3, 5), padding="valid", use_bias=False, activation="relu")(x)


def dilated(x: Tensor) -> Tensor:
    return conv("conv1", 8, 3, dilation_rate=(1, 2), groups=2, activation="relu")(x)


def depthwise(x: Tensor) -> Tensor:
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same", strides=2, name="block1_conv1")(x)
    return layers.ReLU(6)(x)


def separable(x: Tensor) -> Tensor:
    """As a block of MobileNet."""
    x = layers.DepthwiseConv2D(3, padding="same", strides=2, use_bias=False, name="block1_conv1_depthwise")(x)
    x = RELU(6)(norm("conv1_depthwise")(x))
    return RELU(6)(norm("conv1")(conv("conv1", 8, 1, use_bias=False)(x)))


def residual(x: Tensor) -> Tensor:
    """Two units as in the residual networks of He et al., the first with a projection."""
    for unit in (1, 2):
        first, second = 2 * unit - 1, 2 * unit
        stride = 2 if unit == 1 else 1
        y = RELU()(norm(f"conv{first}")(conv(f"conv{first}", 8, 3, strides=stride, use_bias=False)(x)))
        y = norm(f"conv{second}")(conv(f"conv{second}", 8, 3, use_bias=False)(y))
        if unit == 1:
            x = norm("shortcut1")(conv("shortcut1", 8, 1, strides=2, use_bias=False)(x))
        x = RELU()(x + y)
    return x


def gated(x: Tensor) -> Tensor:
    """A residual unit with squeeze-and-excitation, whose shapes agree."""
    y = conv("conv1", 4, 3)(x)
    gate = layers.Dense(2, activation="relu", name="block1_gate1_dense1")(layers.GlobalAveragePooling2D()(y))
    gate = layers.Dense(4, activation="sigmoid", name="block1_gate1_dense2")(gate)
    y = y * layers.Reshape((1, 1, 4))(gate)
    return layers.Activation("tanh")(x + y)


def group_norm(x: Tensor) -> Tensor:
    x = layers.GroupNormalization(4, name="block1_conv1_norm")(conv("conv1", 8, 3, use_bias=False)(x))
    x = layers.GroupNormalization(4, name="block1_pool_norm")(
        conv("pool", 8, 2, strides=2, padding="valid", use_bias=False)(RELU()(x))
    )
    return RELU()(x)


def layer_norm(x: Tensor) -> Tensor:
    x = conv("conv1", 8, 3, activation="relu")(x)
    return layers.LayerNormalization(name="block1_norm")(x)


def pooled(x: Tensor) -> Tensor:
    x = conv("conv1", 8, 3, activation="relu")(x)
    x = conv("conv2", 8, 3, activation="relu")(x)
    return layers.MaxPooling2D((3, 2), strides=(2, 1))(layers.ZeroPadding2D(1)(x))


BATCH = {"kind": "batch", "place": "convolution"}
BLOCKS: dict[str, tuple[dict, Callable[[Tensor], Tensor]]] = {
    "geometry": (block(filters=[8, 6], kernel_size=[3, 5], padding=[2, 0], stride=[2, 1], use_bias=False), geometry),
    "dilated": (block(dilation=[1, 2], groups=2), dilated),
    "depthwise": (block(convolution="depthwise", stride=2, activation="relu6"), depthwise),
    "separable": (block(convolution="separable", stride=2, activation="relu6", normalization=BATCH), separable),
    "residual": (block(filters=[8, 8], residual=True, repeat=2, stride=2, normalization=BATCH), residual),
    "gated": (block(filters=[4], residual=True, squeeze_excitation=2, activation="tanh"), gated),
    "group": (
        block(pooling={"kind": "strided"}, normalization={"kind": "group", "groups": 4, "place": "convolution"}),
        group_norm,
    ),
    "layer": (block(normalization={"kind": "layer"}), layer_norm),
    "pooled": (block(repeat=2, pooling={"window": [3, 2], "stride": [2, 1], "padding": 1}), pooled),
}


def built(name: str, precision: str = "float32", **options: Any) -> keras.Model:
    return cnn.build(network(BLOCKS[name][0]), IMAGE, 3, precision, **options)


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_equal_those_in_plain_keras(name: str):
    start = keras.Input(IMAGE)
    vector = layers.GlobalAveragePooling2D()(BLOCKS[name][1](start))
    reference = keras.Model(start, layers.Dense(3, activation="softmax", name="output")(vector))
    assert_equal(built(name), reference)


@pytest.mark.parametrize("name", BLOCKS)
def test_networks_to_train_save_and_export_agree(name: str, tmp_path: Path):
    saved, trained = built(name), built(name, to_train=True, seed=1)
    random_weights(trained)
    saved.set_weights(trained.get_weights())
    assert isinstance(saved, keras.Sequential) == (name not in ("residual", "gated"))
    expected = saved(images()).numpy()
    np.testing.assert_allclose(trained(images()).numpy(), expected, rtol=1e-5)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(trained(images(), training=True)[:, 0])
    for weight, gradient in zip(trained.trainable_weights, tape.gradient(loss, trained.trainable_weights), strict=True):
        assert gradient is not None, weight.path

    file = tmp_path / "saved.keras"
    file.write_bytes(saved_model.content(saved))
    loaded = saved_model.load(file, saved_model.digest(file))
    np.testing.assert_array_equal(loaded(images()).numpy(), expected)
    assert saved_model.content(loaded) == file.read_bytes()
    np.testing.assert_allclose(litert.run(litert.convert(loaded), images()), expected, atol=1e-5)
    pixels = np.random.default_rng(3).integers(0, 256, (2, *IMAGE), dtype=np.uint8)
    explained = explanations.grad_cam(loaded, pixels, np.array([0, 1]))
    assert explained is not None
    assert explained.shape == (2, *IMAGE[:2])
    assert [maps.block for maps in explanations.feature_maps(loaded, pixels[0])] == ["block1"]
    assert explanations.first_filters(loaded) is not None
    half = built(name, "bfloat16")
    half.set_weights(saved.get_weights())
    np.testing.assert_allclose(inference.probabilities(half, images()), expected, atol=0.05)


def test_the_same_seed_gives_the_same_weights_for_saving_and_training():
    for name in ("residual", "gated", "separable"):
        forms = [built(name, to_train=to_train, seed=4).get_weights() for to_train in (False, True)]
        for ours, theirs in zip(*forms, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_relu_moves_past_max_pooling_before_a_residual_block():
    spec = network({"filters": [4]}, block(filters=[4], residual=True))
    saved, trained = (cnn.build(spec, IMAGE, 3, to_train=to_train) for to_train in (False, True))
    random_weights(trained)
    assert "block1_conv1_relu" in [layer.name for layer in trained.layers]
    saved.set_weights(trained.get_weights())
    np.testing.assert_array_equal(trained(images()), saved(images()))


def test_signals_of_one_dimension_are_images_of_one_row():
    spec = network({"filters": [4], "kernel_size": [1, 5], "padding": "valid", "pooling": {"window": [1, 2]}})
    found = cnn.build(spec, (1, 30, 2), 3)
    reference = keras.Sequential(
        [
            keras.Input((30, 2)),
            layers.Conv1D(4, 5, activation="relu"),
            layers.MaxPooling1D(2),
            layers.GlobalAveragePooling1D(),
            layers.Dense(3, activation="softmax"),
        ]
    )
    random_weights(found)
    weights = zip(found.get_weights(), reference.weights, strict=True)
    reference.set_weights([weight.reshape(other.shape) for weight, other in weights])
    signals = images((30, 2))
    np.testing.assert_allclose(found(signals[:, None]).numpy(), reference(signals).numpy(), rtol=1e-5)


@pytest.mark.parametrize("kind", ["max", "average", "lp", "stochastic", "gem", "blur"])
@pytest.mark.parametrize(("window", "stride"), [([1, 3], None), ([3, 2], [1, 2]), ([2, 3], 2)])
@pytest.mark.parametrize("padding", ["valid", "same"])
def test_pooling_by_pairs_along_one_axis_equals_pooling_of_the_other(
    kind: str, window: list, stride: list | int | None, padding: str
):
    """Turned images have turned results, and where pairs have equal numbers they equal the numbers."""

    def apply(x: np.ndarray, window: Any, stride: Any) -> np.ndarray:
        spec = Pooling.model_validate_json(json.dumps({"kind": kind, "window": window, "stride": stride}))
        return pooling.layer(spec, padding=padding)(x).numpy()

    x = np.abs(images((7, 8, 2)))
    turned = stride[::-1] if isinstance(stride, list) else stride
    expected = apply(x.swapaxes(1, 2), window[::-1], turned).swapaxes(1, 2)
    np.testing.assert_allclose(apply(x, window, stride), expected, rtol=1e-5)
    np.testing.assert_array_equal(apply(x, [2, 2], stride), apply(x, 2, stride))
    spec = network({"filters": [4], "pooling": {"kind": kind, "window": window, "stride": stride, "padding": padding}})
    copy = keras.Sequential.from_config(json.loads(json.dumps(cnn.build(spec, IMAGE, 3).get_config())))
    assert copy(images()).shape == (5, 3)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"batch_norm": True, "normalization": {"kind": "layer"}}, "batch_norm: true is short for"),
        ({"stride": 2, "dilation": 2}, "a stride or a dilation above 1, not both"),
        ({"convolution": "separable", "groups": 2}, "has no key groups"),
        ({"convolution": "depthwise", "stride": [2, 1]}, "one stride for both axes"),
        ({"filters": [], "residual": True}, "without convolutions has no key residual"),
        ({"normalization": {"kind": "batch", "groups": 2}}, "has no key groups; remove it, or set kind to group"),
        ({"name": "head"}, "the name head is taken"),
        ({"name": "a_b"}, "should match pattern"),
    ],
)
def test_keys_that_exclude_each_other(keys: dict, message: str):
    with pytest.raises(ValidationError, match=message):
        network(block(**keys))


@pytest.mark.parametrize(
    ("keys", "key", "message"),
    [
        ({"groups": 3}, "blocks.0.groups", "divisors of the 4 channels"),
        ({"filters": [6], "groups": 4}, "blocks.0.groups", "divisors of the 6 filters"),
        ({"filters": [6], "convolution": "depthwise"}, "blocks.0.filters", "multiples of the 4 channels"),
        ({"normalization": {"kind": "group"}}, "blocks.0.normalization.groups", "divisors of the 8 channels"),
        ({"residual": True, "padding": "valid"}, "blocks.0.residual", "8x7 instead of 10x9 feature maps"),
        ({"kernel_size": [1, 12], "padding": 1}, "blocks.0.kernel_size", "at most 12x11"),
        ({"dilation": 6, "padding": "valid"}, "blocks.0.kernel_size", "spans at most 9 with its dilation"),
    ],
)
def test_layers_that_do_not_fit_are_refused_with_their_key(keys: dict, key: str, message: str):
    with pytest.raises(ShapeError, match=message) as error:
        architecture.trace(network(block(**keys)), IMAGE, 3)
    assert error.value.key == key


def test_blocks_are_named():
    spec = network(block(name="stem"), block())
    assert [layer.name for layer in cnn.build(spec, IMAGE, 3).layers] == [
        "stem_conv1",
        "block2_conv1",
        "head_pool",
        "output",
    ]
