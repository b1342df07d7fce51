"""Contenders that search:  python -m benchmarks.contenders.search NAME - FOLDER TRIALS"""
# ruff: noqa: E402  load_tensorflow has to come before what imports TensorFlow

import asyncio
import sys
import tempfile
from pathlib import Path
from typing import Any

from pipeline.runtime.startup import load_tensorflow

load_tensorflow()

import keras
import keras_tuner

from benchmarks.contenders.turns import BATCH, LEARNING_RATE, Turns, arrays
from models import cnn
from pipeline.core import config, dataset, search_space
from pipeline.core.config import NetworkConfig, Params
from pipeline.core.paths import Paths
from pipeline.runtime import device
from pipeline.train.fit import fit
from pipeline.train.task import FitSpec
from pipeline.tune.search import RunTrial, Search
from pipeline.tune.trial import Outcome, Trial


def convpipe_search(folder: str, count: int) -> None:
    """This project's search, without MLflow, pruning and finalists, which the other contender lacks."""
    paths = Paths(Path(folder))
    params = config.load(paths)
    used = device.start(params.runtime)
    data = dataset.load_training(paths)
    turn = Turns()

    async def run(trial: Trial, _: Any) -> Outcome:
        spec = FitSpec(network(params, trial), params.seed, used.precision, replicas=used.replicas)
        validation = fit(spec, data).validation
        turn(accuracy=validation.accuracy)
        return Outcome("COMPLETED", {"val_loss": validation.loss, "val_accuracy": validation.accuracy}, [])

    search(params, count, run)


def plain_search(folder: str, count: int) -> None:
    """Keras Tuner alone on the same networks in the same order: NumPy arrays, float32, default compilation."""
    params = config.load(Paths(Path(folder)))
    train, validation = arrays(folder, "train"), arrays(folder, "validation")

    async def untrained(trial: Trial, _: Any) -> Outcome:
        return Outcome("COMPLETED", {"val_loss": 0.0, "val_accuracy": 0.0}, [])

    drawn = search(params, count, untrained)
    turn = Turns()

    def build(hp: keras_tuner.HyperParameters) -> keras.Model:
        trial = drawn[int(hp.Choice("trial", list(range(count))))]
        model = cnn.build(network(params, trial), (28, 28, 1), 10, "float32")
        model.compile(keras.optimizers.Adam(LEARNING_RATE), "sparse_categorical_crossentropy", metrics=["accuracy"])
        return model

    class Tuner(keras_tuner.GridSearch):
        def run_trial(self, *args: Any, **kwargs: Any) -> Any:
            found = super().run_trial(*args, **kwargs)
            turn()
            return found

    with tempfile.TemporaryDirectory() as state:
        tuner = Tuner(build, params.search.objective, count, directory=state, project_name="search")
        tuner.search(*train, batch_size=BATCH, epochs=params.search.epochs, validation_data=validation, verbose=0)


def search(params: Params, count: int, run: RunTrial) -> list[Trial]:
    """The trials of a random search, in the order in which they were begun."""
    space = {name: part for name, part in params.search.space.items() if name != "fit"}  # both train in the same way
    changes = {"tuner": "random", "trials": count, "pruning": None, "finalists": 1, "space": space}
    tune = params.search.model_copy(update=changes)
    with tempfile.TemporaryDirectory() as state:
        return asyncio.run(Search(tune, params.base.model_dump(mode="json"), params.seed, Path(state)).run(run))


def network(params: Params, trial: Trial) -> NetworkConfig:
    block = search_space.apply(params.base.model_dump(mode="json"), trial.values)
    return config.network_from(search_space.apply(block, {"fit.epochs": params.search.epochs}))


CONTENDERS = {"convpipe_search": convpipe_search, "plain_search": plain_search}

if __name__ == "__main__":
    contender, _, project, trials = sys.argv[1:]
    CONTENDERS[contender](project, int(trials))
