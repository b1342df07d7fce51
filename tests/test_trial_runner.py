"""Trials and finalists: what is logged, and which failures belong to the trial."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.entities import Run

from pipeline.core import config
from pipeline.core.command import Stopwatch
from pipeline.core.errors import DataError, TrainingError
from pipeline.engine import engine
from pipeline.train import fit as fitting
from pipeline.train.monitor import Monitor
from pipeline.train.task import FitSpec
from pipeline.train.train import Trainer
from pipeline.tune.search import ShouldStop
from pipeline.tune.trial import Outcome, Trial
from pipeline.tune.trial_runner import TrialRunner
from pipeline.tune.tune import log_winner, tune

from .conftest import Here, Project, yaml
from .test_train_output import refuse

EPOCH = {"loss": 1.0, "accuracy": 0.5, "val_loss": 2.0, "val_accuracy": 0.4}
TRIAL = Trial(3, {"head.dropout": 0.5}, 4)


@pytest.fixture
def runner(copy_of_validated: Project, no_store: None) -> TrialRunner:
    paths = copy_of_validated.paths
    params = config.load(paths)
    return TrialRunner(Trainer.create("tune", params, paths, Here(params.runtime), Stopwatch()))


def test_a_search_of_own_code_is_resumed_only_with_the_same_file(copy_of_validated: Project, no_store: None):
    paths, params = copy_of_validated.paths, copy_of_validated.params()
    tune = params["tune"] | {"base": "mine", "space": {"arguments": {"width": [4, 8]}}}
    mine = {"builder": "example:make", "arguments": {"width": 4}}
    yaml.dump(params | {"models": params["models"] | {"mine": mine}, "tune": tune}, paths.params)

    def key() -> str:
        loaded = config.load(paths)
        return TrialRunner(Trainer.create("tune", loaded, paths, Here(loaded.runtime), Stopwatch())).key

    before = key()
    assert key() == before
    with (paths.own_networks / "example.py").open("a") as file:
        file.write("# changed\n")
    assert key() != before


def outcome_of(runner: TrialRunner, trial: Trial, should_stop: ShouldStop = lambda curve: False) -> Outcome:
    return engine.complete(runner.trial(trial, should_stop))


def failing(error: BaseException) -> Callable[..., None]:
    def fit(spec: FitSpec, data: Any, monitor: Monitor, checkpoint: Path | None) -> None:
        monitor.on_epoch(0, EPOCH)
        raise error

    return fit


def only_run(root: Path) -> Run:
    client = mlflow.MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    [run] = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    return run


def test_a_search_without_a_completed_trial_ends_with_the_first_error(
    runner: TrialRunner, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(fitting, "fit", failing(TrainingError("the loss of epoch 1 is not a number")))
    with pytest.raises(TrainingError, match=r"no trial was completed; .*\n.*the loss of epoch 1 is not a number"):
        engine.complete(tune(runner.trainer))
    assert not runner.trainer.paths.search.exists()


def test_an_output_that_cannot_be_written_is_named_before_the_search(
    runner: TrialRunner, monkeypatch: pytest.MonkeyPatch
):
    refuse(monkeypatch, runner.trainer.paths.search.parent)
    monkeypatch.setattr(fitting, "fit", lambda *_: pytest.fail("a fit began"))
    with pytest.raises(DataError, match="artifacts/tune: cannot be written: Permission denied"):
        engine.complete(tune(runner.trainer))


@pytest.mark.parametrize(
    "error",
    [
        TrainingError("the loss of epoch 2 is not a number"),
        MemoryError("no memory"),
    ],
)
def test_failure_of_the_trial_is_an_outcome(runner: TrialRunner, error: Exception, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(fitting, "fit", failing(error))
    outcome = outcome_of(runner, TRIAL)
    assert (outcome.status, outcome.metrics, outcome.curve) == ("FAILED", {}, [EPOCH])
    assert str(outcome.error).startswith(type(error).__name__)
    run = only_run(runner.trainer.paths.root)
    assert (run.info.run_id, run.info.status) == (outcome.run_id, "FAILED")


def test_network_that_leaves_nothing_of_the_image_is_a_failure_of_the_trial(runner: TrialRunner):
    trial = Trial(3, {f"blocks.{block}.pooling.window": 9 for block in range(3)}, 4)
    outcome = outcome_of(runner, trial)
    assert outcome.status == "FAILED"
    assert "too large for" in str(outcome.error)


def test_programming_error_is_not_hidden(runner: TrialRunner, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(fitting, "fit", failing(TypeError("a mistake")))
    with pytest.raises(TypeError, match="a mistake"):
        outcome_of(runner, TRIAL)


def test_stopped_trial_keeps_its_curve_and_its_metrics(runner: TrialRunner):
    outcome = outcome_of(runner, TRIAL, lambda curve: len(curve) == 1)
    assert (outcome.status, len(outcome.curve)) == ("PRUNED", 1)
    run = only_run(runner.trainer.paths.root)
    assert run.info.status == "FINISHED"
    assert run.data.params == {
        "summary": "pooling max·max·max → flatten | dropout 0·0.3·0.4·0.5",
        "pooling": "max",
        "dropout": "0·0.3·0.4·0.5",
        "head.dropout": "0.5",
        "fit.epochs": "4",
        "seed": "42",
    }
    assert run.data.tags["convpipe.kind"] == "trial"
    assert run.data.metrics["val_loss"] == outcome.curve[0]["val_loss"]


def test_search_has_the_metrics_of_its_winner_under_the_names_of_networks(runner: TrialRunner):
    winner = Trial(3, {"head.dropout": 0.5}, 4, "COMPLETED", {"val_accuracy": 0.9, "val_loss": 0.2})
    with runner.trainer.tracker.run("search") as run:
        log_winner(winner, runner.network(winner), runner, run)
    found = only_run(runner.trainer.paths.root).data
    assert found.metrics["validation_accuracy"] == 0.9
    assert (found.metrics["validation_loss"], found.metrics["parameters"]) == (0.2, 840_586)
    assert (found.params["pooling"], found.params["dropout"]) == ("max", "0·0.3·0.4·0.5")
    assert found.tags["convpipe.kind"] == "search"
    assert "Winner: trial 3." in found.tags["mlflow.note.content"]
