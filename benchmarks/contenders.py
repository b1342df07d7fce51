"""One contender of benchmarks/speed.py, in a process of its own: it does one piece of work for each line that it reads.

  python benchmarks/contenders.py convpipe model_2 FOLDER TURNS [TIMES]

A piece is an epoch of training, a matrix product, or a trial of a search. For each it prints a line of JSON: wall and
processor seconds, and what came of it. The contenders thereby take turns on the same machine.
"""

import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np

RATE, BATCH, SCORING = 1e-3, 64, 500
MATRIX = 2048
Arrays = tuple[np.ndarray, np.ndarray]


class Turns:
    """Waits for a turn, and tells what the one before it cost.

    A process that has waited is slow at first: its memory is cold, and on some machines no longer there at all. So
    every turn but the first begins with an epoch that is not measured.
    """

    def __init__(self) -> None:
        self._wait()

    def epoch(self, number: int) -> None:
        """An epoch has ended, the first one is 0."""
        if number % 2:
            self.begin()
        else:
            self()

    def begin(self) -> None:
        """Measure from here."""
        self._wall, self._processor = time.perf_counter(), time.process_time()

    def __call__(self, **figures: Any) -> None:
        wall, processor = time.perf_counter() - self._wall, time.process_time() - self._processor
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print("@" + json.dumps({"wall": wall, "processor": processor, "memory": memory, **figures}), flush=True)
        self._wait()

    def _wait(self) -> None:
        if not sys.stdin.readline():
            sys.exit()
        self.begin()


def epochs_of(turns: int) -> int:
    """As many as `Turns.epoch` takes."""
    return 2 * turns - 1


def arrays(folder: str, split: str, times: int = 1) -> Arrays:
    """Images (n, 28, 28, 1) as float32 in [0, 1], and labels."""
    place = Path(folder) / "data" / "validated" / split
    images, labels = np.load(place / "images.npy"), np.load(place / "labels.npy")
    return np.tile(images, (times, 1, 1, 1)).astype(np.float32) / 255, np.tile(labels, times)


def convpipe(model: str, folder: str, turns: int, times: int = 1) -> None:
    """This project's own training, as its stages do it."""
    from pipeline import config, runtime
    from pipeline.paths import Paths

    paths = Paths(Path(folder))
    params = config.load(paths)
    used = runtime.start(params.runtime)
    from pipeline import dataset, metrics, prediction, training

    card, validation = dataset.load_card(paths), dataset.load(paths, "validation")
    train = dataset.load(paths, "train")
    train = dataset.Split(np.tile(train.images, (times, 1, 1, 1)), np.tile(train.labels, times))
    network = params.model(model)
    fit = network.fit.model_copy(update={"epochs": epochs_of(turns), "batch_size": BATCH, "schedule": "constant"})
    turn = Turns()
    fitted = training.fit(
        network.model_copy(update={"fit": fit}),
        card,
        train,
        validation,
        seed=params.seed,
        precision=used.precision,
        on_epoch=lambda epoch, figures: turn.epoch(epoch),
    )
    test = dataset.load(paths, "test")
    turn(**metrics.scores(prediction.predictor(fitted.model)(test.images), test.labels))


def score(model: str, folder: str) -> None:
    """Scores the network that a stage has trained."""
    from pipeline import artifacts, dataset, metrics, prediction
    from pipeline.paths import Paths

    paths = Paths(Path(folder))
    turn = Turns()
    test, file = dataset.load(paths, "test"), paths.model(model)
    trained = artifacts.load(file, artifacts.digest(file))
    turn(**metrics.scores(prediction.predictor(trained)(test.images), test.labels))


def keras_network(block: Any, precision: str = "float32") -> Any:
    from models import cnn

    return cnn.build(block, (28, 28, 1), 10, precision)


def plain_keras(model: str, folder: str, turns: int) -> None:
    """Keras as a script has it: NumPy arrays, float32, compiled by default."""
    import keras

    from pipeline import config
    from pipeline.paths import Paths

    keras.utils.set_random_seed(42)
    network = keras_network(config.load(Paths(Path(folder))).model(model))
    network.compile(keras.optimizers.Adam(RATE), "sparse_categorical_crossentropy", metrics=["accuracy"])
    train, validation, test = (arrays(folder, split) for split in ("train", "validation", "test"))
    turn = Turns()
    each = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: turn.epoch(epoch))
    epochs = epochs_of(turns)
    network.fit(*train, batch_size=BATCH, epochs=epochs, validation_data=validation, callbacks=[each], verbose=0)
    turn(accuracy=network.evaluate(*test, verbose=0)[1])


def torch_float32(model: str, folder: str, turns: int) -> None:
    pytorch(model, folder, turns, False)


def torch_bfloat16(model: str, folder: str, turns: int) -> None:
    pytorch(model, folder, turns, True)


def pytorch(model: str, folder: str, turns: int, bfloat16: bool) -> None:
    """PyTorch, eager, channels_last, the whole data a tensor in memory."""
    import torch
    from torch import nn

    torch.manual_seed(42)

    def block(before: int, after: int, *more: nn.Module) -> list[nn.Module]:
        return [nn.Conv2d(before, after, 3, padding="same"), nn.ReLU(), *more]

    networks = {
        "model_1": lambda: [
            *(nn.Conv2d(1, 32, 3, padding="same"), nn.MaxPool2d(2)),
            *block(32, 64, nn.MaxPool2d(2)),
            *(nn.Flatten(), nn.Linear(64 * 49, 128), nn.ReLU(), nn.Linear(128, 10)),
        ],
        "model_2": lambda: [
            *block(1, 32, nn.MaxPool2d(2)),
            *block(32, 64, nn.MaxPool2d(2), nn.Dropout(0.3), nn.BatchNorm2d(64)),
            *block(64, 128),
            *block(128, 128, nn.MaxPool2d(2), nn.Dropout(0.4)),
            *(nn.Flatten(), nn.BatchNorm1d(1152), nn.Linear(1152, 512), nn.ReLU(), nn.Dropout(0.25)),
            nn.Linear(512, 10),
        ],
    }
    network = nn.Sequential(*networks[model]()).to(memory_format=torch.channels_last)
    optimizer, loss = torch.optim.Adam(network.parameters(), RATE), nn.CrossEntropyLoss()

    def tensors(split: str) -> Any:
        images, labels = arrays(folder, split)
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
        return pixels, torch.from_numpy(labels)

    def accuracy(images: Any, labels: Any) -> float:
        network.eval()
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            found = torch.cat([network(part).argmax(1) for part in images.split(SCORING)])
        network.train()
        return float((found == labels).float().mean())

    (images, labels), validation, test = (tensors(split) for split in ("train", "validation", "test"))
    turn = Turns()
    for epoch in range(epochs_of(turns)):
        for batch in torch.randperm(len(labels))[: len(labels) // BATCH * BATCH].split(BATCH):
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                error = loss(network(images[batch]), labels[batch])
            error.backward()
            optimizer.step()
        accuracy(*validation)
        turn.epoch(epoch)
    turn(accuracy=accuracy(*test))


def matrix(precision: str, folder: str, turns: int) -> None:
    """The machine's own rate: a product of two square matrices, TensorFlow's fastest call for it."""
    import tensorflow as tf

    values = tf.random.stateless_normal((MATRIX, MATRIX), (1, 2))
    values = tf.cast(values, precision)
    product = tf.function(lambda a, b: tf.matmul(a, b)[0, 0])
    product(values, values)
    turn = Turns()
    for _ in range(turns):
        product(values, values)
        turn.begin()
        for _ in range(10):
            float(product(values, values))
        turn(operations=10 * 2 * MATRIX**3)


def convpipe_search(_: str, folder: str, count: int) -> None:
    """The project's own search, without MLflow, pruning and finalists: what the other one does."""
    from pipeline import config, runtime
    from pipeline.paths import Paths

    paths = Paths(Path(folder))
    params = config.load(paths)
    used = runtime.start(params.runtime)
    from pipeline import dataset, search, training

    card = dataset.load_card(paths)
    train, validation = dataset.load(paths, "train"), dataset.load(paths, "validation")
    turn = Turns()

    def run(trial: search.Trial, stops: search.Stops) -> search.Outcome:
        network = _tried(params, trial.values)
        fitted = training.fit(network, card, train, validation, seed=params.seed, precision=used.precision)
        turn(**fitted.validation)
        figures = {f"val_{name}": value for name, value in fitted.validation.items()}
        return search.Outcome("COMPLETED", figures, [], None, None)

    _searched(params, count, run)


def plain_search(_: str, folder: str, count: int) -> None:
    """Keras Tuner by itself on the same networks, in the same order; NumPy arrays, float32, compiled by default."""
    import keras
    import keras_tuner

    from pipeline import config, search
    from pipeline.paths import Paths

    params = config.load(Paths(Path(folder)))
    train, validation = arrays(folder, "train"), arrays(folder, "validation")
    untrained = search.Outcome("COMPLETED", {"val_loss": 0.0, "val_accuracy": 0.0}, [], None, None)
    drawn = _searched(params, count, lambda trial, stops: untrained)
    turn = Turns()

    def build(hp: keras_tuner.HyperParameters) -> keras.Model:
        network = keras_network(_tried(params, drawn[int(hp.Choice("trial", list(range(count))))].values))
        network.compile(keras.optimizers.Adam(RATE), "sparse_categorical_crossentropy", metrics=["accuracy"])
        return network

    class Tuner(keras_tuner.GridSearch):
        def run_trial(self, *args: Any, **kwargs: Any) -> Any:
            found = super().run_trial(*args, **kwargs)
            turn()
            return found

    with tempfile.TemporaryDirectory() as state:
        tuner = Tuner(build, params.tune.objective, count, directory=state, project_name="search")
        tuner.search(*train, batch_size=BATCH, epochs=params.tune.epochs, validation_data=validation, verbose=0)


def _searched(params: Any, count: int, run: Any) -> Any:
    from pipeline import search

    tune = params.tune.model_copy(update={"tuner": "random", "trials": count, "pruning": None, "finalists": 1})
    with tempfile.TemporaryDirectory() as state:
        return search.search(tune, params.base.model_dump(mode="json"), params.seed, Path(state) / "search", run)


def _tried(params: Any, values: dict[str, Any]) -> Any:
    from pipeline import config, space

    block = space.apply(params.base.model_dump(mode="json"), values)
    return config.model_from(space.apply(block, {"fit.epochs": params.tune.epochs}))


CONTENDERS = {
    f.__name__: f
    for f in (convpipe, score, plain_keras, torch_float32, torch_bfloat16, matrix, convpipe_search, plain_search)
}

if __name__ == "__main__":
    name, subject, folder, *counts = sys.argv[1:]
    CONTENDERS[name](subject, folder, *map(int, counts))
