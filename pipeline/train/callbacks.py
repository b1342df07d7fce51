"""Keras callbacks of the training loop: observing epochs, and checkpoints to resume from."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from pipeline.core import atomic
from pipeline.core.errors import DataError, TrainingError
from pipeline.train.monitor import Epoch, Monitor

CHECKPOINT_INTERVAL = 5.0  # seconds of training, plus at most one epoch, that a kill may cost


class History(keras.callbacks.Callback):
    """Sets the epoch of the batches, keeps the history, and reports to the monitor."""

    def __init__(self, epoch: tf.Variable, monitor: Monitor) -> None:
        super().__init__()
        self.epochs: list[Epoch] = []
        self._epoch = epoch
        self._monitor = monitor

    def on_train_begin(self, logs: dict | None = None) -> None:
        for number, metrics in enumerate(self.epochs):  # of the epochs before an interruption
            self._monitor.on_epoch(number, metrics)

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self._epoch.assign(epoch)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        metrics = {name: float(value) for name, value in (logs or {}).items()}
        if metrics["loss"] != metrics["loss"]:
            raise TrainingError(f"the loss of epoch {epoch + 1} is not a number; try a lower fit.learning_rate")
        self.epochs.append(metrics)
        self._monitor.on_epoch(epoch, metrics)
        if self._monitor.should_stop(self.epochs):
            self.model.stop_training = True


class Checkpoint(keras.callbacks.Callback):
    """Saves weights, optimizer, random generators, history and early stopping at the end of an epoch.

    A resumed fit ends in the same bytes as one that was never interrupted. Keras's own BackupAndRestore leaves out the
    random generators of dropout, the history and early stopping.
    """

    def __init__(self, path: Path, history: list[Epoch], stopping: list[keras.callbacks.EarlyStopping]) -> None:
        super().__init__()
        self._path = path
        self._history = history
        self._stopping = stopping
        self._saved = time.monotonic()
        self._warned = False
        self._resumed: dict[str, np.ndarray] | None = None

    def restore(self, model: keras.Model) -> int:
        """Restore the saved state, if there is one, and return the epoch to continue with."""
        if not self._path.is_file():
            return 0
        with np.load(self._path) as archive:
            state = dict(archive)
        for number, variable in enumerate(_variables(model)):
            variable.assign(state[f"variable_{number}"])
        self._history.extend(json.loads(str(state["history"])))
        self._resumed = state
        print(f"resuming interrupted training after epoch {len(self._history)}", flush=True)
        return len(self._history)

    def on_train_begin(self, logs: dict | None = None) -> None:
        if self._resumed is None:
            return
        for stopping in self._stopping:  # only now: EarlyStopping resets itself when training begins
            vars(stopping).update(json.loads(str(self._resumed["stopping"])))
            stopping.best_weights = [self._resumed[f"best_{n}"] for n in range(len(self.model.get_weights()))]
        self._resumed = None

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        if time.monotonic() - self._saved < CHECKPOINT_INTERVAL or self.model.stop_training:
            return
        state: dict[str, Any] = {f"variable_{number}": np.asarray(v) for number, v in enumerate(_variables(self.model))}
        state["history"] = np.array(json.dumps(self._history))
        for stopping in self._stopping:
            progress = {"best": float(stopping.best), "best_epoch": stopping.best_epoch, "wait": stopping.wait}
            state["stopping"] = np.array(json.dumps(progress))
            state |= {f"best_{number}": weights for number, weights in enumerate(stopping.best_weights)}
        try:
            with atomic.file(self._path) as part:
                np.savez(part, **state)
        except DataError as error:  # the fit itself does not need it
            self._warn(f"a kill would cost this training: {error}")
        self._saved = time.monotonic()

    def remove(self) -> None:
        """Delete the checkpoint of a fit that is complete."""
        try:
            self._path.unlink(missing_ok=True)
        except OSError as error:
            self._warn(f"{self._path}: cannot be deleted: {error.strerror}")

    def _warn(self, text: str) -> None:
        if not self._warned:
            print(f"warning: {text}", file=sys.stderr, flush=True)
        self._warned = True


def _variables(model: keras.Model) -> list[keras.Variable]:
    return [*model.variables, *model.optimizer.variables]
