"""Keras Tuner around our configuration: trials in place of training are functions of their values."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras_tuner
import pandas as pd
import pytest

from pipeline import config, search, space
from pipeline.config import Params, Pruning, Tune
from pipeline.search import Figures, Outcome, Stops, Trial

from .conftest import ROOT, Project

TUNERS = ["random", "bayesian", "hyperband", "grid"]
DROPOUT = {"min": 0.0, "max": 0.5, "step": 0.1}
SPACE = {"blocks": [{"dropout": DROPOUT}, {"dropout": DROPOUT, "pooling": {"kind": ["max", "average"]}}, {}]}
# 9 networks: two windows of max, two windows by two p of lp, two ratios of fractional_max, and none.
NINE = {
    "blocks": [
        {
            "pooling": {
                "kind": ["max", "lp", "fractional_max", "none"],
                "window": [2, 3],
                "p": [2.0, 4.0],
                "ratio": [1.5, 2.0],
            }
        },
        {},
        {},
    ]
}


@pytest.fixture
def params(project: Project) -> Params:
    project.change(tune={"trials": 6, "epochs": 9, "pruning": None, "space": SPACE})
    return config.load(project.paths)


@pytest.fixture
def base(params: Params) -> dict[str, Any]:
    return params.base.model_dump(mode="json")


def with_tuner(params: Params, tuner: Any, **changes: Any) -> Tune:
    return params.tune.model_copy(update={"tuner": tuner} | changes)


def curve(trial: Trial) -> list[Figures]:
    """Least at dropout 0.2 everywhere with average pooling; more epochs are better."""
    dropouts: list[Any] = [value for name, value in trial.values.items() if name.endswith("dropout")]
    average = sum(value == "average" for value in trial.values.values())
    level = 3 * (sum(abs(value - 0.2) for value in dropouts) - 0.1 * average)
    return [
        {"loss": 1.0, "accuracy": 0.5, "val_loss": level + 1 / epoch, "val_accuracy": 1 / (3 + level)}
        for epoch in range(1, trial.epochs + 1)
    ]


def figures(curve: list[Figures]) -> Figures:
    return {name: curve[-1][name] for name in search.FIGURES}


def loss(trial: Trial, stops: Stops) -> Outcome:
    """Run epoch by epoch, as training does."""
    run: list[Figures] = []
    for epoch in curve(trial):
        run.append(epoch)
        if stops(run):
            break
    return Outcome("COMPLETED", figures(run), run)


def never(trial: Trial, stops: Stops) -> Outcome:
    pytest.fail(f"trial {trial.number} was run again")


def values_of_base(params: Params) -> dict[str, Any]:
    return {dimension.name: dimension.default for dimension in params.dimensions}


def test_the_defaults_of_the_space_are_the_base(params: Params, base: dict[str, Any]):
    sampled = search.sample(search.hyperparameters(params.dimensions).values, params.dimensions, base)
    assert space.apply(base, sampled) == base


@pytest.mark.parametrize("tuner", TUNERS)
def test_the_base_is_tried_first_and_nothing_twice(params: Params, base: dict[str, Any], tuner: str, tmp_path: Path):
    trials = search.search(with_tuner(params, tuner), base, 7, tmp_path, loss)
    assert trials[0].values == values_of_base(params)
    assert {trial.status for trial in trials} == {"COMPLETED"}
    assert [trial.number for trial in trials] == list(range(len(trials)))
    tried = [(tuple(trial.values.items()), trial.epochs) for trial in trials]
    assert len(set(tried)) == len(tried)
    if tuner != "hyperband":
        assert len(trials) == 6
        assert {trial.epochs for trial in trials} == {9}
    else:
        assert {trial.epochs for trial in trials} == {1, 3, 9}


@pytest.mark.parametrize("tuner", TUNERS)
def test_the_seed_decides_the_trials(params: Params, base: dict[str, Any], tuner: str, tmp_path: Path):
    tune = with_tuner(params, tuner)
    first, again, other = (
        search.search(tune, base, seed, tmp_path / name, loss)
        for name, seed in {"first": 7, "again": 7, "other": 8}.items()
    )
    assert first == again
    assert (first == other) == (tuner == "grid")


@pytest.mark.parametrize("tuner", ["random", "bayesian", "grid"])
def test_a_space_is_used_up_by_its_networks_and_not_by_their_inactive_values(
    params: Params, base: dict[str, Any], tuner: str, tmp_path: Path
):
    tune = with_tuner(params, tuner, trials=40, space=NINE)
    asked = search.oracle(tune, base, 7, tmp_path)
    search.work(asked, "worker", tune, loss)
    trials = search.trials(asked)
    assert asked.used_up
    assert len(trials) == len({json.dumps(trial.values) for trial in trials}) == 9
    for trial in trials:
        kind: Any = trial.values["blocks.0.pooling.kind"]
        taken = {"max": {"window"}, "lp": {"window", "p"}, "fractional_max": {"ratio"}, "none": set()}[kind]
        assert set(trial.values) == {f"blocks.0.pooling.{key}" for key in {"kind", *taken}}
        config.model_from(space.apply(base, trial.values))


def test_hyperband_goes_on_to_its_longer_rounds_when_no_new_network_is_left(
    params: Params, base: dict[str, Any], tmp_path: Path
):
    few = {"head": {"pooling": ["flatten", "global_average", "global_max"], "batch_norm": [True, False]}}
    tune = with_tuner(params, "hyperband", space=few)
    asked = search.oracle(tune, base, 7, tmp_path)
    search.work(asked, "worker", tune, loss)
    trials = search.trials(asked)
    assert asked.used_up
    assert [trial.epochs for trial in trials] == [1] * 6 + [3, 3, 9]
    assert len({json.dumps(trial.values) for trial in trials[:6]}) == 6


def test_every_trial_is_a_network_that_can_be_written_down(params: Params, base: dict[str, Any], tmp_path: Path):
    for trial in search.search(with_tuner(params, "random"), base, 7, tmp_path, loss):
        network = config.model_from(space.apply(base, trial.values))
        assert all(str(block.dropout) == f"{block.dropout:.1f}" for block in network.blocks)


def test_failed_trials_are_kept_with_their_errors_and_the_search_goes_on(
    params: Params, base: dict[str, Any], tmp_path: Path
):
    def sometimes(trial: Trial, stops: Stops) -> Outcome:
        bad = trial.number in (1, 2, 3)
        return Outcome("FAILED", {}, [], "MemoryError: no memory") if bad else loss(trial, stops)

    for tuner in ("random", "bayesian"):
        trials = search.search(with_tuner(params, tuner), base, 7, tmp_path / tuner, sometimes)
        assert [trial.status for trial in trials] == ["COMPLETED", *["FAILED"] * 3, *["COMPLETED"] * 2]
        assert trials[1].error == "MemoryError: no memory"
        assert not {1, 2, 3} & {trial.number for trial in search.ranked(trials, "val_loss")}
        table = search.trial_table(trials, params.dimensions)
        assert table["val_loss"].isna().tolist() == [False, *[True] * 3, *[False] * 2]


def test_an_error_of_the_program_itself_ends_the_search(params: Params, base: dict[str, Any], tmp_path: Path):
    def broken(trial: Trial, stops: Stops) -> Outcome:
        raise TypeError("a mistake")

    with pytest.raises(TypeError, match="a mistake"):
        search.search(with_tuner(params, "random"), base, 7, tmp_path, broken)


def ended(number: int, status: str = "COMPLETED", values: dict[str, Any] | None = None, **figures: float) -> Trial:
    return Trial(number, values or {"n": number}, 1, status, figures, [])


def test_the_lower_loss_or_the_higher_accuracy_is_better_and_the_first_of_equals():
    trials = [
        ended(number, val_loss=loss, val_accuracy=accuracy)
        for number, (loss, accuracy) in enumerate([(0.3, 0.8), (0.1, 0.7), (0.1, 0.9), (0.2, 0.9)])
    ]
    assert [trial.number for trial in search.ranked(trials, "val_loss")] == [1, 2, 3, 0]
    assert [trial.number for trial in search.ranked(trials, "val_accuracy")] == [2, 3, 0, 1]


def test_a_network_that_was_tried_for_longer_is_ranked_once_and_a_pruned_one_not_at_all():
    trials = [
        ended(0, values={"a": 1}, val_loss=0.3),
        ended(1, values={"a": 2}, val_loss=0.1, status="PRUNED"),
        ended(2, values={"a": 1}, val_loss=0.2),
    ]
    assert [trial.number for trial in search.ranked(trials, "val_loss")] == [2]


RULE = Pruning(min_trials=2, min_epochs=1)


def test_hopeless_trials_are_pruned_and_never_the_base(params: Params, base: dict[str, Any], tmp_path: Path):
    for tuner in ("random", "grid"):
        tune = with_tuner(params, tuner, pruning=RULE, trials=16)
        trials = search.search(tune, base, 7, tmp_path / tuner, loss)
        pruned = [trial for trial in trials if trial.status == "PRUNED"]
        assert pruned
        assert trials[0].status == "COMPLETED"
        assert all(len(trial.curve) < 9 for trial in pruned)
        assert all(trial.figures == figures(trial.curve) for trial in pruned)
        assert not {t.number for t in pruned} & {t.number for t in search.ranked(trials, "val_loss")}
        whole = search.search(tune.model_copy(update={"pruning": None}), base, 7, tmp_path / f"{tuner} whole", loss)
        if tuner == "random":
            assert search.ranked(trials, "val_loss")[0].number == search.ranked(whole, "val_loss")[0].number


def test_hyperband_is_not_pruned_a_second_time(params: Params, base: dict[str, Any], tmp_path: Path):
    trials = search.search(with_tuner(params, "hyperband", pruning=RULE), base, 7, tmp_path, loss)
    assert {trial.status for trial in trials} == {"COMPLETED"}


def test_pruning_is_the_same_for_trials_that_ran_side_by_side(params: Params, base: dict[str, Any], tmp_path: Path):
    """Two at a time, the later one of which ends first and so knows nothing of the other."""
    tune = with_tuner(params, "random", pruning=RULE, trials=16)
    alone = search.search(tune, base, 7, tmp_path / "alone", loss)
    asked = search.oracle(tune, base, 7, tmp_path / "pairs")
    for _ in range(8):
        pair = [(name, asked.create_trial(name)) for name in ("one", "other")]
        for _name, offer in reversed(pair):
            trial = Trial(**json.loads(offer.hyperparameters.values[search.JOB]))
            outcome = loss(trial, search._Stopping(asked, offer.trial_id, tune))
            offer.hyperparameters.values[search.OUTCOME] = json.dumps(vars(outcome))
            offer.status = outcome.status
            asked.end_trial(offer)
    assert [replace(trial, note=None) for trial in search.trials(asked)] == alone


def test_the_best_epoch_counts_where_that_is_asked_for(params: Params, base: dict[str, Any], tmp_path: Path):
    tune = with_tuner(params, "random", pruning=RULE, score="best", objective="val_accuracy")

    def falling(trial: Trial, stops: Stops) -> Outcome:
        run: list[Figures] = []
        for epoch in range(9):
            level = 0.9 if trial.number < 2 else 0.5
            run.append({"loss": 1.0, "accuracy": 0.5, "val_loss": 1.0, "val_accuracy": level - 0.01 * epoch})
            if stops(run):
                break
        return Outcome("COMPLETED", figures(run), run)

    trials = search.search(tune, base, 7, tmp_path, falling)
    assert [(trial.status, trial.figures["val_accuracy"]) for trial in trials[2:]] == [("PRUNED", 0.5)] * 4


KILLED = """
import os, sys
from pathlib import Path
from pipeline import config, search
from pipeline.config import Pruning
from pipeline.paths import Paths
from tests.test_search import RULE, loss

params = config.load(Paths(Path(sys.argv[1])))
tune = params.tune.model_copy(update={"tuner": sys.argv[2], "pruning": RULE})

def run(trial, stops):
    if trial.number == 3:
        os.kill(os.getpid(), 9)
    return loss(trial, stops)

search.search(tune, params.base.model_dump(mode="json"), 7, Path(sys.argv[3]), run)
"""


@pytest.mark.parametrize("tuner", TUNERS)
def test_a_killed_search_goes_on_and_ends_as_if_it_had_not_been_killed(
    params: Params, base: dict[str, Any], project: Project, tuner: str, tmp_path: Path
):
    folder = tmp_path / "search" / "killed"
    command = [sys.executable, "-c", KILLED, str(project.root), tuner, str(folder)]
    assert subprocess.run(command, cwd=ROOT, capture_output=True).returncode == -9
    run: list[int] = []

    def counted(trial: Trial, stops: Stops) -> Outcome:
        run.append(trial.number)
        return loss(trial, stops)

    tune = with_tuner(params, tuner, pruning=RULE)
    resumed = search.search(tune, base, 7, folder, counted)
    assert resumed == search.search(tune, base, 7, tmp_path / "search" / "whole", loss)
    assert run == list(range(3, len(resumed)))
    assert search.search(tune, base, 7, folder, never) == resumed


def test_values_of_several_types_survive_keras_tuner(params: Params, base: dict[str, Any], tmp_path: Path):
    mixed = {"blocks": {"pooling": {"stride": [None, 1, 2]}}, "head": {"dense": [[512], [], [64, 64]]}}
    tune = with_tuner(params, "random", space=mixed)
    trials = search.search(tune, base, 7, tmp_path, loss)
    assert trials[0].values["blocks.0.pooling.stride"] is None
    for trial in trials:
        config.model_from(space.apply(base, trial.values))
    assert {str(trial.values["head.dense"]) for trial in trials} >= {"[512]", "[]"}
    table = search.trial_table(trials, space.dimensions(mixed, base))
    assert set(table["head.dense"]) >= {"[512]", "[]"}


def test_tables_have_a_row_for_each_trial_and_each_epoch(params: Params, base: dict[str, Any], tmp_path: Path):
    tune = with_tuner(params, "grid", trials=9, space=NINE)
    trials = search.search(tune, base, 7, tmp_path, loss)
    search.trial_table(trials, space.dimensions(NINE, base)).to_csv(tmp_path / "trials.csv", index=False)
    rows = (tmp_path / "trials.csv").read_text(encoding="utf-8").splitlines()
    assert rows[0].endswith("blocks.0.pooling.kind,blocks.0.pooling.window,blocks.0.pooling.p,blocks.0.pooling.ratio")
    assert sorted(row.split(",", 5)[5] for row in rows[1:]) == [
        "fractional_max,,,1.5",
        "fractional_max,,,2.0",
        *[f"lp,{window},{p}," for window in (2, 3) for p in (2.0, 4.0)],
        "max,2,,",
        "max,3,,",
        "none,,,",
    ]
    curves = search.curve_table(trials)
    assert list(curves.columns) == ["trial", "epoch", "loss", "accuracy", "val_loss", "val_accuracy"]
    assert curves.groupby("trial")["epoch"].agg(list).tolist() == [list(range(1, 10))] * 9
    assert pd.api.types.is_integer_dtype(curves["epoch"])


def test_training_settings_are_searched(params: Params, base: dict[str, Any], tmp_path: Path):
    fit = {"learning_rate": {"min": 1e-4, "max": 1e-2, "log": True}, "augmentation": {"shift": [0.0, 0.1]}}
    tune = with_tuner(params, "random", space={"fit": fit, "blocks": {"filters": [[32], [64], [128, 128]]}})
    networks = [
        config.model_from(space.apply(base, trial.values)) for trial in search.search(tune, base, 7, tmp_path, loss)
    ]
    assert len({network.fit.learning_rate for network in networks}) == 6
    assert {network.fit.augmentation.shift for network in networks} == {0.0, 0.1}


def test_ranges_become_the_kinds_that_keras_tuner_has(base: dict[str, Any]):
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
