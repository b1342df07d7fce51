"""Adam and AdamW with TensorFlow's fused kernel: one pass over a variable instead of a dozen."""

from typing import Any

import keras
import tensorflow as tf


class _Fused(keras.optimizers.Adam):
    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        index = self._get_variable_index(variable)
        step = tf.cast(self.iterations + 1, variable.dtype)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=tf.pow(tf.cast(self.beta_1, variable.dtype), step),
            beta2_power=tf.pow(tf.cast(self.beta_2, variable.dtype), step),
            lr=tf.cast(learning_rate, variable.dtype),
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=tf.cast(gradient, variable.dtype),
        )


class Adam(_Fused):
    """Keras's Adam, without AMSGrad."""


class AdamW(_Fused, keras.optimizers.AdamW):
    """Keras's AdamW: weight decay before each update of Adam."""
