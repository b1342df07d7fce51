"""Searches with Keras Tuner, with functions of the values in place of training."""

import asyncio
import json
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import keras_tuner
import numpy as np
import pandas as pd
import pytest

from pipeline.core import config, search_space
from pipeline.core.config import Params
from pipeline.core.sections import Pruning, Tune
from pipeline.engine import engine
from pipeline.tune.oracles import hyperparameters, sample
from pipeline.tune.search import RunTrial, Search, ShouldStop
from pipeline.tune.trial import METRICS, Metrics, Outcome, Trial, curve_table, ranked, trial_table

from .conftest import ROOT, Project, copy_project

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


CHANGES = {"tune": {"trials": 6, "epochs": 9, "pruning": None, "space": SPACE}}


@pytest.fixture
def params(project: Project) -> Params:
    project.change(**CHANGES)
    return config.load(project.paths)


@pytest.fixture
def base(params: Params) -> dict[str, Any]:
    return params.base.model_dump(mode="json")


def with_tuner(params: Params, tuner: Any, **changes: Any) -> Tune:
    return params.search.model_copy(update={"tuner": tuner} | changes)


def curve(trial: Trial) -> list[Metrics]:
    """Lowest at dropout 0.2 everywhere with average pooling; more epochs are better."""
    dropouts: list[Any] = [value for name, value in trial.values.items() if name.endswith("dropout")]
    average = sum(value == "average" for value in trial.values.values())
    level = 3 * (sum(abs(value - 0.2) for value in dropouts) - 0.1 * average)
    return [
        {"loss": 1.0, "accuracy": 0.5, "val_loss": level + 1 / epoch, "val_accuracy": 1 / (3 + level)}
        for epoch in range(1, trial.epochs + 1)
    ]


def last(curve: list[Metrics]) -> Metrics:
    return {name: curve[-1][name] for name in METRICS}


def run_epochs(epochs: list[Metrics], should_stop: ShouldStop) -> Outcome:
    """Run epoch by epoch, as training does."""
    run: list[Metrics] = []
    for epoch in epochs:
        run.append(epoch)
        if should_stop(run):
            return Outcome("PRUNED", {}, run)
    return Outcome("COMPLETED", last(run), run)


async def loss(trial: Trial, should_stop: ShouldStop) -> Outcome:
    return run_epochs(curve(trial), should_stop)


def searched(tune: Tune, base: dict[str, Any], seed: int, folder: Path, run: RunTrial) -> list[Trial]:
    """The trials of a search, or of the rest of one that was interrupted."""
    return engine.complete(Search(tune, base, seed, folder).run(run))


async def never(trial: Trial, should_stop: ShouldStop) -> Outcome:
    pytest.fail(f"trial {trial.number} was run again")


def values_of_base(params: Params) -> dict[str, Any]:
    return {dimension.name: dimension.default for dimension in params.dimensions}


def test_the_defaults_of_the_space_are_the_base(params: Params, base: dict[str, Any]):
    sampled = sample(hyperparameters(params.dimensions).values, params.dimensions, base)
    assert search_space.apply(base, sampled) == base


STEPS = [(0.1, [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]), (0.05, [n / 20 for n in range(11)])]


@pytest.mark.parametrize(("step", "levels"), STEPS)
def test_a_range_with_a_step_has_all_its_levels(
    params: Params, base: dict[str, Any], step: float, levels: list[float], tmp_path: Path
):
    space = {"blocks": [{}, {"dropout": {"min": 0, "max": 0.5, "step": step}}, {}]}
    [dimension] = dimensions = search_space.dimensions(space, base)
    hp = hyperparameters(dimensions)
    draws = np.random.default_rng(3)
    drawn = Counter(hp.space[0].random_sample(int(draws.integers(2**31))) for _ in range(3000))
    named = [sample({dimension.name: value}, dimensions, base)[dimension.name] for value in sorted(drawn)]
    assert named == levels
    assert min(drawn.values()) > 0.7 * 3000 / len(levels)
    for tuner in ("random", "bayesian", "grid") if step == 0.1 else ("random", "grid"):
        tune = with_tuner(params, tuner, trials=100, space=space)
        tried: list[Any] = [trial.values[dimension.name] for trial in searched(tune, base, 7, tmp_path / tuner, loss)]
        assert tried[0] == 0.3
        assert sorted(tried) == levels


def test_bayesian_search_tells_all_levels_apart(base: dict[str, Any]):
    space = {"head": {"dropout": {"min": 0.0, "max": 0.5, "step": 0.05}}}
    [parameter] = hyperparameters(search_space.dimensions(space, base)).space
    places = [parameter.value_to_prob(index) for index in range(11)]
    assert len(set(places)) == 11
    assert [parameter.prob_to_value(place) for place in places] == list(range(11))


def test_values_far_below_one_are_not_rounded_away(params: Params, base: dict[str, Any], tmp_path: Path):
    space = {"fit": {"learning_rate": {"min": 1e-16, "max": 1e-3, "log": True}}}
    trials = searched(with_tuner(params, "random", space=space), base, 7, tmp_path, loss)
    rates: list[Any] = [trial.values["fit.learning_rate"] for trial in trials]
    assert min(rates) >= 1e-16


@pytest.mark.parametrize("tuner", TUNERS)
def test_the_base_is_tried_first_and_no_network_twice(params: Params, base: dict[str, Any], tuner: str, tmp_path: Path):
    trials = searched(with_tuner(params, tuner), base, 7, tmp_path, loss)
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


def test_hyperband_has_the_sizes_of_its_documentation(params: Params, base: dict[str, Any], tmp_path: Path):
    trials = searched(with_tuner(params, "hyperband", epochs=8), base, 7, tmp_path, loss)
    networks = Counter(json.dumps(trial.values) for trial in trials)
    assert Counter(trial.epochs for trial in trials) == {3: 5, 8: 5}
    assert sorted(networks.values()) == [1] * 6 + [2] * 2  # two are continued


@pytest.mark.parametrize("tuner", TUNERS)
def test_the_seed_determines_the_trials(params: Params, base: dict[str, Any], tuner: str, tmp_path: Path):
    tune = with_tuner(params, tuner)
    first, again, other = (
        searched(tune, base, seed, tmp_path / name, loss) for name, seed in {"first": 7, "again": 7, "other": 8}.items()
    )
    assert first == again
    assert (first == other) == (tuner == "grid")


@pytest.mark.parametrize("tuner", ["random", "bayesian", "grid"])
def test_inactive_values_make_no_further_networks(params: Params, base: dict[str, Any], tuner: str, tmp_path: Path):
    tune = with_tuner(params, tuner, trials=40, space=NINE)
    search = Search(tune, base, 7, tmp_path)
    trials = engine.complete(search.run(loss))
    assert search.oracle.used_up
    assert len(trials) == len({json.dumps(trial.values) for trial in trials}) == 9
    for trial in trials:
        kind: Any = trial.values["blocks.0.pooling.kind"]
        taken = {"max": {"window"}, "lp": {"window", "p"}, "fractional_max": {"ratio"}, "none": set()}[kind]
        assert set(trial.values) == {f"blocks.0.pooling.{key}" for key in {"kind", *taken}}
        config.network_from(search_space.apply(base, trial.values))


def test_hyperband_runs_its_longer_rounds_when_the_space_is_exhausted(
    params: Params, base: dict[str, Any], tmp_path: Path
):
    few = {"head": {"pooling": ["flatten", "global_average", "global_max"], "batch_norm": [True, False]}}
    tune = with_tuner(params, "hyperband", space=few)
    search = Search(tune, base, 7, tmp_path)
    trials = engine.complete(search.run(loss))
    assert search.oracle.used_up
    assert [trial.epochs for trial in trials] == [1] * 6 + [3, 3, 9]
    assert len({json.dumps(trial.values) for trial in trials[:6]}) == 6


def test_every_trial_is_a_valid_network_with_short_decimals(params: Params, base: dict[str, Any], tmp_path: Path):
    for trial in searched(with_tuner(params, "random"), base, 7, tmp_path, loss):
        network: Any = config.network_from(search_space.apply(base, trial.values))
        assert all(str(block.dropout) == f"{block.dropout:.1f}" for block in network.blocks)


def test_failed_trials_are_recorded_and_the_search_continues(params: Params, base: dict[str, Any], tmp_path: Path):
    async def sometimes(trial: Trial, should_stop: ShouldStop) -> Outcome:
        bad = trial.number in (1, 2, 3)
        return Outcome("FAILED", {}, [], "MemoryError: no memory") if bad else await loss(trial, should_stop)

    for tuner in ("random", "bayesian"):
        trials = searched(with_tuner(params, tuner), base, 7, tmp_path / tuner, sometimes)
        assert [trial.status for trial in trials] == ["COMPLETED", *["FAILED"] * 3, *["COMPLETED"] * 2]
        assert trials[1].error == "MemoryError: no memory"
        assert not {1, 2, 3} & {trial.number for trial in ranked(trials, "val_loss")}
        table = trial_table(trials, params.dimensions)
        assert table["val_loss"].isna().tolist() == [False, *[True] * 3, *[False] * 2]


def test_a_programming_error_ends_the_search(params: Params, base: dict[str, Any], tmp_path: Path):
    async def broken(trial: Trial, should_stop: ShouldStop) -> Outcome:
        raise TypeError("a mistake")

    with pytest.raises(TypeError, match="a mistake"):
        searched(with_tuner(params, "random"), base, 7, tmp_path, broken)


def ended(number: int, status: str = "COMPLETED", values: dict[str, Any] | None = None, **metrics: float) -> Trial:
    return Trial(number, values or {"n": number}, 1, status, metrics, [])


def test_lower_loss_or_higher_accuracy_ranks_first_and_ties_by_number():
    trials = [
        ended(number, val_loss=loss, val_accuracy=accuracy)
        for number, (loss, accuracy) in enumerate([(0.3, 0.8), (0.1, 0.7), (0.1, 0.9), (0.2, 0.9)])
    ]
    assert [trial.number for trial in ranked(trials, "val_loss")] == [1, 2, 3, 0]
    assert [trial.number for trial in ranked(trials, "val_accuracy")] == [2, 3, 0, 1]


def test_each_network_is_ranked_once_and_pruned_trials_are_not_ranked():
    trials = [
        ended(0, values={"a": 1}, val_loss=0.3),
        ended(1, values={"a": 2}, val_loss=0.1, status="PRUNED"),
        ended(2, values={"a": 1}, val_loss=0.2),
    ]
    assert [trial.number for trial in ranked(trials, "val_loss")] == [2]


RULE = Pruning(min_trials=2, min_epochs=1)


def test_bad_trials_are_pruned_but_never_the_base(params: Params, base: dict[str, Any], tmp_path: Path):
    for tuner in ("random", "grid"):
        tune = with_tuner(params, tuner, pruning=RULE, trials=16)
        trials = searched(tune, base, 7, tmp_path / tuner, loss)
        pruned = [trial for trial in trials if trial.status == "PRUNED"]
        assert pruned
        assert trials[0].status == "COMPLETED"
        assert all(len(trial.curve) < 9 for trial in pruned)
        assert all(trial.metrics == last(trial.curve) for trial in pruned)
        assert not {t.number for t in pruned} & {t.number for t in ranked(trials, "val_loss")}
        whole = searched(tune.model_copy(update={"pruning": None}), base, 7, tmp_path / f"{tuner} whole", loss)
        if tuner == "random":
            assert ranked(trials, "val_loss")[0].number == ranked(whole, "val_loss")[0].number


def test_hyperband_is_not_pruned(params: Params, base: dict[str, Any], tmp_path: Path):
    trials = searched(with_tuner(params, "hyperband", pruning=RULE), base, 7, tmp_path, loss)
    assert {trial.status for trial in trials} == {"COMPLETED"}


@pytest.mark.parametrize("tuner", TUNERS)
def test_the_result_does_not_depend_on_which_trial_ends_first(
    params: Params, base: dict[str, Any], tuner: str, tmp_path: Path
):
    """Two trials at a time, of which each ends when a random number of steps of the other one are over."""
    trials = 10 if tuner == "bayesian" else 16  # it takes long for each
    tune = with_tuner(params, tuner, pruning=RULE, trials=trials, concurrent_trials=3)
    results = []
    for seed in range(4):
        slots, draws = asyncio.Semaphore(2), np.random.default_rng(seed)

        async def late(trial: Trial, should_stop: ShouldStop, slots: Any = slots, draws: Any = draws) -> Outcome:
            async with slots:
                run: list[Metrics] = []
                for epoch in curve(trial):
                    for _ in range(int(draws.integers(9))):
                        await asyncio.sleep(0)
                    run.append(epoch)
                    if should_stop(run):
                        return Outcome("PRUNED", {}, run)
                return Outcome("COMPLETED", last(run), run)

        results.append(searched(tune, base, 7, tmp_path / str(seed), late))
    alone = searched(tune, base, 7, tmp_path / "alone", loss)
    assert results == [alone] * 4
    if tuner in ("random", "grid"):
        assert {trial.status for trial in alone} == {"COMPLETED", "PRUNED"}


def test_score_best_takes_the_best_epoch(params: Params, base: dict[str, Any], tmp_path: Path):
    tune = with_tuner(params, "random", pruning=RULE, score="best", objective="val_accuracy")

    async def falling(trial: Trial, should_stop: ShouldStop) -> Outcome:
        level = 0.9 if trial.number < 2 else 0.5
        accuracies = [level - 0.01 * epoch for epoch in range(9)]
        return run_epochs(
            [{"loss": 1.0, "accuracy": 0.5, "val_loss": 1.0, "val_accuracy": value} for value in accuracies],
            should_stop,
        )

    trials = searched(tune, base, 7, tmp_path, falling)
    assert [(trial.status, trial.metrics["val_accuracy"]) for trial in trials[2:]] == [("PRUNED", 0.5)] * 4


KILLED = """
import os, sys
from pathlib import Path
from pipeline.core import config
from pipeline.core.paths import Paths
from tests.test_search import RULE, TUNERS, loss, searched

params = config.load(Paths(Path(sys.argv[1])))

async def run(trial, should_stop):
    if trial.number == 3:
        os.kill(os.getpid(), 9)
    return await loss(trial, should_stop)

for tuner in TUNERS:
    if not (child := os.fork()):
        tune = params.search.model_copy(update={"tuner": tuner, "pruning": RULE})
        searched(tune, params.base.model_dump(mode="json"), 7, Path(sys.argv[2]) / tuner, run)
    print(os.waitpid(child, 0)[1])
"""


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folders of searches of which each was killed in a process of its own; not to be changed."""
    folder = tmp_path_factory.mktemp("killed")
    project = copy_project(folder / "project")
    project.change(**CHANGES)
    command = [sys.executable, "-c", KILLED, str(project.root), str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.split() == [str(int(signal.SIGKILL))] * len(TUNERS), done.stderr
    return folder


@pytest.mark.parametrize("tuner", TUNERS)
def test_a_killed_search_resumes_with_the_same_result(
    params: Params, base: dict[str, Any], killed: Path, tuner: str, tmp_path: Path
):
    folder = tmp_path / "search" / "killed"
    shutil.copytree(killed / tuner, folder)
    run: list[int] = []

    async def counted(trial: Trial, should_stop: ShouldStop) -> Outcome:
        run.append(trial.number)
        return await loss(trial, should_stop)

    tune = with_tuner(params, tuner, pruning=RULE)
    resumed = searched(tune, base, 7, folder, counted)
    assert resumed == searched(tune, base, 7, tmp_path / "search" / "whole", loss)
    assert run == list(range(3, len(resumed)))
    assert searched(tune, base, 7, folder, never) == resumed


def test_values_of_mixed_types_survive_keras_tuner(params: Params, base: dict[str, Any], tmp_path: Path):
    mixed = {"blocks": {"pooling": {"stride": [None, 1, 2]}}, "head": {"dense": [[512], [], [64, 64]]}}
    tune = with_tuner(params, "random", space=mixed)
    trials = searched(tune, base, 7, tmp_path, loss)
    assert trials[0].values["blocks.0.pooling.stride"] is None
    for trial in trials:
        config.network_from(search_space.apply(base, trial.values))
    assert {str(trial.values["head.dense"]) for trial in trials} >= {"[512]", "[]"}
    table = trial_table(trials, search_space.dimensions(mixed, base))
    assert set(table["head.dense"]) >= {"[512]", "[]"}


def test_tables_have_a_row_per_trial_and_per_epoch(params: Params, base: dict[str, Any], tmp_path: Path):
    tune = with_tuner(params, "grid", trials=9, space=NINE)
    trials = searched(tune, base, 7, tmp_path, loss)
    trial_table(trials, search_space.dimensions(NINE, base)).to_csv(tmp_path / "trials.csv", index=False)
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
    curves = curve_table(trials)
    assert list(curves.columns) == ["trial", "epoch", "loss", "accuracy", "val_loss", "val_accuracy"]
    assert curves.groupby("trial")["epoch"].agg(list).tolist() == [list(range(1, 10))] * 9
    assert pd.api.types.is_integer_dtype(curves["epoch"])


def test_training_settings_are_searched(params: Params, base: dict[str, Any], tmp_path: Path):
    fit = {"learning_rate": {"min": 1e-4, "max": 1e-2, "log": True}, "augmentation": {"shift": [0.0, 0.1]}}
    tune = with_tuner(params, "random", space={"fit": fit, "blocks": {"filters": [[32], [64], [128, 128]]}})
    networks = [
        config.network_from(search_space.apply(base, trial.values)) for trial in searched(tune, base, 7, tmp_path, loss)
    ]
    assert len({network.fit.learning_rate for network in networks}) == 6
    assert {network.fit.augmentation.shift for network in networks} == {0.0, 0.1}


def test_booleans_stay_booleans(params: Params, base: dict[str, Any], tmp_path: Path):
    space = {"blocks": {"batch_norm": [False, True]}}
    trials = searched(with_tuner(params, "grid", trials=8, space=space), base, 7, tmp_path, loss)
    assert len(trials) == 8
    assert trials[0].values == values_of_base(
        params.model_copy(update={"tune": with_tuner(params, "grid", space=space)})
    )
    for trial in trials:
        config.network_from(search_space.apply(base, trial.values))


def test_dimensions_become_keras_tuner_hyperparameters(base: dict[str, Any]):
    hp = hyperparameters(
        search_space.dimensions(
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
