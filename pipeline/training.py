"""Fitting one network: the one training loop of the project, for stages and trials alike."""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from tqdm import tqdm

from models import cnn
from pipeline import metrics, prediction
from pipeline.adam import Adam, AdamW
from pipeline.checkpoint import Checkpoint
from pipeline.config import Fit, Model
from pipeline.dataset import Card, Split, TrainingBatches, scoring_batches
from pipeline.errors import TrainingError

SCORING_BATCH = 500  # images; divides the common sizes of test sets, so that no second graph is compiled
STEPS_PER_EXECUTION = 32  # steps that TensorFlow takes before it returns to Python

Epoch = dict[str, float]  # the figures of one epoch: loss, accuracy, val_loss, val_accuracy


@dataclass(frozen=True)
class Fitted:
    """A trained network, its figures per epoch, and those of its final weights on the validation images."""

    model: keras.Model
    history: list[Epoch]
    validation: dict[str, float]


def fit(
    network: Model,
    card: Card,
    train: Split,
    validation: Split,
    *,
    seed: int,
    precision: str,
    on_epoch: Callable[[int, Epoch], None] = lambda epoch, figures: None,
    stops: Callable[[list[Epoch]], bool] = lambda history: False,
    best: str | None = None,
    checkpoint: Path | None = None,
    title: str | None = None,
) -> Fitted:
    """Train a network from its specification.

    Args:
        seed: of the initial weights, the order of the batches, dropout and augmentation.
        on_epoch: called with the number of each epoch, from 0, and its figures.
        stops: called after each epoch with the history; whether training ends here.
        best: the validation figure, val_loss or val_accuracy, whose best epoch gives the weights; None: the last epoch.
        checkpoint: a file to take up interrupted training from; it is removed at the end.
        title: what the progress bar, or each epoch's line, begins with; None: nothing is shown.

    Raises:
        TrainingError: the loss is no longer a number.
    """
    settings = network.fit
    keras.utils.set_random_seed(seed)
    model = cnn.build(network, card.image, len(card.classes), precision, to_train=True)
    batches = TrainingBatches(train, len(card.classes), settings.batch_size, seed, settings.augmentation)
    scoring = scoring_batches(validation, len(card.classes), SCORING_BATCH)
    model.compile(
        optimizer=optimizer(settings, batches.steps),
        loss=keras.losses.CategoricalCrossentropy(
            from_logits=network.head.output == "logits", label_smoothing=settings.label_smoothing
        ),
        metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")],
        steps_per_execution=min(batches.steps, STEPS_PER_EXECUTION),
        jit_compile=False,  # XLA's convolutions on a CPU take several times as long
    )
    model.optimizer.build(model.trainable_variables)  # else made while TensorFlow traces a step, which is traced again
    stopping = [_best_weights("val_loss", settings.early_stopping)] if settings.early_stopping else []
    chosen = [_best_weights(best, settings.epochs)] if best else []
    record = _Record(batches.epoch, on_epoch, stops, settings.epochs, title)
    resumed = Checkpoint(checkpoint, record.history, stopping) if checkpoint else None
    model.fit(
        batches.dataset,
        validation_data=scoring,
        epochs=settings.epochs,
        initial_epoch=resumed.restore(model) if resumed else 0,
        callbacks=[*stopping, *chosen, record, *([resumed] if resumed else [])],
        shuffle=False,  # the batches come shuffled
        verbose=0,
    )
    if resumed:
        resumed.remove()
    trained = _for_use(model, network, card, precision)
    scored = metrics.scores(prediction.predictor(trained)(validation.images), validation.labels)
    return Fitted(trained, record.history, scored)


def optimizer(settings: Fit, steps: int) -> keras.Optimizer:
    """The configured optimizer, its learning rate on the configured schedule over epochs of so many steps."""
    kinds: dict[str, tuple[type[keras.Optimizer], dict[str, Any]]] = {
        "adam": (Adam, {}),
        "adamw": (AdamW, {}),
        "nadam": (keras.optimizers.Nadam, {}),
        "rmsprop": (keras.optimizers.RMSprop, {}),
        "sgd": (keras.optimizers.SGD, {"momentum": 0.9, "nesterov": True}),
    }
    kind, options = kinds[settings.optimizer]
    rate: Any = settings.learning_rate
    if settings.schedule == "cosine":
        rate = keras.optimizers.schedules.CosineDecay(settings.learning_rate, settings.epochs * steps)
    if settings.ema:
        options |= {"use_ema": True, "ema_momentum": settings.ema}
    return kind(learning_rate=rate, **options)


def _best_weights(figure: str, patience: int) -> keras.callbacks.EarlyStopping:
    """Stops after so many epochs without a better figure, and puts back the weights of the best epoch in any case."""
    mode = "max" if figure == "val_accuracy" else "min"
    return keras.callbacks.EarlyStopping(figure, mode=mode, patience=patience, restore_best_weights=True)


def _for_use(model: keras.Model, network: Model, card: Card, precision: str) -> keras.Model:
    """The same weights without the optimizer, which would triple the file."""
    copy = cnn.build(network, card.image, len(card.classes), precision)
    copy.set_weights(model.get_weights())
    return copy


class _Record(keras.callbacks.Callback):
    """Sets the epoch of the batches, keeps the history, stops a run that diverged or has no future, and shows how far
    training is."""

    def __init__(
        self,
        epoch: tf.Variable,
        on_epoch: Callable[[int, Epoch], None],
        stops: Callable[[list[Epoch]], bool],
        epochs: int,
        title: str | None,
    ) -> None:
        super().__init__()
        self.history: list[Epoch] = []
        self._epoch = epoch
        self._on_epoch = on_epoch
        self._stops = stops
        self._epochs = epochs
        self._title = title
        self._bar: tqdm | None = None
        self._began = 0.0

    def on_train_begin(self, logs: dict | None = None) -> None:
        for number, figures in enumerate(self.history):  # of the epochs before an interruption
            self._on_epoch(number, figures)
        if self._title and sys.stderr.isatty():
            self._bar = tqdm(total=self._epochs, initial=len(self.history), desc=self._title, unit="epoch")

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self._epoch.assign(epoch)
        self._began = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        figures = {name: float(value) for name, value in (logs or {}).items()}
        if figures["loss"] != figures["loss"]:
            raise TrainingError(f"the loss of epoch {epoch + 1} is not a number; try a lower fit.learning_rate")
        self.history.append(figures)
        self._on_epoch(epoch, figures)
        if self._stops(self.history):
            self.model.stop_training = True
        shown = " ".join(f"{name} {value:.4f}" for name, value in figures.items())
        if self._bar is not None:
            self._bar.set_postfix_str(shown)
            self._bar.update()
        elif self._title:
            seconds = time.perf_counter() - self._began
            print(f"{self._title} epoch {epoch + 1}/{self._epochs} {shown} ({seconds:.1f} s)", flush=True)

    def on_train_end(self, logs: dict | None = None) -> None:
        if self._bar is not None:
            self._bar.close()
