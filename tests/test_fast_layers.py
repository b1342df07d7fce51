"""Fast layers and optimizers give the results of their Keras counterparts."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from models import cnn, fast_layers
from models.spec import Block, Head, Network, Pooling
from pipeline.train import fused_adam

IMAGE = (12, 12, 2)
POOLED = Network(
    blocks=(Block(filters=(4,)), Block(filters=(6,), pooling=Pooling(kind="average")), Block(filters=(5, 3))),
    head=Head(dense=(8,)),
)


def gradients(model: keras.Model, images: np.ndarray) -> list[np.ndarray]:
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.square(model(images, training=True)))
    return [gradient.numpy() for gradient in tape.gradient(loss, model.trainable_variables)]


def test_relu_after_max_pooling_gives_the_same_bytes():
    saved, trained = (cnn.build(POOLED, IMAGE, 3, to_train=to_train) for to_train in (False, True))
    trained.set_weights(saved.get_weights())
    images = np.random.default_rng(1).uniform(size=(4, *IMAGE)).astype(np.float32)
    np.testing.assert_array_equal(trained(images), saved(images))
    for ours, theirs in zip(gradients(trained, images), gradients(saved, images), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    behind = [layer.name for layer in trained.layers if isinstance(layer, keras.layers.Activation)]
    assert behind == ["block1_conv1_relu", "block3_conv2_relu"]


def test_same_seed_gives_the_same_weights_for_saving_and_training():
    network = Network(blocks=(Block(filters=(4,), dropout=0.2, batch_norm=True),), head=Head(dense=(8,), dropout=0.3))
    forms = []
    for to_train in (False, True):
        keras.utils.set_random_seed(3)
        forms.append(cnn.build(network, IMAGE, 3, to_train=to_train).get_weights())
    for ours, theirs in zip(*forms, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("shape", [(2, 3, 3, 3), (8, 6)], ids=["feature maps", "vector"])
def test_batch_normalization_equals_keras(shape: tuple[int, ...]):
    inputs = tf.constant(np.random.default_rng(2).normal(1.0, 2.0, shape).astype(np.float32))
    found = []
    for kind in (keras.layers.BatchNormalization, fast_layers.BatchNormalization):
        layer = kind()
        layer.build(shape)
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            trained = layer(inputs, training=True)
            loss = tf.reduce_sum(trained**3)
        found.append([trained, *tape.gradient(loss, [inputs, *layer.trainable_variables]), *layer.get_weights()])
        found[-1].append(layer(inputs, training=False))
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_dropout_drops_the_configured_share_and_scales_the_rest():
    ones = tf.ones((101, 7, 7, 9))  # an odd number of values
    first, again, other = (fast_layers.Dropout(0.3, seed=seed)(ones, training=True).numpy() for seed in (1, 1, 2))
    assert set(np.unique(first)) == {0.0, np.float32(1 / 0.7)}
    assert np.mean(first == 0) == pytest.approx(0.3, abs=0.01)
    np.testing.assert_array_equal(first, again)
    assert np.mean(first == other) < 0.7
    layer = fast_layers.Dropout(0.3, seed=1)
    assert np.mean(layer(ones, training=True).numpy() == layer(ones, training=True).numpy()) < 0.7
    np.testing.assert_array_equal(layer(ones, training=False), ones)


@pytest.mark.parametrize("rate", [0.99, 0.999, 0.99999, 0.9999924, 0.99999999, 1 - 2**-53])
def test_dropout_at_rates_close_to_1_keeps_its_share(rate: float):
    count = 4_000_001
    kept = fast_layers.Dropout(rate, seed=2)(tf.ones((count,)), training=True).numpy()
    assert kept[kept != 0].tolist() == pytest.approx([1 / (1 - rate)] * np.count_nonzero(kept), rel=1e-6)
    expected = count * (1 - rate)
    assert abs(np.count_nonzero(kept) - expected) <= 5 * expected**0.5 + 1


@pytest.mark.parametrize("name", ["Adam", "AdamW"])
def test_optimizer_steps_equal_keras(name: str):
    found = []
    for module in (keras.optimizers, fused_adam):
        optimizer = getattr(module, name)(learning_rate=0.01)
        variable = keras.Variable(np.linspace(-1, 1, 7, dtype=np.float32))
        draws = np.random.default_rng(4)
        for _ in range(20):
            optimizer.apply([tf.constant(draws.normal(size=7).astype(np.float32))], [variable])
        found.append([variable.numpy(), *(np.asarray(state) for state in optimizer.variables)])
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
