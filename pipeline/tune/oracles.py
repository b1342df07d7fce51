"""Keras Tuner's oracles over the dimensions of a search space: which networks are tried, and in which order.

An oracle proposes trials and is told their outcomes, both in the order of the trials: then its proposals do not depend
on which trial ends first. Keras Tuner's own files, which are not written in one step, are not written at all.
"""

import warnings
from collections.abc import Mapping
from typing import Any

import keras_tuner
import keras_tuner.oracles
from keras_tuner.engine.trial import Trial as KerasTunerTrial
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits

from pipeline.core import search_space
from pipeline.core.config import OBJECTIVE_DIRECTIONS
from pipeline.core.search_space import Choice, Dimension, Value
from pipeline.core.sections import Tune
from pipeline.tune.trial import Trial

COLLISIONS = 1000  # draws without a new network after which the space counts as exhausted
CANDIDATES = 50  # new networks among which Bayesian search chooses when its own choice has been tried

Block = Mapping[str, Any]
Values = Mapping[str, Any]  # of Keras Tuner's hyperparameters: levels and choices by their numbers


def hyperparameters(dimensions: list[Dimension]) -> keras_tuner.HyperParameters:
    """The dimensions as Keras Tuner's hyperparameters; the default of each is the base network's own value.

    Choices and levels are given by their numbers: Keras Tuner holds numbers or strings alone, and counts the levels 0,
    0.1, ... 0.5 in binary, so that it stops at 0.4.
    """
    hp = keras_tuner.HyperParameters()
    for dimension in dimensions:
        if isinstance(dimension, Choice):
            numbers = range(len(dimension.values))
            hp.Choice(dimension.name, list(numbers), default=dimension.values.index(dimension.default))
        elif dimension.step is not None:
            last, default = dimension.index(dimension.high), dimension.index(dimension.default)
            hp.Int(dimension.name, min_value=0, max_value=last, default=default)
        else:
            kind = hp.Int if dimension.integer else hp.Float
            kind(
                dimension.name,
                min_value=dimension.low,
                max_value=dimension.high,
                sampling="log" if dimension.log else "linear",
                default=dimension.default,
            )
    return hp


def sample(values: Values, dimensions: list[Dimension], base: Block) -> dict[str, Value]:
    """The values of a network's active dimensions, as `search_space.apply` takes them, from Keras Tuner's values."""
    every = {dimension.name: _value(dimension, values[dimension.name]) for dimension in dimensions}
    unused = search_space.inactive(search_space.apply(base, every))
    return {name: value for name, value in every.items() if name not in unused}


def _value(dimension: Dimension, value: Any) -> Value:
    if isinstance(dimension, Choice):
        return dimension.values[value]
    return value if dimension.step is None else dimension.level(value)


class Oracle(keras_tuner.Oracle):
    """Base of all oracles: proposes the base network first, and no network twice.

    `known` has the values of trials that were run before an interruption, by number.
    """

    def __init__(self, tune: Tune, base: Block, seed: int, known: Mapping[int, Values]) -> None:
        self.tune, self.base, self.known = tune, base, known
        self.dimensions = search_space.dimensions(tune.space, base)
        self._hashes: dict[tuple[tuple[str, Any], ...], str] = {}  # by values: an exhausted space is drawn from often
        super().__init__(
            objective=keras_tuner.Objective(tune.objective, OBJECTIVE_DIRECTIONS[tune.objective]),
            hyperparameters=hyperparameters(self.dimensions),
            tune_new_entries=False,
            seed=seed,
            **self._size(),
        )
        self.verbose = 0
        self._max_collisions = COLLISIONS

    def propose(self) -> Trial | None:
        """The next trial; None if there is none, or none before the outcomes of others are known."""
        number = len(self.trials)
        if self.create_trial(f"trial {number}").status != "RUNNING":
            return None
        values = self.values(number)
        return Trial(number, sample(values, self.dimensions, self.base), self._epochs(values))

    def tell(self, trial: Trial) -> None:
        """Take the outcome of a trial; a pruned one has the metrics of its last epoch."""
        own = self.trials[self.start_order[trial.number]]
        own.status = "COMPLETED" if trial.metrics else "FAILED"
        own.score = trial.metrics.get(self.tune.objective)
        self.end_trial(own)

    def values(self, number: int) -> Values:
        """The values of a trial."""
        return self.trials[self.start_order[number]].hyperparameters.values

    @property
    def used_up(self) -> bool:
        """True if the space had too few networks for the search."""
        return len(self.trials) < self.tune.trials

    def _size(self) -> dict[str, int]:
        """The arguments of Keras Tuner's oracle that limit the search."""
        return {"max_trials": self.tune.trials}

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        response = self._proposal(trial_id)
        known = self.known.get(int(trial_id))
        if known and self.tune.tuner != "hyperband":  # Bayesian search may not repeat its choice to the last digit
            return {"status": "RUNNING", "values": dict(known)}
        if response.get("values"):
            response["values"] = self._neutral(response["values"])
        return response

    def _proposal(self, trial_id: str) -> dict[str, Any]:
        """The next trial, in the form that `populate_space` returns."""
        return super().populate_space(trial_id)  # Keras Tuner's: it follows this class among the bases of an oracle

    def _neutral(self, values: Values) -> dict[str, Any]:
        """The values with those of inactive dimensions, which make no difference, replaced by their defaults."""
        active = sample(values, self.dimensions, self.base)
        unused = [dimension.name for dimension in self.dimensions if dimension.name not in active]
        return {**values, **{name: self.hyperparameters.get(name) for name in unused}}

    def _random_values(self) -> dict[str, Any] | None:
        return super()._random_values() if self.trials else dict(self.hyperparameters.values)

    def _epochs(self, values: Values) -> int:
        return values.get("tuner/epochs", self.tune.epochs)  # Hyperband begins most trials with fewer

    def _compute_values_hash(self, values: Values) -> str:
        drawn = tuple((dimension.name, values[dimension.name]) for dimension in self.dimensions)
        if drawn not in self._hashes:
            block = search_space.apply(self.base, sample(values, self.dimensions, self.base))
            self._hashes[drawn] = search_space.identity(block)
        return self._hashes[drawn]

    def score_trial(self, trial: KerasTunerTrial) -> None:
        pass  # `tell` has set the score

    def save(self) -> None:
        pass

    def _save_trial(self, trial: KerasTunerTrial) -> None:
        pass

    def _check_consecutive_failures(self) -> None:
        pass  # one failed configuration does not predict the next, and other errors end the search


class _Random(Oracle, keras_tuner.oracles.RandomSearchOracle):
    pass


class _Bayesian(Oracle, keras_tuner.oracles.BayesianOptimizationOracle):
    def _size(self) -> dict[str, int]:
        # Keras Tuner's default, 3 for each dimension, would leave a short search nothing but random trials.
        initial = max(2, min(3 * len(self.dimensions), self.tune.trials // 3))
        return {"max_trials": self.tune.trials, "num_initial_points": initial}

    def _proposal(self, trial_id: str) -> dict[str, Any]:
        with threadpool_limits(1), warnings.catch_warnings():  # thousands of tiny products, slower with more threads
            warnings.simplefilter("ignore", ConvergenceWarning)  # from a few points that differ little
            response = super()._proposal(trial_id)
        if response["values"] is None or not self._duplicate(response["values"]):
            return response
        candidates = []
        while len(candidates) < CANDIDATES and (new := self._random_values()) is not None:
            candidates.append(self._neutral(new))
        if not candidates:
            return {"status": "STOPPED", "values": None}
        return {"status": "RUNNING", "values": min(candidates, key=self._bound)}

    def _bound(self, values: Mapping[str, Any]) -> float:
        """The lower confidence bound of a network, Keras Tuner's acquisition function."""
        vector = [hp.value_to_prob(values[hp.name]) for hp in self.hyperparameters.space]
        mean, std = self.gpr.predict([vector], return_std=True)
        return float(mean[0] - self.beta * std[0])


class _Hyperband(Oracle, keras_tuner.oracles.HyperbandOracle):
    short: tuple[int, int] | None = None  # the bracket for which no new network was left, and its number of networks

    @property
    def used_up(self) -> bool:
        return self.short is not None

    def _size(self) -> dict[str, int]:
        return {"max_epochs": self.tune.epochs}

    def _random_trial(self, trial_id: str, bracket: dict[str, Any]) -> dict[str, Any]:
        response = super()._random_trial(trial_id, bracket)
        drawn = len(bracket["rounds"][0])
        if response["status"] == "STOPPED" and self.short is None and drawn:
            self.short = bracket["bracket_num"], drawn
            return self._proposal(trial_id)  # from the later rounds, with the networks there are
        return response

    def _get_size(self, bracket_num: int, round_num: int) -> int:
        size = super()._get_size(bracket_num, round_num)
        if self.short is None or self.short[0] != bracket_num:
            return size
        return min(size, -(-self.short[1] // self.factor**round_num))


class _Grid(Oracle, keras_tuner.oracles.GridSearchOracle):
    """Every combination in order; unlike Keras Tuner's, without waiting for outcomes."""

    last: dict[str, Any]

    def _proposal(self, trial_id: str) -> dict[str, Any]:
        values = self._get_next_combination(self.last) if self.trials else dict(self.hyperparameters.values)
        while values is not None and self._duplicate(values):
            values = self._get_next_combination(values)
        if values is None:
            return {"status": "STOPPED", "values": None}
        self.last = values
        return {"status": "RUNNING", "values": values}


ORACLES = {"random": _Random, "bayesian": _Bayesian, "hyperband": _Hyperband, "grid": _Grid}


def make_oracle(tune: Tune, base: Block, seed: int, known: Mapping[int, Values] | None = None) -> Oracle:
    """The oracle of a search, or of the rest of one that was interrupted; `base` is the base's complete block."""
    return ORACLES[tune.tuner](tune, base, seed, known or {})
