"""The turns of a contender, and its data. Needs NumPy only: PyTorch has an environment of its own."""

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

LEARNING_RATE, BATCH = 1e-3, 64  # BATCH: the default


class Turns:
    """Waits for each turn, and prints the wall time, CPU time and memory of the previous one as a line of JSON.

    A process that has waited is slow at first: its memory is cold, or swapped out. So every turn but the first begins
    with an epoch that is not measured.
    """

    def __init__(self) -> None:
        self._wait()

    def epoch(self, number: int) -> None:
        """Report the end of an epoch; the first is 0."""
        if number % 2:
            self.begin()
        else:
            self()

    def begin(self) -> None:
        """Start measuring."""
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def __call__(self, **results: Any) -> None:
        """End a turn."""
        wall, cpu = time.perf_counter() - self._wall, time.process_time() - self._cpu
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print("@" + json.dumps({"wall": wall, "cpu": cpu, "memory": memory, **results}), flush=True)
        self._wait()

    def _wait(self) -> None:
        if not sys.stdin.readline():
            sys.exit()
        self.begin()


def epochs(turns: int) -> int:
    """The number of epochs in so many turns."""
    return 2 * turns - 1


def arrays(folder: str, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, 28, 28, 1) as float32 in [0, 1], and labels."""
    place = Path(folder) / "data" / "validated" / split
    return np.load(place / "images.npy").astype(np.float32) / 255, np.load(place / "labels.npy")
