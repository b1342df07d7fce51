"""Drop-in layers with faster CPU kernels, for training only: saved models hold Keras's own layers (`models.cnn`)."""

from typing import Any

import keras
import tensorflow as tf

from models import layer_types as kinds

COARSE = 0.99  # dropout rate up to which 16 random bits do


class BatchNormalization(keras.layers.BatchNormalization):
    """Batch normalization by TensorFlow's fused kernel. Keras makes a dozen passes over the feature maps."""

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
    """Applies dropout to the input with 16 random bits per value (Keras: 32). The rate is exact to 1/131072.

    Above `COARSE`, where so large a step would matter to the few values that are kept, with 32 bits.
    """

    def call(self, inputs: Any, training: bool = False) -> Any:
        if not training:
            return inputs
        size = tf.size(inputs)
        seed = tf.cast(self.seed_generator.next(), tf.int32)
        full_range: Any = None  # as bounds of stateless_uniform: all integers
        bits, kind = (16, tf.uint16) if self.rate <= COARSE else (32, tf.uint32)
        draws = tf.random.stateless_uniform(
            (size if bits == 32 else (size + 1) // 2,), seed, full_range, full_range, tf.uint32
        )
        draws = tf.reshape(tf.reshape(tf.bitcast(draws, kind), (-1,))[:size], tf.shape(inputs))
        kept = draws >= tf.constant(min(round(self.rate * 2**bits), 2**bits - 1), kind)
        return tf.where(kept, inputs * tf.cast(1 / (1 - self.rate), inputs.dtype), tf.zeros((), inputs.dtype))


def layer(planned: kinds.Layer, dtype: str) -> keras.Layer | None:
    """Build the faster layer for a layer of an architecture; None: there is none."""
    if type(planned) is kinds.Dropout:
        return Dropout(planned.rate, name=planned.name, dtype=dtype)
    if isinstance(planned, kinds.BatchNormalization):
        return BatchNormalization(name=planned.name, dtype=dtype)
    return None
