"""The complete state of interrupted training, so that what is taken up ends as if nothing had happened."""

import json
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np

from pipeline import atomic

EVERY = 5.0  # seconds of training that a kill may cost, an epoch more at most


class Checkpoint(keras.callbacks.Callback):
    """Saves weights, optimizer, random generators, history and early stopping at the end of an epoch.

    Keras's own BackupAndRestore leaves out the random generators of dropout, the history and early stopping.
    """

    def __init__(
        self, path: Path, history: list[dict[str, float]], stopping: list[keras.callbacks.EarlyStopping]
    ) -> None:
        super().__init__()
        self._path = path
        self._history = history
        self._stopping = stopping
        self._saved = time.monotonic()
        self._resumed: dict[str, np.ndarray] | None = None

    def restore(self, model: keras.Model) -> int:
        """Put back what was saved, if anything was; the epoch to go on with."""
        if not self._path.is_file():
            return 0
        with np.load(self._path) as archive:
            state = dict(archive)
        for number, variable in enumerate(_variables(model)):
            variable.assign(state[f"variable_{number}"])
        self._history.extend(json.loads(str(state["history"])))
        self._resumed = state
        print(f"taking up interrupted training after epoch {len(self._history)}", flush=True)
        return len(self._history)

    def on_train_begin(self, logs: dict | None = None) -> None:
        if self._resumed is None:
            return
        for stopping in self._stopping:  # only now: at this point it has reset itself
            vars(stopping).update(json.loads(str(self._resumed["stopping"])))
            stopping.best_weights = [self._resumed[f"best_{n}"] for n in range(len(self.model.get_weights()))]
        self._resumed = None

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        if time.monotonic() - self._saved < EVERY or self.model.stop_training:
            return
        state: dict[str, Any] = {f"variable_{number}": np.asarray(v) for number, v in enumerate(_variables(self.model))}
        state["history"] = np.array(json.dumps(self._history))
        for stopping in self._stopping:
            progress = {"best": float(stopping.best), "best_epoch": stopping.best_epoch, "wait": stopping.wait}
            state["stopping"] = np.array(json.dumps(progress))
            state |= {f"best_{number}": weights for number, weights in enumerate(stopping.best_weights)}
        with atomic.file(self._path) as part:
            np.savez(part, **state)
        self._saved = time.monotonic()

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)


def _variables(model: keras.Model) -> list[keras.Variable]:
    return [*model.variables, *model.optimizer.variables]
