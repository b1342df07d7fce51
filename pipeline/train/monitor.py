"""Observing a fit: its history and its progress, epoch by epoch."""

import sys
import time

from tqdm import tqdm

Epoch = dict[str, float]  # the metrics of one epoch: loss, accuracy, val_loss, val_accuracy


class Monitor:
    """Observes a fit and may end it. This one lets it run to its end, and shows its progress if it has a title."""

    def __init__(self, title: str | None = None) -> None:
        self.title = title
        self._epochs = 0
        self._bar: tqdm | None = None
        self._mark = 0.0

    def on_run(self, run_id: str | None) -> None:
        """Called with the ID of the fit's MLflow run, if it has one."""

    def on_begin(self, epochs: int) -> None:
        """Called before a fit of so many epochs."""
        self._epochs, self._mark = epochs, time.perf_counter()
        if self.title and sys.stderr.isatty():
            self._bar = tqdm(total=epochs, desc=self.title, unit="epoch", dynamic_ncols=True)

    def on_epoch(self, number: int, metrics: Epoch) -> None:
        """Called after each epoch with its number, from 0, and its metrics."""
        shown = " ".join(f"{name} {value:.4f}" for name, value in metrics.items())
        if self._bar is not None:
            self._bar.set_postfix_str(shown)
            self._bar.update()
        elif self.title:
            now = time.perf_counter()
            print(f"{self.title} epoch {number + 1}/{self._epochs} {shown} ({now - self._mark:.1f} s)", flush=True)
            self._mark = now

    def on_end(self) -> None:
        """Called after the fit, also if it failed."""
        if self._bar is not None:
            self._bar.close()

    def should_stop(self, history: list[Epoch]) -> bool:
        """Return whether training ends here; called after each epoch."""
        return False
