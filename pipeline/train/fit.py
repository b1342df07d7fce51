"""Fit one network: the only training loop of the project, for stages and trials alike."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from models import inference
from pipeline.core.config import OBJECTIVE_DIRECTIONS
from pipeline.core.dataset import DatasetInfo, TrainingData
from pipeline.core.errors import TrainingError
from pipeline.core.records import Scores
from pipeline.runtime import saved_model, unusual
from pipeline.runtime.predictor import predictor
from pipeline.runtime.scores import scores
from pipeline.train import loss, networks, replicas
from pipeline.train.batches import TrainingBatches, scoring_batches
from pipeline.train.callbacks import Checkpoint, History
from pipeline.train.monitor import Epoch, Monitor
from pipeline.train.optimizer import optimizer
from pipeline.train.task import FitOutcome, FitSpec, FitTask, FittedModel

SCORING_BATCH = 500  # images; divides the common sizes of test sets, so that no second graph is compiled
STEPS_PER_EXECUTION = 32  # steps that TensorFlow takes before it returns to Python


@dataclass(frozen=True)
class Fitted:
    """A trained network, the metrics of each epoch, and the scores of its final weights on the validation images."""

    model: keras.Model
    history: list[Epoch]
    validation: Scores


def fit(spec: FitSpec, data: TrainingData, monitor: Monitor | None = None, checkpoint: Path | None = None) -> Fitted:
    """Train a network from its specification.

    Args:
        checkpoint: a file to resume interrupted training from; it is removed at the end.

    Raises:
        TrainingError: the loss is no longer a number, or the memory does not suffice.
    """
    keras.utils.clear_session()  # frees the graphs of the fit before, and numbers layers without names from 1 again
    monitor = monitor or Monitor()
    monitor.on_begin(spec.network.fit.epochs)
    try:
        return _fit(spec, data, monitor, checkpoint)
    except (MemoryError, tf.errors.ResourceExhaustedError) as error:
        reason = str(error).partition("\n")[0]
        raise TrainingError(
            f"not enough memory; try a lower fit.batch_size, fewer filters or smaller dense layers: {reason}"
        ) from None
    finally:
        monitor.on_end()


def run(task: FitTask, data: TrainingData, report: Callable[[object], None]) -> FitOutcome:
    """Run a fit as a task of an engine; reports the number and the metrics of each epoch.

    Raises:
        TrainingError: as `fit` does.
    """
    fitted = fit(task.spec, data, _Reporting(report), task.checkpoint)
    model = None
    if task.keep_model:
        limited = task.limits and inference.classifier(fitted.model) is not None
        limits = unusual.limits(fitted.model, data.validation.images) if limited else None
        model = FittedModel(saved_model.content(fitted.model), limits)
    layers = networks.layers(fitted.model, task.spec.network)
    counts = networks.counts(layers, task.spec.network, data.info)
    return FitOutcome(fitted.history, fitted.validation, counts, model, layers)


class _Reporting(Monitor):
    """Reports each epoch."""

    def __init__(self, report: Callable[[object], None]) -> None:
        super().__init__()
        self._report = report

    def on_epoch(self, number: int, metrics: Epoch) -> None:
        self._report([number, metrics])


def _fit(spec: FitSpec, data: TrainingData, monitor: Monitor, checkpoint: Path | None) -> Fitted:
    settings, classes = spec.network.fit, len(data.info.classes)
    keras.utils.set_random_seed(spec.seed)
    size = replicas.batch_size(settings.batch_size, len(data.train.labels), spec.replicas)
    batches = TrainingBatches(data.train, classes, size, spec.seed, settings.augmentation)
    strategy = replicas.strategy(spec.replicas)
    scoring = replicas.scored_by_all(strategy, scoring_batches(data.validation, classes, SCORING_BATCH))
    with strategy.scope():
        model = _compiled(spec, data.info, batches.steps, strategy.num_replicas_in_sync)
    stopping = [_best_weights("val_loss", settings.early_stopping)] if settings.early_stopping else []
    selection = [_best_weights(spec.best, settings.epochs)] if spec.best else []
    averages = [Averages()] if settings.ema else []
    history = History(batches.epoch, monitor)
    resumable = Checkpoint(checkpoint, history.epochs, stopping) if checkpoint else None
    likelihood = [loss.Likelihood()] if loss.is_modified(settings) else []
    weights = loss.class_weights(settings, data.info.classes, data.train.labels)
    model.fit(
        loss.weighted(batches.dataset, weights),
        validation_data=scoring,
        epochs=settings.epochs,
        initial_epoch=resumable.restore(model) if resumable else 0,
        callbacks=[*likelihood, *stopping, *selection, *averages, history, *([resumable] if resumable else [])],
        shuffle=False,  # the batches come shuffled
        verbose=0,
    )
    if resumable:
        resumable.remove()
    trained = networks.for_inference(model, spec, data.info)
    validation = scores(predictor(trained)(data.validation.images), data.validation.labels)
    return Fitted(trained, history.epochs, validation)


def _compiled(spec: FitSpec, info: DatasetInfo, steps: int, devices: int) -> keras.Model:
    network, settings = spec.network, spec.network.fit
    model = networks.build(spec, info)
    loss.penalize(model, settings.l2)
    if spec.replicas > 1:
        model = replicas.Replicated(model, spec.replicas)
    model.compile(
        # Built now, else TensorFlow makes its variables while it traces a step, which is traced again.
        optimizer=optimizer(settings, steps, model.trainable_variables),
        loss=loss.loss(network),
        metrics=loss.metrics(network),
        # TensorFlow cannot build a loop of steps that several devices take together.
        steps_per_execution=min(steps, STEPS_PER_EXECUTION) if devices == 1 else 1,
        jit_compile=False,  # XLA's convolutions on a CPU take several times as long
    )
    return model


class Averages(keras.callbacks.Callback):
    """Puts the averaged weights in place from the validation of an epoch until the callbacks before this one have run.

    So the validation metrics are those of the averages, and so are the weights that `_best_weights` keeps; training and
    checkpoints go on with the weights themselves. At the end of training, the optimizer leaves the averages in the
    model. Keras's SwapEMAWeights exchanges by sums and differences, which changes the weights by rounding.
    """

    def on_test_begin(self, logs: dict | None = None) -> None:
        self._exchange()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self._exchange()

    def _exchange(self) -> None:
        optimizer: Any = self.model.optimizer
        averages = optimizer._model_variables_moving_average
        for weights, average in zip(self.model.trainable_variables, averages, strict=True):
            kept = weights.numpy()
            weights.assign(average)
            average.assign(kept)


def _best_weights(metric: str, patience: int) -> keras.callbacks.EarlyStopping:
    """Stops after `patience` epochs without improvement, and restores the weights of the best epoch in any case."""
    return keras.callbacks.EarlyStopping(
        metric, mode=OBJECTIVE_DIRECTIONS[metric], patience=patience, restore_best_weights=True
    )
