"""Training loop: determinism, resumption, settings."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from pipeline.core import config, dataset
from pipeline.core.config import AnyNetwork
from pipeline.core.errors import TrainingError
from pipeline.runtime import saved_model
from pipeline.runtime.predictor import predictor
from pipeline.runtime.scores import scores
from pipeline.train import callbacks
from pipeline.train.fit import Fitted, fit
from pipeline.train.monitor import Epoch, Monitor
from pipeline.train.task import FitSpec

from .conftest import ROOT, Project, overlaid

NETWORK = {"blocks": [{"filters": [4], "dropout": 0.3, "batch_norm": True}], "head": {"dense": [16], "dropout": 0.3}}


def network(project: Project, **fit: Any) -> AnyNetwork:
    """A small network with the project's training settings, some of them changed."""
    common = project.params()["fit"]
    return config.network_from(NETWORK | {"fit": overlaid(common, {"epochs": 3} | fit)})


class Stop(Monitor):
    """Ends a fit on a condition."""

    def __init__(self, condition: Callable[[list[Epoch]], bool]) -> None:
        super().__init__()
        self._condition = condition

    def should_stop(self, history: list[Epoch]) -> bool:
        return self._condition(history)


class OnEpoch(Monitor):
    """Calls a function after each epoch."""

    def __init__(self, call: Callable[[int], None]) -> None:
        super().__init__()
        self._call = call

    def on_epoch(self, number: int, metrics: Epoch) -> None:
        self._call(number)


def fitted(
    project: Project,
    settings: dict[str, Any] | None = None,
    monitor: Monitor | None = None,
    checkpoint: Path | None = None,
    **spec: Any,
) -> Fitted:
    """Fit the small network with some training settings changed."""
    changed = FitSpec(network(project, **settings or {}), **{"seed": 7, "precision": "float32"} | spec)
    return fit(changed, dataset.load_training(project.paths), monitor, checkpoint)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_seed_determines_history_and_weights(validated: Project, precision: str):
    first, again, other = (fitted(validated, seed=seed, precision=precision) for seed in (7, 7, 8))
    assert first.history == again.history
    for ours, theirs in zip(first.model.get_weights(), again.model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert first.history != other.history


def test_validation_scores_are_those_of_the_returned_network(validated: Project):
    found = fitted(validated, {"ema": 0.9})
    validation = dataset.load(validated.paths, "validation")
    expected = scores(predictor(found.model)(validation.images), validation.labels)
    assert found.validation.accuracy == expected.accuracy
    assert found.validation.loss == pytest.approx(expected.loss, rel=1e-5)


def test_training_learns(validated: Project):
    losses = [epoch["loss"] for epoch in fitted(validated, {"epochs": 6, "learning_rate": 0.01}).history]
    assert losses[-1] < 0.8 * losses[0]


def test_a_residual_network_learns_with_one_replica_as_with_two(validated: Project):
    blocks = [
        {"filters": [4]},
        {"filters": [8, 8], "residual": True, "repeat": 2, "stride": 2, "groups": 2, "squeeze_excitation": 2},
    ]
    block = network(validated, epochs=2).model_dump(mode="json") | {"blocks": blocks, "head": {"dense": [16]}}
    data = dataset.load_training(validated.paths)
    one, two = (fit(FitSpec(config.network_from(block), 7, "float32", replicas=count), data) for count in (1, 2))
    assert one.history[1]["loss"] < one.history[0]["loss"]
    for ours, theirs in zip(one.history, two.history, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3)
    expected = scores(predictor(one.model)(data.validation.images), data.validation.labels)
    assert one.validation.loss == pytest.approx(expected.loss, rel=1e-5)


def test_ema_ends_with_averaged_weights(validated: Project):
    plain, averaged = fitted(validated), fitted(validated, {"ema": 0.99})
    assert [epoch["loss"] for epoch in plain.history] == [epoch["loss"] for epoch in averaged.history]
    kernels = [found.model.get_layer("head_dense1").kernel.numpy() for found in (plain, averaged)]
    assert not np.allclose(*kernels)


AVERAGED = {"ema": 0.95, "learning_rate": 0.03, "schedule": "constant"}


@pytest.mark.parametrize(
    ("settings", "best"),
    [
        ({}, None),
        ({"early_stopping": 2}, None),
        ({}, "val_loss"),
        ({}, "val_accuracy"),
        ({"early_stopping": 2}, "val_loss"),
    ],
    ids=["last", "early stopping", "best loss", "best accuracy", "both"],
)
def test_ema_means_averaged_weights_in_metrics_and_in_the_result(validated: Project, settings: dict, best: str | None):
    plain, found = (
        fitted(validated, AVERAGED | {"epochs": 8} | settings | ema, best=best) for ema in ({"ema": None}, {})
    )
    common = min(len(plain.history), len(found.history))
    assert common >= 3
    for ours, raw in zip(found.history[:common], plain.history[:common], strict=True):
        assert (ours["loss"], ours["accuracy"]) == (raw["loss"], raw["accuracy"])  # training itself is the same
        assert ours["val_loss"] != raw["val_loss"]
    metric = best or ("val_loss" if settings else "")
    values = [epoch[metric or "val_loss"] for epoch in found.history]
    expected = values[-1] if not metric else max(values) if metric == "val_accuracy" else min(values)
    assert getattr(found.validation, (metric or "val_loss").removeprefix("val_")) == pytest.approx(expected, rel=1e-5)
    assert not all(map(np.array_equal, plain.model.get_weights(), found.model.get_weights()))


def test_metrics_of_every_epoch_are_those_of_the_weights_that_a_fit_of_so_many_epochs_gives(validated: Project):
    history = fitted(validated, AVERAGED).history
    for epochs in (1, 2):
        shorter = fitted(validated, AVERAGED | {"epochs": epochs})
        assert shorter.validation.loss == pytest.approx(history[epochs - 1]["val_loss"], rel=1e-5)


def test_label_smoothing_raises_the_loss_of_a_confident_network(validated: Project):
    plain, smooth = fitted(validated), fitted(validated, {"label_smoothing": 0.2})
    assert smooth.history[-1]["loss"] > plain.history[-1]["loss"]


def test_early_stopping_keeps_the_best_epoch(validated: Project):
    settings = {"early_stopping": 1, "epochs": 40, "learning_rate": 0.05, "schedule": "constant"}
    found = fitted(validated, settings)
    losses = [epoch["val_loss"] for epoch in found.history]
    assert len(losses) < 40
    assert losses[-1] > min(losses)
    assert found.validation.loss == pytest.approx(min(losses), rel=1e-3)


def test_stopped_training_has_the_same_history_up_to_its_end(validated: Project):
    whole = fitted(validated)
    stopped = fitted(validated, monitor=Stop(lambda history: len(history) == 2))
    assert stopped.history == whole.history[:2]


@pytest.mark.parametrize(("metric", "best"), [("val_loss", min), ("val_accuracy", max)])
def test_weights_of_the_best_epoch_are_kept_on_request(validated: Project, metric: str, best: Any):
    def worse(history: list[dict[str, float]]) -> bool:
        values = [epoch[metric] for epoch in history]
        return values[-1] != best(values)

    settings = {"epochs": 40, "learning_rate": 0.03, "schedule": "constant"}
    found = fitted(validated, settings, Stop(worse), best=metric)
    values = [epoch[metric] for epoch in found.history]
    assert worse(found.history)
    assert getattr(found.validation, metric.removeprefix("val_")) == pytest.approx(best(values), rel=1e-3)


def test_diverged_training_is_an_error(validated: Project):
    with pytest.raises(TrainingError, match=r"the loss of epoch \d+ is not a number; try a lower fit\.learning_rate"):
        fitted(validated, {"optimizer": "sgd", "learning_rate": 10.0, "schedule": "constant", "epochs": 20})


def test_too_little_memory_is_an_error(validated: Project, monkeypatch: pytest.MonkeyPatch):
    def fails(*arguments: Any, **named: Any) -> None:
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor\nDetails")

    monkeypatch.setattr(keras.Model, "fit", fails)
    with pytest.raises(TrainingError, match=r"not enough memory; try a lower fit\.batch_size.*: OOM when .* tensor$"):
        fitted(validated)


def test_a_line_is_printed_for_every_epoch(validated: Project, capsys: pytest.CaptureFixture[str]):
    fitted(validated, monitor=Monitor("small"))
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("small epoch")]
    assert [line.split(" ")[2] for line in lines] == ["1/3", "2/3", "3/3"]
    assert all("val_accuracy 0." in line for line in lines)
    fitted(validated)
    assert capsys.readouterr().out == ""


KILLED = """
import os, sys
from collections.abc import Callable
from pathlib import Path
from pipeline.runtime import saved_model
from pipeline.train import callbacks
from tests.conftest import Project
from tests.test_fit import OnEpoch, fitted

callbacks.CHECKPOINT_INTERVAL = 0.0
project, kept, kill, settings = Project(Path(sys.argv[1])), Path(sys.argv[2]), int(sys.argv[3]), eval(sys.argv[4])
replicas = int(sys.argv[5])

def stop(epoch):
    if epoch == kill:
        os.kill(os.getpid(), 9)

found = fitted(project, settings, OnEpoch(stop), kept / "state.npz", replicas=replicas)
whole = fitted(project, settings, replicas=replicas)
print(found.history == whole.history, saved_model.content(found.model) == saved_model.content(whole.model))
"""


@pytest.mark.parametrize(
    ("settings", "kill", "replicas"),
    [
        (
            {
                "epochs": 5,
                "augmentation": {"shift": 0.1, "erase": 0.5, "mixup": 0.4},
                "ema": 0.9,
                "schedule": "one_cycle",
                "loss": "focal",
            }
            | {"optimizer": "sgd", "weight_decay": 0.01, "l2": 0.001, "clip_norm": 1.0, "class_weight": "balanced"},
            3,
            2,
        ),
        # The loss rises from the first epoch: training stops early and restores weights from before the kill.
        ({"epochs": 6, "early_stopping": 2, "learning_rate": 0.05, "schedule": "constant", "ema": 0.5}, 2, 1),
    ],
    ids=["most options", "ema and early stopping"],
)
def test_killed_training_resumes_and_gives_the_same_bytes(
    validated: Project, tmp_path: Path, settings: dict, kill: int, replicas: int
):
    def run(kill: int) -> subprocess.CompletedProcess[str]:
        arguments = [validated.root, tmp_path, kill, repr(settings), replicas]
        command = [sys.executable, "-c", KILLED, *map(str, arguments)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    assert run(kill).returncode == -9
    assert (tmp_path / "state.npz").is_file()
    resumed = run(-1).stdout
    assert f"resuming interrupted training after epoch {kill}" in resumed
    assert resumed.splitlines()[-1] == "True True"
    assert not (tmp_path / "state.npz").exists()


def test_checkpoints_are_written_at_most_once_per_interval(
    validated: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    assert callbacks.CHECKPOINT_INTERVAL >= 1
    monkeypatch.setattr(callbacks, "CHECKPOINT_INTERVAL", 3600.0)  # longer than three epochs take on any machine
    state = tmp_path / "state.npz"
    seen: list[bool] = []
    fitted(validated, monitor=OnEpoch(lambda epoch: seen.append(state.exists())), checkpoint=state)
    assert seen == [False] * 3


def test_saved_networks_have_no_optimizer(validated: Project, tmp_path: Path):
    found = fitted(validated)
    file = tmp_path / "network.keras"
    file.write_bytes(saved_model.content(found.model))
    sha256 = saved_model.digest(file)
    loaded = saved_model.load(tmp_path / "network.keras", sha256)
    assert not loaded.compiled
    weights = sum(weight.nbytes for weight in loaded.get_weights())
    assert (tmp_path / "network.keras").stat().st_size < 1.5 * weights + 100_000
