"""What threads are worth: an epoch of a network with more and fewer of them, within operations and of operations.

  python benchmarks/threads.py [--models model_1 model_2] [--epochs 7]

Trains on data/validated (`dvc repro validate`). A setting is a process, and the processes take turns of an epoch each.
Figures are medians over the epochs but the first, which compiles. Two at a time are two processes of one thread that
train side by side. Equal weights after the last epoch have the same letter.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

CORES = os.cpu_count() or 1
SETTINGS = {  # threads within an operation, operations at a time, processes
    "all cores within operations and of operations, TensorFlow's default": (0, 0, 1),
    "one thread": (1, 1, 1),
    "one thread within an operation, operations side by side": (1, CORES, 1),
    "all cores within operations, one after another": (CORES, 1, 1),
    "two processes of one thread each, an epoch of both": (1, 1, 2),
}


def work(model: str, within: int, across: int, epochs: int) -> None:
    """Train; wait for a line before each epoch, and print wall and processor seconds of each, then a digest."""
    import tensorflow as tf

    tf.config.threading.set_inter_op_parallelism_threads(across)
    from pipeline import config, runtime
    from pipeline.paths import Paths

    paths = Paths(ROOT)
    params = config.load(paths)
    used = runtime.start(params.runtime.model_copy(update={"threads": within}))
    import numpy as np

    from pipeline import dataset, training

    clock = [0.0, 0.0]

    def turn() -> None:
        if not sys.stdin.readline():
            sys.exit()
        clock[:] = time.perf_counter(), time.process_time()

    def ended(number: int, figures: dict[str, float]) -> None:
        print("@" + json.dumps([time.perf_counter() - clock[0], time.process_time() - clock[1]]), flush=True)
        if number < epochs - 1:
            turn()

    network = params.model(model)
    network = network.model_copy(update={"fit": network.fit.model_copy(update={"epochs": epochs})})
    card, train, validation = dataset.load_card(paths), dataset.load(paths, "train"), dataset.load(paths, "validation")
    turn()
    fitted = training.fit(network, card, train, validation, seed=1, precision=used.precision, on_epoch=ended)
    weights = b"".join(np.asarray(array).tobytes() for array in fitted.model.get_weights())
    print("@" + json.dumps(hashlib.sha256(weights).hexdigest()), flush=True)


class Setting:
    def __init__(self, model: str, within: int, across: int, processes: int, epochs: int) -> None:
        command = [sys.executable, __file__, "--work", model, str(within), str(across), "--epochs", str(epochs)]
        pipe = subprocess.PIPE
        self.team = [
            subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True)
            for _ in range(processes)
        ]
        self.epochs: list[list[float]] = []

    def turn(self) -> None:
        began = time.perf_counter()
        for process in self.team:
            assert process.stdin
            process.stdin.write("\n")
            process.stdin.flush()
        said = [self._said(process) for process in self.team]
        self.epochs.append([time.perf_counter() - began, sum(processor for _, processor in said)])

    def digest(self) -> str:
        return "".join(sorted({self._said(process) for process in self.team}))

    def _said(self, process: subprocess.Popen[str]):
        assert process.stdout
        for line in process.stdout:
            if line.startswith("@"):
                return json.loads(line[1:])
        sys.exit("a process ended before its work was done")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["model_1", "model_2"])
    parser.add_argument("--epochs", type=int, default=7)
    parser.add_argument("--work", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        model, within, across = arguments.work
        work(model, int(within), int(across), arguments.epochs)
        return
    for model in arguments.models:
        running = {name: Setting(model, *setting, arguments.epochs) for name, setting in SETTINGS.items()}
        for _ in range(arguments.epochs):
            for setting in running.values():
                setting.turn()
        digests = {name: setting.digest() for name, setting in running.items()}
        letters = {digest: chr(ord("A") + n) for n, digest in enumerate(dict.fromkeys(digests.values()))}
        print(f"\n{model}, {CORES} cores\n\n| | s / epoch | processor s / epoch | weights |\n|---|---|---|---|")
        for name, setting in running.items():
            wall, processor = (median(figures) for figures in zip(*setting.epochs[1:], strict=True))
            print(f"| {name} | {wall:.2f} | {processor:.2f} | {letters[digests[name]]} |")


if __name__ == "__main__":
    main()
