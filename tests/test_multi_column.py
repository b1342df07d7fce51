"""The multi-column network of own_networks/: its parts against references, and what each column learns from."""

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage

from models import own_network
from models.own_code import FOLDER, OwnCode, OwnNetwork
from pipeline.deploy import litert

from .conftest import ROOT

CODE = OwnCode("multi_column.py", (ROOT / FOLDER / "multi_column.py").read_bytes())
IMAGE = (20, 22, 2)
SMALL = {
    "plain": {"blocks": [{"filters": [4], "batch_norm": True}, {"filters": [4, 4]}]},
    "residual": {"blocks": [{"filters": [4, 4], "residual": True, "normalization": {"kind": "batch"}}]},
    "dropout": {"blocks": [{"filters": [4], "dropout": 0.2}]},
}
TWO = ["plain", "residual"]


@pytest.fixture(autouse=True)
def small_columns(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(CODE.load(), "COLUMNS", SMALL)


@pytest.fixture
def images() -> np.ndarray:
    noise = np.random.default_rng(1).random((6, *IMAGE), np.float32)
    return ndimage.gaussian_filter(noise, (0, 1, 1, 0))


def built(columns: list[str], **arguments: Any) -> keras.Model:
    network = OwnNetwork(builder="multi_column:make", arguments={"columns": columns} | arguments)
    return own_network.build(network, CODE, IMAGE, 3, "float32", 1)


def columns(model: keras.Model) -> list[keras.Model]:
    return [layer for layer in model.layers if isinstance(layer, keras.Model)]


def test_views_are_the_images_and_their_rotations(images: np.ndarray):
    views = CODE.load().Views(8.0)
    rotated = [ndimage.rotate(images, angle, (1, 2), reshape=False, order=1, mode="grid-constant") for angle in (-8, 8)]
    np.testing.assert_allclose(views(images), np.concatenate([images, *rotated]), atol=1e-6)
    np.testing.assert_array_equal(views(images, training=True), images)


def test_prediction_is_the_mean_over_columns_and_views(images: np.ndarray):
    alone = built(TWO)
    np.testing.assert_allclose(alone(images), np.mean([each(images) for each in columns(alone)], axis=0), atol=1e-6)
    with_views = built(TWO, angle=8)
    with_views.set_weights(alone.get_weights())
    views = np.asarray(CODE.load().Views(8)(images)).reshape(3, *images.shape)
    expected = np.mean([each(view) for view in views for each in columns(alone)], axis=0)
    np.testing.assert_allclose(with_views(images), expected, atol=1e-6)
    assert np.abs(np.asarray(with_views(images)) - alone(images)).max() > 1e-4


def test_each_column_learns_from_its_part_of_the_batch_alone(images: np.ndarray):
    model, labels = built(TWO, angle=8), tf.one_hot([0, 1, 2, 0, 1, 2], 3)

    def gradients(changed: int) -> list[np.ndarray]:
        """Of the last layers, after a change of one image."""
        batch = images.copy()
        batch[changed] = 0
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(keras.losses.categorical_crossentropy(labels, model(batch, training=True)))
        kernels = [column.layers[-1].kernel.value for column in columns(model)]
        return [np.asarray(each) for each in tape.gradient(loss, kernels)]

    before, after = gradients(4), gradients(5)  # both in the second column's part
    np.testing.assert_array_equal(before[0], after[0])
    assert np.abs(before[1] - after[1]).max() > 1e-4
    assert np.abs(gradients(0)[0] - before[0]).max() > 1e-4


def test_a_column_takes_the_steps_that_it_would_take_alone(images: np.ndarray):
    together, alone = built(["plain", "plain"]), built(["plain"])
    labels = keras.utils.to_categorical([0, 1, 2, 0, 1, 2], 3)
    first, _ = columns(together)
    alone.set_weights(first.get_weights())
    for model, rate, part in ((together, 0.2, slice(None)), (alone, 0.1, slice(3))):
        model.compile(keras.optimizers.SGD(rate, momentum=0.9), "categorical_crossentropy")
        for _ in range(3):
            model.train_on_batch(images[part], labels[part])
    for ours, theirs in zip(first.get_weights(), alone.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_a_batch_with_fewer_images_than_columns_is_refused(images: np.ndarray):
    with pytest.raises(ValueError, match="a batch of 1 images has no image for each of 2 columns"):
        built(TWO)(images[:1], training=True)


def test_unknown_column_is_refused():
    with pytest.raises(own_network.BuildError, match="columns: unknown wide; allowed: plain, residual, dropout"):
        built(["wide"])


def test_file_of_the_network_and_its_export_predict_the_same(images: np.ndarray, tmp_path: Any):
    model = built([*TWO, "dropout"], angle=8)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(model.predict(images, verbose=0), loaded.predict(images, verbose=0))
    exported = litert.run(litert.convert(model), images)
    np.testing.assert_allclose(exported, model.predict(images, verbose=0), atol=1e-5)
