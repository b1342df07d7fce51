"""A plain Keras Tuner script on mnist_5k, seeded:  python -m benchmarks.alternatives

Runs the script in fresh processes: twice, on one core, and killed (SIGKILL) during its third trial and started again.
Prints the validation loss of each trial and the digest of the best network's weights. Run `dvc repro validate` first.
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.project import ROOT, parser

TRIALS, EPOCHS, BATCH, SEED = 4, 2, 64, 1
RESULT = "result: "


def images(split: str) -> tuple[np.ndarray, np.ndarray]:
    """The pixels, from 0 to 1, and the labels of a split."""
    folder = ROOT / "data" / "validated" / split
    return np.load(folder / "images.npy").astype(np.float32) / 255, np.load(folder / "labels.npy").astype(int)


def keras_tuner_script(folder: str) -> dict[str, Any]:
    """A search as a user writes it with Keras Tuner alone: Model 2 with other dropout rates and kinds of pooling."""
    import keras
    import keras_tuner

    keras.utils.set_random_seed(SEED)

    def build(hp: Any) -> Any:
        kind = {"max": keras.layers.MaxPooling2D, "average": keras.layers.AveragePooling2D}[
            hp.Choice("pooling", ["max", "average"])
        ]
        layers: list[Any] = [keras.layers.Input((28, 28, 1))]
        for number, widths in enumerate(([32], [64], [128, 128])):
            layers += [keras.layers.Conv2D(width, 3, padding="same", activation="relu") for width in widths]
            layers += [kind(2), keras.layers.Dropout(hp.Float(f"dropout_{number}", 0.0, 0.5, step=0.1))]
        layers += [keras.layers.Flatten(), keras.layers.Dense(512, "relu"), keras.layers.Dense(10, "softmax")]
        model = keras.Sequential(layers)
        model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
        return model

    tuner = keras_tuner.RandomSearch(build, "val_loss", TRIALS, seed=SEED, directory=folder, project_name="search")
    tuner.search(*images("train"), batch_size=BATCH, epochs=EPOCHS, validation_data=images("validation"), verbose=0)
    trials = sorted(tuner.oracle.trials.values(), key=lambda trial: trial.trial_id)
    model = tuner.get_best_models()[0]
    weights = hashlib.sha256(b"".join(np.asarray(weight).tobytes() for weight in model.get_weights())).hexdigest()
    return {"losses": [round(trial.score, 6) for trial in trials], "weights": weights[:12]}


def start(folder: Path, cores: int | None = None) -> subprocess.Popen[str]:
    """Start the script in a fresh process, which may use `cores` cores."""
    command = [sys.executable, "-m", "benchmarks.alternatives", "--script", str(folder)]
    limit = (lambda: os.sched_setaffinity(0, range(cores))) if cores else None
    return subprocess.Popen(
        command,
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        preexec_fn=limit,
    )


def result(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Wait for a script; return what it found and its processor time."""
    before = os.times()
    output = process.communicate()[0]
    found = [line.removeprefix(RESULT) for line in output.splitlines() if line.startswith(RESULT)]
    if process.returncode or not found:
        return {"failed": process.returncode}
    after = os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return json.loads(found[0]) | {"CPU s": round(spent, 1)}


def kill_in_trial(process: subprocess.Popen[str], folder: Path, number: int) -> None:
    """Kill a search two seconds after the start of a trial."""
    while not list(folder.glob(f"search/trial_*{number}/trial.json")):
        if process.poll() is not None:
            sys.exit("the search ended before it could be killed")
        time.sleep(0.1)
    time.sleep(2)
    psutil.Process(process.pid).kill()
    process.wait()


def run() -> None:
    """Run the script in all ways and print what it found."""
    with tempfile.TemporaryDirectory() as temporary:
        folders = {name: Path(temporary) / name for name in ("once", "again", "one core", "killed and resumed")}
        for name, folder in folders.items():
            if name.startswith("killed"):
                kill_in_trial(start(folder), folder, 2)
            print(name, result(start(folder, cores=1 if name == "one core" else None)), flush=True)


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument(
        "--script", metavar="FOLDER", help="only the script, in this process, with its state in FOLDER"
    )
    folder = arguments.parse_args().script
    if folder:
        print(RESULT + json.dumps(keras_tuner_script(folder)))
    else:
        run()


if __name__ == "__main__":
    main()
