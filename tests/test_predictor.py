"""Predictions are probabilities, for softmax and for logits."""

import keras
import numpy as np
import pytest

from pipeline.runtime.predictor import predictor


@pytest.mark.parametrize("activation", ["softmax", "linear"])
def test_predictions_are_probabilities_and_trace_the_network_once(activation: str):
    traces = []

    class Counted(keras.layers.Flatten):
        def call(self, inputs):
            traces.append(inputs.shape)
            return super().call(inputs)

    model = keras.Sequential(
        [keras.Input((2, 2, 1)), Counted(), keras.layers.Dense(3, activation=activation, bias_initializer="normal")]
    )
    traces.clear()
    images = np.random.default_rng(0).integers(0, 256, (7, 2, 2, 1), np.uint8)
    predict = predictor(model, batch_size=3)
    found = predict(images)
    kernel, bias = model.get_weights()
    logits = images.reshape(7, 4) / 255 @ kernel.astype(np.float64) + bias
    np.testing.assert_allclose(found, np.exp(logits) / np.exp(logits).sum(1, keepdims=True), rtol=1e-5)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-12)
    np.testing.assert_allclose(predict(images[:1]), found[:1], rtol=1e-5)
    assert len(traces) == 1
