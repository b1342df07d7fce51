"""Data parallelism within one fit: each batch is split among replicas, whose gradients are averaged.

The replicas of one device, a CPU or a single GPU, are branches of one graph, which TensorFlow runs in parallel. Several
GPUs hold one replica each. The result depends on the number of replicas; where they run changes only its rounding.
"""

from typing import Any

import keras
import tensorflow as tf

from pipeline.core.errors import TrainingError


def strategy(replicas: int) -> tf.distribute.Strategy:
    """A strategy with one device per replica where there are several devices, else TensorFlow's default."""
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    if replicas == 1 or len(devices) == 1:
        return tf.distribute.get_strategy()
    return tf.distribute.MirroredStrategy([device.name for device in devices[:replicas]])


def batch_size(wanted: int, images: int, replicas: int) -> int:
    """The number of images in a batch: as configured, or all images if there are fewer.

    Raises:
        TrainingError: the batch cannot be split into equal parts.
    """
    size = min(wanted, images - images % replicas)
    if not size or size % replicas:
        raise TrainingError(
            f"batches of {size or images} images cannot be split among {replicas} replicas; choose fit.batch_size as a "
            "multiple of runtime.replicas"
        )
    return size


def scored_by_all(strategy: tf.distribute.Strategy, batches: tf.data.Dataset) -> tf.data.Dataset:
    """Batches that every device scores as a whole; Keras cannot split them into unequal parts."""
    devices = strategy.num_replicas_in_sync
    if devices == 1:
        return batches
    return batches.map(lambda *batch: tuple(tf.concat([values] * devices, 0) for values in batch))


class Replicated(keras.Model):
    """A model whose training step splits the batch into equal parts, one for each replica.

    Batch normalization uses the statistics of each part; the moving statistics follow their average. Replica k adds k
    to the seeds of dropout. Metrics are those of the whole batch.
    """

    def __init__(self, model: keras.Model, replicas: int) -> None:
        super().__init__(model.inputs, model.outputs)
        self._replicas = replicas
        frozen = [layer for layer in self._flatten_layers(include_self=False) if not layer.trainable]
        self._frozen = {id(variable) for layer in frozen for variable in layer.weights}

    def train_step(self, data: tuple[tf.Tensor, ...]) -> dict[str, Any]:
        context: Any = tf.distribute.get_replica_context()
        devices, device = context.num_replicas_in_sync, context.replica_id_in_sync_group
        count = self._replicas // devices  # parts on this device
        # Tensors: replicas that read variables and write state would wait for each other.
        weights, state = (
            [tf.convert_to_tensor(variable) for variable in variables]
            for variables in (self.trainable_variables, self.non_trainable_variables)
        )
        losses, outputs, states = [], [], []
        with tf.GradientTape() as tape:
            tape.watch(weights)
            for number, part in enumerate(zip(*(tf.split(values, count) for values in data), strict=True)):
                seeded = [_shifted(value, device * count + number) for value in state]
                output, after = self.stateless_call(weights, seeded, part[0], training=True)
                losses.append(
                    self._compute_loss(*part[:2], output, *part[2:], training=True)
                )  # Keras divides by `devices`
                outputs.append(output)
                states.append([_shifted(value, -device * count - number) for value in after])
            loss = tf.add_n(losses) / count
        self.optimizer.apply(self._gradients(tape, loss, weights), self.trainable_variables)
        for variable, values in zip(self.non_trainable_variables, zip(*states, strict=True), strict=True):
            if id(variable) in self._frozen:
                continue  # their mean could differ by rounding
            if values[0].dtype.is_floating:
                variable.assign(context.all_reduce(tf.distribute.ReduceOp.MEAN, tf.add_n(values) / count))
            else:
                variable.assign(values[0])
        self._loss_tracker.update_state(loss * devices, sample_weight=tf.shape(data[0])[0])
        return self.compute_metrics(*data[:2], tf.concat(outputs, 0), *data[2:])

    def _gradients(self, tape: tf.GradientTape, loss: tf.Tensor, weights: list[tf.Tensor]) -> list[Any]:
        """Gradients of the loss, clipped over all devices together: Keras would clip those of each device."""
        variables = [variable.value for variable in self.trainable_variables]
        found: Any = tape.gradient(loss, [*weights, *variables])  # the L2 penalty depends on the variables
        pairs = zip(found[: len(weights)], found[len(weights) :], strict=True)
        gradients = [own if penalty is None else own + penalty for own, penalty in pairs]
        context: Any = tf.distribute.get_replica_context()
        devices, bound = context.num_replicas_in_sync, self.optimizer.global_clipnorm
        if devices == 1 or not bound:
            return gradients
        clipped, _ = tf.clip_by_global_norm(context.all_reduce(tf.distribute.ReduceOp.SUM, gradients), bound)
        return [gradient / devices for gradient in clipped]  # which are summed, and too small to be clipped again


def _shifted(value: tf.Tensor, number: Any) -> tf.Tensor:
    """Add a number to the seed of a random generator; moving statistics are returned as they are."""
    if value.dtype.is_floating:
        return value
    return value + tf.cast(tf.stack([number, 0]), value.dtype)
