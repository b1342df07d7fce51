"""One fit of a search: what is kept of it, and which of its failures are its own."""

from pathlib import Path
from typing import Any

import mlflow
import pytest
import tensorflow as tf
from mlflow.entities import Run

from pipeline import config, training
from pipeline.errors import TrainingError
from pipeline.runtime import Runtime
from pipeline.search import Trial
from pipeline.stage import Stopwatch
from pipeline.trials import Workplace, workplace

from .conftest import Project

EPOCH = {"loss": 1.0, "accuracy": 0.5, "val_loss": 2.0, "val_accuracy": 0.4}
TRIAL = Trial(3, {"head.dropout": 0.5}, 4, "RUNNING", {}, [])


@pytest.fixture
def place(copy_of_validated: Project, no_store: None) -> Workplace:
    paths = copy_of_validated.paths
    return workplace(config.load(paths), paths, Runtime("cpu", "a processor", "float32", 1), Stopwatch())


def failing(error: BaseException) -> Any:
    def fit(*args: Any, on_epoch: Any, **options: Any) -> None:
        on_epoch(0, EPOCH)
        raise error

    return fit


def only_run(root: Path) -> Run:
    client = mlflow.MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    [run] = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    return run


@pytest.mark.parametrize(
    "error",
    [
        TrainingError("the loss of epoch 2 is not a number"),
        MemoryError("no memory"),
        tf.errors.ResourceExhaustedError(None, None, "no memory"),
    ],
)
def test_a_failure_of_the_trial_is_an_outcome(place: Workplace, error: Exception, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(training, "fit", failing(error))
    outcome = place.run(TRIAL, lambda curve: False, None)
    assert (outcome.status, outcome.figures, outcome.curve) == ("FAILED", {}, [EPOCH])
    assert str(outcome.error).startswith(type(error).__name__)
    run = only_run(place.paths.root)
    assert (run.info.run_id, run.info.status) == (outcome.run_id, "FAILED")


def test_a_network_that_leaves_nothing_of_the_image_is_a_failure_of_its_own(place: Workplace):
    trial = Trial(3, {f"blocks.{block}.pooling.window": 9 for block in range(3)}, 4, "RUNNING", {}, [])
    outcome = place.run(trial, lambda curve: False, None)
    assert outcome.status == "FAILED"
    assert "leaves nothing of" in str(outcome.error)


def test_an_error_of_the_program_is_not_hidden(place: Workplace, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(training, "fit", failing(TypeError("a mistake")))
    with pytest.raises(TypeError, match="a mistake"):
        place.run(TRIAL, lambda curve: False, None)


def test_a_stopped_trial_says_so_in_its_run(place: Workplace):
    outcome = place.run(TRIAL, lambda curve: len(curve) == 1, None)
    assert (outcome.status, len(outcome.curve)) == ("COMPLETED", 1)  # what it is worth, the search decides
    run = only_run(place.paths.root)
    assert (run.info.status, run.data.tags["pruned"]) == ("FINISHED", "after epoch 1 of 4")
    assert run.data.params == {"head.dropout": "0.5", "fit.epochs": "4", "seed": "42"}
    assert run.data.metrics["val_loss"] == outcome.curve[0]["val_loss"]
