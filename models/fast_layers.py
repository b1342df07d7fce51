"""Drop-in layers with faster CPU kernels, for training only: saved models hold Keras's own layers (`models.cnn`)."""

from typing import Any

import keras
import tensorflow as tf


class BatchNormalization(keras.layers.BatchNormalization):
    """Batch normalisation by TensorFlow's fused kernel. Keras makes a dozen passes over the feature maps."""

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        if not training or len(inputs.shape) != 4:
            return super().call(inputs, training=training, mask=mask)
        normalized, mean, variance = tf.compat.v1.nn.fused_batch_norm(
            inputs, self.gamma, self.beta, epsilon=self.epsilon
        )
        count = tf.cast(tf.size(inputs) // self.gamma.shape[0], variance.dtype)
        for moving, batch in ((self.moving_mean, mean), (self.moving_variance, variance * (count - 1) / count)):
            moving.assign(moving * self.momentum + batch * (1 - self.momentum))
        return normalized


class Dropout(keras.layers.Dropout):
    """Applies dropout to the input with 16 random bits per value (Keras: 32). The rate is exact to 1/131072."""

    def call(self, inputs: Any, training: bool = False) -> Any:
        if not training:
            return inputs
        size = tf.size(inputs)
        seed = tf.cast(self.seed_generator.next(), tf.int32)
        full_range: Any = None  # as bounds of stateless_uniform: all integers
        draws = tf.random.stateless_uniform(((size + 1) // 2,), seed, full_range, full_range, tf.uint32)
        bits = tf.reshape(tf.reshape(tf.bitcast(draws, tf.uint16), (-1,))[:size], tf.shape(inputs))
        kept = bits >= tf.constant(round(self.rate * 2**16), tf.uint16)
        return tf.where(kept, inputs * tf.cast(1 / (1 - self.rate), inputs.dtype), tf.zeros((), inputs.dtype))
