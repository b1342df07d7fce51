"""Replicas of one fit: branches of one graph, or one on each of several devices, with the same results."""

import json
import subprocess
import sys
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from models import fast_layers
from pipeline.core import config, dataset, sections
from pipeline.core.command import Stopwatch
from pipeline.core.errors import DeviceError, TrainingError
from pipeline.core.records import Device
from pipeline.runtime import device
from pipeline.train import fit as training
from pipeline.train.fit import FitSpec, fit
from pipeline.train.replicas import Replicated, batch_size
from pipeline.train.train import Trainer

from .conftest import ROOT, Here, Project
from .test_fit import fitted, network

SCORED = 7  # images at a time: leaves a last batch with fewer images than devices
SETTINGS = {"ema": 0.9, "augmentation": {"shift": 0.1}, "weight_decay": 0.1, "l2": 0.01, "clip_norm": 0.5}
SETTINGS |= {"class_weight": "balanced", "loss": "focal", "label_smoothing": 0.1}
ON_TWO_DEVICES = f"""
import json, sys
from pathlib import Path
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from pipeline.train import fit
from tests.conftest import Project
from tests.test_fit import fitted
fit.SCORING_BATCH = {SCORED}
found = fitted(Project(Path(sys.argv[1])), {SETTINGS}, replicas=2)
print(json.dumps([found.history, [weights.tolist() for weights in found.model.get_weights()]]))
"""


def test_replicas_on_two_devices_give_the_results_of_two_in_one_graph(
    validated: Project, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(training, "SCORING_BATCH", SCORED)
    command = [sys.executable, "-c", ON_TWO_DEVICES, str(validated.root)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    history, weights = json.loads(done.stdout.splitlines()[-1])
    one_graph, one_replica = fitted(validated, SETTINGS, replicas=2), fitted(validated, SETTINGS)
    for ours, theirs in zip(history, one_graph.history, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)
    assert history[0]["loss"] != pytest.approx(one_replica.history[0]["loss"], rel=1e-2)  # other dropout
    for ours, theirs in zip(weights, one_graph.model.get_weights(), strict=True):
        np.testing.assert_allclose(np.array(ours), theirs, rtol=1e-3, atol=1e-5)


def test_gradients_are_those_of_the_whole_batch(validated: Project):
    """Without dropout and batch normalization, replicas change nothing but rounding."""
    block = network(validated).model_dump(mode="json") | {"blocks": [{"filters": [4]}], "head": {"dense": [16]}}
    data = dataset.load_training(validated.paths)
    one, four = (fit(FitSpec(config.network_from(block), 7, "float32", replicas=count), data) for count in (1, 4))
    for ours, whole in zip(four.history, one.history, strict=True):
        assert ours == pytest.approx(whole, rel=1e-4)


def test_replicas_draw_their_own_dropout_and_moving_statistics_are_averaged(monkeypatch: pytest.MonkeyPatch):
    layers = [fast_layers.BatchNormalization(momentum=0.5), fast_layers.Dropout(0.5)]
    model = Replicated(keras.Sequential([keras.Input((8, 8, 2)), *layers]), replicas=2)
    model.compile("sgd", "mse")
    monkeypatch.setattr(model, "compute_metrics", lambda images, labels, outputs: {"outputs": outputs})
    halves = np.random.default_rng(0).normal(size=(2, 4, 8, 8, 2)).astype(np.float32)
    halves[1] = 2 - halves[0]  # mean and variance of the whole batch differ from the averages over its halves
    images = tf.constant(halves.reshape(8, 8, 8, 2))
    first, second = np.split(model.train_step((images, images))["outputs"].numpy() == 0, 2)
    assert first.mean() == pytest.approx(second.mean(), abs=0.1) == pytest.approx(0.5, abs=0.1)
    assert (first != second).mean() > 0.3
    axes = (1, 2, 3)
    np.testing.assert_allclose(layers[0].moving_mean, 0.5 * halves.mean(axes).mean(0), rtol=1e-4)
    np.testing.assert_allclose(layers[0].moving_variance, 0.5 + 0.5 * halves.var(axes).mean(0), rtol=1e-4)


@pytest.mark.parametrize(("images", "expected"), [(600, 64), (63, 60), (3, None)])
def test_batches_split_into_equal_parts(images: int, expected: int | None):
    if expected:
        assert batch_size(64, images, replicas=4) == expected
        return
    with pytest.raises(TrainingError, match=r"batches of 3 images cannot be split among 4 replicas; choose fit\.batch"):
        batch_size(64, images, replicas=4)


def test_fewer_gpus_than_replicas_are_an_error(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["gpu"] * 2)
    with pytest.raises(DeviceError, match=r"runtime\.replicas: found 3, but TensorFlow sees 2 GPUs; allowed: 1 to 2"):
        device.start(sections.Runtime(device="gpu", precision="auto", threads=1, replicas=3))


def test_settings_digest_tells_numbers_of_replicas_apart(validated: Project, monkeypatch: pytest.MonkeyPatch):
    params, digests = config.load(validated.paths), set[Any]()
    for count in (1, 2):
        used = Device(kind="cpu", name="a processor", precision="float32", threads=1, replicas=count)
        monkeypatch.setattr(Here, "device", used)
        trainer = Trainer.create("train", params, validated.paths, Here(params.runtime), Stopwatch())
        spec = trainer.spec(params.network("model_1"))
        assert spec.replicas == count
        digests.add(trainer.settings_digest(spec))
    assert len(digests) == 2
