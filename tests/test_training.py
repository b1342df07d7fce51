"""The training loop: repeatable, resumable, and true to its settings."""

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from pipeline import artifacts, checkpoint, config, dataset, metrics, prediction, training
from pipeline.config import Model
from pipeline.errors import TrainingError

from .conftest import ROOT, Project, overlaid

NETWORK = {"blocks": [{"filters": [4], "dropout": 0.3, "batch_norm": True}], "head": {"dense": [16], "dropout": 0.3}}


def network(project: Project, **fit: Any) -> Model:
    """A small network with the project's training settings, some of them changed."""
    common = project.params()["fit"]
    return config.model_from(NETWORK | {"fit": overlaid(common, {"epochs": 3} | fit)})


def fit(project: Project, seed: int = 7, precision: str = "float32", **changes: Any) -> training.Fitted:
    paths = project.paths
    return training.fit(
        network(project, **changes.pop("fit", {})),
        dataset.load_card(paths),
        dataset.load(paths, "train"),
        dataset.load(paths, "validation"),
        seed=seed,
        precision=precision,
        **changes,
    )


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_seed_decides_history_and_weights(validated: Project, precision: str):
    first, again, other = (fit(validated, seed, precision) for seed in (7, 7, 8))
    assert first.history == again.history
    for ours, theirs in zip(first.model.get_weights(), again.model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert first.history != other.history


def test_validation_figures_are_those_of_the_returned_network(validated: Project):
    fitted = fit(validated, fit={"ema": 0.9})
    validation = dataset.load(validated.paths, "validation")
    probabilities = prediction.predictor(fitted.model)(validation.images)
    found = metrics.scores(probabilities, validation.labels)
    assert fitted.validation["accuracy"] == found["accuracy"]
    assert fitted.validation["loss"] == pytest.approx(found["loss"], rel=1e-5)


def test_training_learns(validated: Project):
    losses = [epoch["loss"] for epoch in fit(validated, fit={"epochs": 6, "learning_rate": 0.01}).history]
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "nadam", "rmsprop", "sgd"])
@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_optimizer_and_schedule_are_the_configured_ones(validated: Project, optimizer: str, schedule: str):
    settings = network(validated, optimizer=optimizer, schedule=schedule, epochs=4, learning_rate=0.01).fit
    built = training.optimizer(settings, steps=10)
    assert type(built).__name__.lower() == optimizer
    built.build([keras.Variable(np.zeros(3))])
    rates = []
    for step in (0, 20, 40):
        built.iterations.assign(step)
        rates.append(float(built.learning_rate))
    assert rates == pytest.approx([0.01] * 3 if schedule == "constant" else [0.01, 0.005, 0.0], abs=1e-9)


def test_ema_ends_with_averaged_weights(validated: Project):
    plain, averaged = fit(validated), fit(validated, fit={"ema": 0.99})
    assert [epoch["loss"] for epoch in plain.history] == [epoch["loss"] for epoch in averaged.history]
    kernels = [fitted.model.get_layer("head_dense1").kernel.numpy() for fitted in (plain, averaged)]
    assert not np.allclose(*kernels)


def test_label_smoothing_raises_the_loss_of_a_sure_network(validated: Project):
    plain, smooth = fit(validated), fit(validated, fit={"label_smoothing": 0.2})
    assert smooth.history[-1]["loss"] > plain.history[-1]["loss"]


def test_early_stopping_keeps_the_best_epoch(validated: Project):
    fitted = fit(validated, fit={"early_stopping": 1, "epochs": 40, "learning_rate": 0.05, "schedule": "constant"})
    losses = [epoch["val_loss"] for epoch in fitted.history]
    assert len(losses) < 40
    assert losses[-1] > min(losses)
    assert fitted.validation["loss"] == pytest.approx(min(losses), rel=1e-3)


def test_training_that_is_stopped_has_gone_as_far_as_any(validated: Project):
    whole = fit(validated)
    stopped = fit(validated, stops=lambda history: len(history) == 2)
    assert stopped.history == whole.history[:2]


@pytest.mark.parametrize(("figure", "best"), [("val_loss", min), ("val_accuracy", max)])
def test_the_weights_of_the_best_epoch_are_kept_on_request(validated: Project, figure: str, best: Any):
    def worse(history: list[dict[str, float]]) -> bool:
        values = [epoch[figure] for epoch in history]
        return values[-1] != best(values)

    fitted = fit(validated, fit={"epochs": 40, "learning_rate": 0.03, "schedule": "constant"}, best=figure, stops=worse)
    values = [epoch[figure] for epoch in fitted.history]
    assert worse(fitted.history)
    assert fitted.validation[figure.removeprefix("val_")] == pytest.approx(best(values), rel=1e-3)


def test_a_diverged_training_says_so(validated: Project):
    with pytest.raises(TrainingError, match=r"the loss of epoch \d+ is not a number; try a lower fit\.learning_rate"):
        fit(validated, fit={"optimizer": "sgd", "learning_rate": 10.0, "schedule": "constant", "epochs": 20})


def test_a_line_is_printed_for_every_epoch(validated: Project, capsys: pytest.CaptureFixture[str]):
    fit(validated, title="small")
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("small epoch")]
    assert [line.split(" ")[2] for line in lines] == ["1/3", "2/3", "3/3"]
    assert all("val_accuracy 0." in line for line in lines)
    fit(validated)
    assert capsys.readouterr().out == ""


KILLED = """
import os, sys
from pathlib import Path
from pipeline import artifacts, checkpoint
from tests.conftest import Project
from tests.test_training import fit

checkpoint.EVERY = 0.0
project, kept, kill, settings = Project(Path(sys.argv[1])), Path(sys.argv[2]), int(sys.argv[3]), eval(sys.argv[4])

def stop(epoch, figures):
    if epoch == kill:
        os.kill(os.getpid(), 9)

fitted = fit(project, checkpoint=kept / "state.npz", on_epoch=stop, fit=settings)
artifacts.save(fitted.model, kept / "network.keras")
print(fitted.history)
"""


@pytest.mark.parametrize(
    ("settings", "kill"),
    [
        ({"epochs": 5, "augmentation": {"shift": 0.1}, "ema": 0.9}, 3),
        # Its loss rises from the first epoch on: it stops soon, and goes back to weights from before the kill.
        ({"epochs": 6, "early_stopping": 2, "learning_rate": 0.05, "schedule": "constant"}, 2),
    ],
    ids=["ema and augmentation", "early stopping"],
)
def test_a_killed_training_goes_on_and_ends_in_the_same_bytes(
    validated: Project, tmp_path: Path, settings: dict, kill: int
):
    def run(folder: str, kill: int) -> subprocess.CompletedProcess[str]:
        (tmp_path / folder).mkdir(exist_ok=True)
        command = [sys.executable, "-c", KILLED, str(validated.root), str(tmp_path / folder), str(kill), repr(settings)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    assert run("killed", kill=kill).returncode == -9
    assert (tmp_path / "killed" / "state.npz").is_file()
    resumed, whole = run("killed", kill=-1), run("whole", kill=-1)
    assert f"taking up interrupted training after epoch {kill}" in resumed.stdout
    assert resumed.stdout.splitlines()[-1] == whole.stdout.splitlines()[-1] != ""
    digests = [
        hashlib.sha256((tmp_path / folder / "network.keras").read_bytes()).hexdigest() for folder in ("killed", "whole")
    ]
    assert digests[0] == digests[1]
    assert not (tmp_path / "killed" / "state.npz").exists()


def test_checkpoints_are_not_written_more_often_than_they_are_worth(
    validated: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    assert checkpoint.EVERY >= 1
    monkeypatch.setattr(checkpoint, "EVERY", 3600.0)  # longer than three epochs take on any machine
    state = tmp_path / "state.npz"
    seen: list[bool] = []
    fit(validated, checkpoint=state, on_epoch=lambda epoch, figures: seen.append(state.exists()))
    assert seen == [False] * 3


def test_saved_networks_are_for_use_not_for_training(validated: Project, tmp_path: Path):
    fitted = fit(validated)
    sha256 = artifacts.save(fitted.model, tmp_path / "network.keras")
    loaded = artifacts.load(tmp_path / "network.keras", sha256)
    assert not loaded.compiled
    weights = sum(weight.nbytes for weight in loaded.get_weights())
    assert (tmp_path / "network.keras").stat().st_size < 1.5 * weights + 100_000
