"""Contenders that train:  python -m benchmarks.contenders.training NAME SUBJECT FOLDER [NUMBERS]"""
# ruff: noqa: E402  load_tensorflow has to come before what imports TensorFlow

import sys
from pathlib import Path

import numpy as np

from pipeline.runtime.startup import load_tensorflow

load_tensorflow()

import keras
import tensorflow as tf

from benchmarks.contenders.turns import BATCH, LEARNING_RATE, Turns, arrays, epochs
from models import cnn
from pipeline.core import config, dataset
from pipeline.core.dataset import Split, TrainingData
from pipeline.core.paths import Paths
from pipeline.runtime import device, saved_model
from pipeline.runtime.predictor import predictor
from pipeline.runtime.scores import scores
from pipeline.train.fit import fit
from pipeline.train.monitor import Epoch, Monitor
from pipeline.train.task import FitSpec

MATRIX = 2048


def convpipe(name: str, folder: str, turns: int, batch: int = BATCH, replicas: int = 0, times: int = 1) -> None:
    """This project's training, as its stages do it, on the training images repeated `times` times.

    replicas: 0 means those of params.yaml.
    """
    paths = Paths(Path(folder))
    params = config.load(paths)
    used = device.start(params.runtime)
    data = dataset.load_training(paths)
    train = Split(np.tile(data.train.images, (times, 1, 1, 1)), np.tile(data.train.labels, times))
    network = params.network(name)
    changes = {"epochs": epochs(turns), "batch_size": batch, "schedule": "constant"}
    network = network.model_copy(update={"fit": network.fit.model_copy(update=changes)})
    turn = Turns()

    class EachEpoch(Monitor):
        def on_epoch(self, number: int, metrics: Epoch) -> None:
            turn.epoch(number)

    spec = FitSpec(network, params.seed, used.precision, replicas=replicas or used.replicas)
    fitted = fit(spec, TrainingData(data.info, train, data.validation), EachEpoch())
    turn(accuracy=test_accuracy(fitted.model, paths))


def score(name: str, folder: str) -> None:
    """The test accuracy of a network that the stage `train` has trained."""
    paths, turn = Paths(Path(folder)), Turns()
    file = paths.model(name)
    turn(accuracy=test_accuracy(saved_model.load(file, saved_model.digest(file)), paths))


def test_accuracy(model: keras.Model, paths: Paths) -> float:
    test = dataset.load(paths, "test")
    return scores(predictor(model)(test.images), test.labels).accuracy


def plain_keras(name: str, folder: str, turns: int, batch: int) -> None:
    """Keras as a script uses it: NumPy arrays, float32, default compilation."""
    keras.utils.set_random_seed(42)
    network = cnn.build(config.load(Paths(Path(folder))).network(name), (28, 28, 1), 10, "float32")
    network.compile(keras.optimizers.Adam(LEARNING_RATE), "sparse_categorical_crossentropy", metrics=["accuracy"])
    train, validation, test = (arrays(folder, split) for split in ("train", "validation", "test"))
    turn = Turns()
    each = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: turn.epoch(epoch))
    settings = {"batch_size": batch, "epochs": epochs(turns), "verbose": 0}
    network.fit(*train, validation_data=validation, callbacks=[each], **settings)
    turn(accuracy=network.evaluate(*test, verbose=0)[1])


def matrix(precision: str, folder: str, turns: int) -> None:
    """The machine's own rate: products of two square matrices."""
    values = tf.cast(tf.random.stateless_normal((MATRIX, MATRIX), (1, 2)), precision)
    product = tf.function(lambda a, b: tf.matmul(a, b)[0, 0])
    turn = Turns()
    for _ in range(turns):
        product(values, values)
        turn.begin()
        for _ in range(10):
            float(product(values, values))
        turn(operations=10 * 2 * MATRIX**3)


CONTENDERS = {"convpipe": convpipe, "score": score, "plain_keras": plain_keras, "matrix": matrix}

if __name__ == "__main__":
    contender, subject, project, *numbers = sys.argv[1:]
    CONTENDERS[contender](subject, project, *map(int, numbers))
