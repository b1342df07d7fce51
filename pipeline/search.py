"""Keras Tuner over the dimensions of a search space: the oracles, and one search that can be taken up again."""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras_tuner
import pandas as pd
from keras_tuner import oracles
from keras_tuner.engine.base_tuner import BaseTuner

from pipeline.config import Tune
from pipeline.space import Choice, Dimension, Value

DIRECTIONS = {"val_loss": "min", "val_accuracy": "max"}

Figures = dict[str, float]


@dataclass(frozen=True)
class Trial:
    """One trial: its place in the search, what it tried, for how many epochs, and what came of it."""

    number: int
    status: str
    values: dict[str, Value]
    epochs: int
    figures: Figures
    error: str | None


def hyperparameters(dimensions: list[Dimension]) -> keras_tuner.HyperParameters:
    """The dimensions as Keras Tuner knows them; the default of each is the base network's own value."""
    hp = keras_tuner.HyperParameters()
    for dimension in dimensions:
        if isinstance(dimension, Choice):
            hp.Choice(dimension.name, [_encoded(dimension, v) for v in dimension.values], default=_default(dimension))
        else:
            kind = hp.Int if dimension.integer else hp.Float
            kind(
                dimension.name,
                min_value=dimension.low,
                max_value=dimension.high,
                step=dimension.step or (1 if dimension.integer and not dimension.log else None),
                sampling="log" if dimension.log else "linear",
                default=dimension.default,
            )
    return hp


def sample(hp: keras_tuner.HyperParameters, dimensions: list[Dimension]) -> dict[str, Value]:
    """The values of a trial by dimension, as `space.apply` takes them."""
    return {dimension.name: _decoded(dimension, hp.get(dimension.name)) for dimension in dimensions}


def _base_first(oracle: Any) -> Any:
    """A kind of oracle that tries the base network's own values before any others; the grid does so by itself."""

    class BaseFirst(oracle):
        def _random_values(self) -> Mapping[str, Any] | None:
            if self.trials:
                return super()._random_values()
            return dict(keras_tuner.HyperParameters.from_config(self.hyperparameters.get_config()).values)

    return BaseFirst


class _Search(BaseTuner):
    """Runs each trial by a function of its values, its epochs and its number."""

    def __init__(
        self, oracle: keras_tuner.Oracle, dimensions: list[Dimension], tune: Tune, run: "RunTrial", folder: Path
    ) -> None:
        super().__init__(oracle, directory=str(folder.parent), project_name=folder.name)
        self._dimensions = dimensions
        self._epochs = tune.epochs
        self._run = run

    def run_trial(self, trial: keras_tuner.engine.trial.Trial, *args: Any, **kwargs: Any) -> Figures:
        return self._run(self._trial(trial))

    def trials(self) -> list[Trial]:
        """Every trial that has ended, in the order in which they were begun."""
        return [self._trial(self.oracle.trials[key]) for key in self.oracle.start_order]

    def _trial(self, trial: keras_tuner.engine.trial.Trial) -> Trial:
        hp, metrics = trial.hyperparameters, trial.metrics.metrics
        return Trial(
            number=self.oracle.start_order.index(trial.trial_id),
            status=str(trial.status),
            values=sample(hp, self._dimensions),
            epochs=hp.values.get("tuner/epochs", self._epochs),  # Hyperband begins most trials with fewer
            figures={name: metric.get_best_value() for name, metric in metrics.items()},
            error=trial.message,
        )


RunTrial = Callable[[Trial], Figures]


def search(tune: Tune, dimensions: list[Dimension], seed: int, folder: Path, run: RunTrial) -> list[Trial]:
    """Run a search, or what is left of one that was interrupted.

    Args:
        folder: where the search keeps its state; it belongs to this space, seed, data and code alone.
        run: trains one trial and returns its figures, the objective among them.

    Returns:
        Every trial, in the order in which they were begun.
    """
    if tune.tuner == "grid":
        _forget(folder)  # the grid cannot be taken up again (keras-tuner issue 1055)
    try:
        tuner = _Search(_oracle(tune, dimensions, seed), dimensions, tune, run, folder)
    except (ValueError, KeyError, RuntimeError) as error:
        print(f"warning: the interrupted search cannot be taken up again ({error}); it begins anew", flush=True)
        _forget(folder)  # Keras Tuner was killed while it wrote, which it does not do in one step
        tuner = _Search(_oracle(tune, dimensions, seed), dimensions, tune, run, folder)
    tuner.search(verbose=0)
    return tuner.trials()


def _forget(folder: Path) -> None:
    """Delete Keras Tuner's state, which is in folders of trials and in JSON files."""
    for path in [*folder.glob("trial_*"), *folder.glob("*.json")]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def best(trials: list[Trial], objective: str) -> Trial:
    """The completed trial with the best figure; the earlier one of equals.

    Raises:
        ValueError: none was completed.
    """
    sign = 1 if DIRECTIONS[objective] == "min" else -1
    return min((t for t in trials if t.status == "COMPLETED"), key=lambda trial: sign * trial.figures[objective])


def trial_table(trials: list[Trial]) -> pd.DataFrame:
    """One row per trial: number, status, epochs, figures, then a column for each dimension."""
    return pd.DataFrame(
        {
            "trial": trial.number,
            "status": trial.status,
            "epochs": trial.epochs,
            **trial.figures,
            **{name: json.dumps(v) if isinstance(v, list | dict) else v for name, v in trial.values.items()},
        }
        for trial in trials
    )


def _oracle(tune: Tune, dimensions: list[Dimension], seed: int) -> keras_tuner.Oracle:
    common: dict[str, Any] = {
        "objective": keras_tuner.Objective(tune.objective, DIRECTIONS[tune.objective]),
        "hyperparameters": hyperparameters(dimensions),
        "tune_new_entries": False,
        "seed": seed,
    }
    match tune.tuner:
        case "random":
            return _base_first(oracles.RandomSearchOracle)(max_trials=tune.trials, **common)
        case "bayesian":
            return _base_first(oracles.BayesianOptimizationOracle)(max_trials=tune.trials, **common)
        case "hyperband":
            return _base_first(oracles.HyperbandOracle)(max_epochs=tune.epochs, **common)
        case "grid":
            return oracles.GridSearchOracle(max_trials=tune.trials, **common)


def _plain(dimension: Choice) -> bool:
    """Whether Keras Tuner can hold the values as they are: it takes numbers, text or truth values, of one type."""
    return len({type(value) for value in dimension.values}) == 1 and isinstance(dimension.default, str | int | float)


def _encoded(dimension: Choice, value: Value) -> Any:
    return value if _plain(dimension) else json.dumps(value)


def _default(dimension: Choice) -> Any:
    same = next(value for value in dimension.values if value == dimension.default)
    return _encoded(dimension, same)


def _decoded(dimension: Dimension, value: Any) -> Value:
    if isinstance(dimension, Choice):
        return value if _plain(dimension) else json.loads(value)
    return round(value, 12)  # min + n * step is not exact: 0.30000000000000004
