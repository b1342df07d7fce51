"""Keras Tuner around our configuration: trials in place of training are functions of their values."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import keras_tuner
import pytest

from pipeline import config, search, space
from pipeline.config import Params, Tune

from .conftest import ROOT, Project

TUNERS = ["random", "bayesian", "hyperband", "grid"]


@pytest.fixture
def params(project: Project) -> Params:
    project.change(tune={"trials": 8, "epochs": 9})
    return config.load(project.paths)


def with_tuner(params: Params, tuner: Any, **changes: Any) -> Tune:
    return params.tune.model_copy(update={"tuner": tuner} | changes)


def loss(trial: search.Trial) -> search.Figures:
    """Least at dropout 0.2 everywhere with average pooling; more epochs are better."""
    dropouts: list[Any] = [value for name, value in trial.values.items() if name.endswith("dropout")]
    average = sum(value == "average" for value in trial.values.values())
    return {"val_loss": sum(abs(value - 0.2) for value in dropouts) - 0.1 * average + 1 / trial.epochs}


def values_of_base(params: Params) -> dict[str, Any]:
    return {dimension.name: dimension.default for dimension in params.dimensions}


def test_the_defaults_of_the_space_are_the_base(params: Params):
    base = params.base.model_dump(mode="json")
    sampled = search.sample(search.hyperparameters(params.dimensions), params.dimensions)
    assert space.apply(base, sampled) == base


@pytest.mark.parametrize("tuner", TUNERS)
def test_the_base_is_tried_first_and_nothing_twice(params: Params, tuner: str, tmp_path: Path):
    trials = search.search(with_tuner(params, tuner), params.dimensions, 7, tmp_path / "s", loss)
    assert trials[0].values == values_of_base(params)
    assert {trial.status for trial in trials} == {"COMPLETED"}
    assert [trial.number for trial in trials] == list(range(len(trials)))
    tried = [(tuple(trial.values.items()), trial.epochs) for trial in trials]
    assert len(set(tried)) == len(tried)
    if tuner != "hyperband":
        assert len(trials) == 8
        assert {trial.epochs for trial in trials} == {9}
    else:
        assert {trial.epochs for trial in trials} == {1, 3, 9}


@pytest.mark.parametrize("tuner", TUNERS)
def test_the_seed_decides_the_trials(params: Params, tuner: str, tmp_path: Path):
    tune = with_tuner(params, tuner)
    first, again, other = (
        search.search(tune, params.dimensions, seed, tmp_path / name, loss)
        for name, seed in {"first": 7, "again": 7, "other": 8}.items()
    )
    assert first == again
    assert (first == other) == (tuner == "grid")


def test_every_trial_is_a_network_that_can_be_written_down(params: Params, tmp_path: Path):
    base = params.base.model_dump(mode="json")
    for trial in search.search(with_tuner(params, "random"), params.dimensions, 7, tmp_path / "s", loss):
        network = config.model_from(space.apply(base, trial.values))
        assert all(str(block.dropout) == f"{block.dropout:.1f}" for block in network.blocks)


def test_a_failed_trial_is_kept_with_its_error_and_the_search_goes_on(params: Params, tmp_path: Path):
    def sometimes(trial: search.Trial) -> search.Figures:
        if trial.number == 1:
            raise MemoryError("out of memory")
        return loss(trial)

    trials = search.search(with_tuner(params, "random"), params.dimensions, 7, tmp_path / "s", sometimes)
    assert [trial.status for trial in trials] == ["COMPLETED", "FAILED", *["COMPLETED"] * 6]
    assert "out of memory" in str(trials[1].error)
    assert search.best(trials, "val_loss").number != 1


def test_best_takes_the_lower_loss_or_the_higher_accuracy_and_the_first_of_equals():
    trials = [
        search.Trial(number, "COMPLETED", {}, 1, {"val_loss": loss, "val_accuracy": accuracy}, None)
        for number, (loss, accuracy) in enumerate([(0.3, 0.8), (0.1, 0.7), (0.1, 0.9), (0.2, 0.9)])
    ]
    assert search.best(trials, "val_loss").number == 1
    assert search.best(trials, "val_accuracy").number == 2


KILLED = """
import os, sys
from pathlib import Path
from pipeline import config, search
from pipeline.paths import Paths
from tests.test_search import loss

params = config.load(Paths(Path(sys.argv[1])))
tune = params.tune.model_copy(update={"tuner": sys.argv[2]})

def run(trial):
    if trial.number == 3:
        os.kill(os.getpid(), 9)
    return loss(trial)

search.search(tune, params.dimensions, 7, Path(sys.argv[3]), run)
"""


@pytest.mark.parametrize("tuner", TUNERS)
def test_a_killed_search_goes_on_and_ends_as_if_it_had_not_been_killed(
    params: Params, project: Project, tuner: str, tmp_path: Path
):
    folder = tmp_path / "search" / "killed"
    command = [sys.executable, "-c", KILLED, str(project.root), tuner, str(folder)]
    assert subprocess.run(command, cwd=ROOT, capture_output=True).returncode == -9
    run: list[int] = []

    def counted(trial: search.Trial) -> search.Figures:
        run.append(trial.number)
        return loss(trial)

    tune = with_tuner(params, tuner)
    resumed = search.search(tune, params.dimensions, 7, folder, counted)
    whole = search.search(tune, params.dimensions, 7, tmp_path / "search" / "whole", loss)
    assert {t.number: (t.values, t.figures, t.status) for t in resumed} == {
        t.number: (t.values, t.figures, t.status) for t in whole
    }
    # The grid alone begins again: Keras Tuner cannot reload it.
    assert run[0] == (0 if tuner == "grid" else 3)


@pytest.mark.parametrize("damaged", ["oracle.json", "trial_2/trial.json"])
def test_a_search_that_was_killed_while_it_wrote_begins_anew(params: Params, tmp_path: Path, damaged: str, capsys):
    tune = with_tuner(params, "random")
    first = search.search(tune, params.dimensions, 7, tmp_path / "s", loss)
    state = tmp_path / "s" / damaged
    state.write_text(state.read_text(encoding="utf-8")[:40], encoding="utf-8")
    assert search.search(tune, params.dimensions, 7, tmp_path / "s", loss) == first
    assert "cannot be taken up again" in capsys.readouterr().out


def test_values_of_several_types_survive_keras_tuner(params: Params, tmp_path: Path):
    base = params.base.model_dump(mode="json")
    mixed = {"blocks": {"pooling": {"stride": [None, 1, 2]}}, "head": {"dense": [[512], [], [64, 64]]}}
    found = space.dimensions(mixed, base)
    trials = search.search(with_tuner(params, "random"), found, 7, tmp_path / "s", lambda trial: {"val_loss": 1.0})
    assert trials[0].values["blocks.0.pooling.stride"] is None
    for trial in trials:
        config.model_from(space.apply(base, trial.values))
    assert {str(trial.values["head.dense"]) for trial in trials} >= {"[512]", "[]"}


def test_ranges_become_the_kinds_that_keras_tuner_has(params: Params):
    base = params.base.model_dump(mode="json")
    hp = search.hyperparameters(
        space.dimensions(
            {
                "blocks": [{"filters": [[32], [64]], "kernel_size": {"min": 1, "max": 5, "step": 2}}, {}, {}],
                "fit": {"learning_rate": {"min": 1e-4, "max": 1e-2, "log": True}},
            },
            base,
        )
    )
    kinds = {parameter.name: type(parameter).__name__ for parameter in hp.space}
    assert kinds == {"blocks.0.filters": "Choice", "blocks.0.kernel_size": "Int", "fit.learning_rate": "Float"}
    assert isinstance(hp, keras_tuner.HyperParameters)
