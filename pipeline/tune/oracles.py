"""Keras Tuner's oracles over the dimensions of a search space: which networks are tried, and in which order.

An oracle hands out trials and receives their outcomes. Each outcome is written to a file of its own in one step: when a
search is started again, the same trials are proposed, and recorded outcomes take the place of running them. Keras
Tuner's own files, which are not written in one step, are not written at all.
"""

import json
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import keras_tuner
import keras_tuner.oracles
from keras_tuner.engine.trial import Trial as KerasTunerTrial
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits

from pipeline.core import atomic, search_space
from pipeline.core.config import OBJECTIVE_DIRECTIONS, Tune
from pipeline.core.search_space import Choice, Dimension, Value
from pipeline.tune import payload
from pipeline.tune.trial import Outcome, Trial

COLLISIONS = 1000  # draws without a new network after which the space counts as exhausted
CANDIDATES = 50  # new networks among which Bayesian search chooses when its own choice has been tried

Block = Mapping[str, Any]
OnEnd = Callable[[Trial], None]


def hyperparameters(dimensions: list[Dimension]) -> keras_tuner.HyperParameters:
    """The dimensions as Keras Tuner's hyperparameters; the default of each is the base network's own value."""
    hp = keras_tuner.HyperParameters()
    for dimension in dimensions:
        if isinstance(dimension, Choice):
            default = next(value for value in dimension.values if value == dimension.default)
            values = [_encoded(dimension, value) for value in dimension.values]
            hp.Choice(dimension.name, values, default=_encoded(dimension, default))
        elif dimension.step is not None:
            # The number of a level, not its value: Keras Tuner counts 0, 0.1, ... 0.5 in binary, and stops at 0.4.
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


def sample(values: Mapping[str, Any], dimensions: list[Dimension], base: Block) -> dict[str, Value]:
    """The values of a network's active dimensions, as `search_space.apply` takes them, from Keras Tuner's values."""
    every = {dimension.name: _decoded(dimension, values[dimension.name]) for dimension in dimensions}
    unused = search_space.inactive(search_space.apply(base, every))
    return {name: value for name, value in every.items() if name not in unused}


def _encoded(dimension: Choice, value: Value) -> Any:
    return value if _native(dimension) else json.dumps(value)


def _decoded(dimension: Dimension, value: Any) -> Value:
    if isinstance(dimension, Choice):
        return value if _native(dimension) else json.loads(value)
    return value if dimension.step is None else dimension.level(value)


def _native(dimension: Choice) -> bool:
    """Keras Tuner's Choice holds numbers or strings, all of one type. Of booleans it would make a default of 0 or 1."""
    return {type(value) for value in dimension.values} in ({str}, {int}, {float})


class Oracle(keras_tuner.Oracle):
    """Base of all samplers: tries the base network first and no network twice, and records outcomes on disk."""

    def __init__(
        self, tune: Tune, base: Block, seed: int, folder: Path, on_end: OnEnd, note: dict[str, str] | None
    ) -> None:
        self.tune, self.base, self.folder, self.on_end, self.note = tune, base, folder, on_end, note
        self.dimensions = search_space.dimensions(tune.space, base)
        super().__init__(
            objective=keras_tuner.Objective(tune.objective, OBJECTIVE_DIRECTIONS[tune.objective]),
            hyperparameters=hyperparameters(self.dimensions),
            tune_new_entries=False,
            seed=seed,
            **self._size(),
        )
        self.last_seen: dict[str, float] = {}  # the time of each worker's last request
        self.dismissed: set[str] = set()  # workers that have been told to stop
        self.verbose = 0
        self._max_collisions = COLLISIONS
        paths = sorted(folder.glob("trials/*.json"))
        self._records = {int(path.stem): json.loads(path.read_text(encoding="utf-8")) for path in paths}
        self._recorded = {self._key(record["values"]): record["outcome"] for record in self._records.values()}

    def _size(self) -> dict[str, int]:
        """The arguments of Keras Tuner's sampler that limit the search."""
        return {"max_trials": self.tune.trials}

    def save(self) -> None:
        pass

    def _save_trial(self, trial: KerasTunerTrial) -> None:
        pass

    @keras_tuner.synchronized
    def create_trial(self, tuner_id: str) -> KerasTunerTrial:
        self.last_seen[tuner_id] = time.monotonic()
        while tuner_id not in self.ongoing_trials:
            offered = super().create_trial(tuner_id)
            if offered.status == "STOPPED":
                self.dismissed.add(tuner_id)
            if offered.status != "RUNNING":
                return offered
            values = offered.hyperparameters.values
            values.pop(payload.OUTCOME, None)  # a trial promoted by Hyperband carries that of its previous round
            payload.attach(offered, self._trial(offered))
            recorded = self._recorded.get(self._key(values))
            if recorded is not None:
                payload.finish(offered, Outcome(**recorded))
                self.end_trial(offered)
        return self.ongoing_trials[tuner_id]

    @keras_tuner.synchronized
    def end_trial(self, trial: KerasTunerTrial) -> None:
        own = self.trials[trial.trial_id]
        if payload.outcome_of(own) and trial is not own:
            return  # from a worker already declared dead
        outcome = payload.outcome_of(trial)
        assert outcome
        # Keras Tuner sends numbers in single precision: a worker's copy of the values has lost digits.
        trial.hyperparameters = own.hyperparameters
        payload.finish(trial, outcome)
        record = {"values": payload.values_of(own), "outcome": asdict(outcome)}
        number = int(trial.trial_id)
        if self._records.get(number) != record:
            atomic.write_text(self.folder / "trials" / f"{number:05d}.json", json.dumps(record, indent=1))
            self._records[number] = record
        super().end_trial(trial)
        self.on_end(self._trial(own))

    def score_trial(self, trial: KerasTunerTrial) -> None:
        trial.score = self._trial(trial).metrics[self.tune.objective]

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        response = self._proposal(trial_id)
        record = self._records.get(int(trial_id))
        if record and self.tune.tuner != "hyperband":  # Bayesian search may not repeat its choice to the last digit
            return {"status": "RUNNING", "values": record["values"]}
        if response.get("values"):
            response["values"] = self._neutral(response["values"])
        return response

    def _proposal(self, trial_id: str) -> dict[str, Any]:
        """The sampler's next trial, in the form that `populate_space` returns."""
        return super().populate_space(trial_id)  # Keras Tuner's: it follows this class among the bases of a sampler

    def _neutral(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The values with those of inactive dimensions, which make no difference, replaced by their defaults."""
        active = sample(values, self.dimensions, self.base)
        unused = [dimension.name for dimension in self.dimensions if dimension.name not in active]
        return {**values, **{name: self.hyperparameters.get(name) for name in unused}}

    @property
    def used_up(self) -> bool:
        """True if the space had too few networks for the search."""
        return len(self.trials) < self.tune.trials

    def trial(self, number: int) -> Trial:
        """The trial with a number, counted in the order in which they were begun."""
        return self._trial(self.trials[self.start_order[number]])

    def values_of(self, trial: Trial) -> dict[str, Any]:
        """The values of a trial in the form that Keras Tuner keeps."""
        return payload.values_of(self.trials[self.start_order[trial.number]])

    def abandon(self, worker: str, error: str) -> None:
        """Record the trial of a dead worker as failed."""
        trial = self.ongoing_trials[worker]
        payload.finish(trial, Outcome("FAILED", {}, [], error))
        self.end_trial(trial)

    def _random_values(self) -> dict[str, Any] | None:
        return super()._random_values() if self.trials else dict(self.hyperparameters.values)

    def _trial(self, trial: KerasTunerTrial) -> Trial:
        values = trial.hyperparameters.values
        return Trial(
            number=int(trial.trial_id),
            values=sample(values, self.dimensions, self.base),
            epochs=self._epochs(values),
            note=self.note,
            finalist=json.loads(values[payload.FINALIST]) if payload.FINALIST in values else None,
            **asdict(payload.outcome_of(trial) or Outcome("RUNNING", {}, [])),
        )

    def _epochs(self, values: Mapping[str, Any]) -> int:
        return values.get("tuner/epochs", self.tune.epochs)  # Hyperband begins most trials with fewer

    def _key(self, values: Mapping[str, Any]) -> tuple[str, int, str | None]:
        return self._compute_values_hash(values), self._epochs(values), values.get(payload.FINALIST)

    def _compute_values_hash(self, values: Mapping[str, Any]) -> str:
        return search_space.identity(search_space.apply(self.base, sample(values, self.dimensions, self.base)))

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
        candidates = [self._neutral(new) for _ in range(CANDIDATES) if (new := self._random_values()) is not None]
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


class _Finalists(Oracle):
    """Trials that are known from the beginning: those of the finalists, each with every seed."""

    def __init__(self, searched: Oracle, fits: list[dict[str, Any]], folder: Path, on_end: OnEnd) -> None:
        self.fits = fits
        super().__init__(searched.tune, searched.base, searched.seed, folder, on_end, searched.note)

    def _size(self) -> dict[str, int]:
        return {"max_trials": len(self.fits)}

    def _proposal(self, trial_id: str) -> dict[str, Any]:
        return {"status": "RUNNING", "values": self.fits[int(trial_id)]}


SAMPLERS = {"random": _Random, "bayesian": _Bayesian, "hyperband": _Hyperband, "grid": _Grid}


def make_oracle(
    tune: Tune,
    base: Block,
    seed: int,
    folder: Path,
    on_end: OnEnd = lambda trial: None,
    note: dict[str, str] | None = None,
) -> Oracle:
    """The oracle of a search, or of the rest of one that was interrupted.

    Args:
        base: the complete block of the base network.
        folder: keeps the outcomes; to be used for this space, seed, data and code only.
        on_end: called with every trial that ends, and again with those recorded before an interruption.
        note: attached to every trial, for its runner.
    """
    return SAMPLERS[tune.tuner](tune, base, seed, folder, on_end, note)


def finalists_oracle(searched: Oracle, chosen: list[Trial], seeds: list[int], folder: Path, on_end: OnEnd) -> Oracle:
    """The oracle of the fits of a search's finalists, each with every seed; see `make_oracle`."""
    fits = [
        {**searched.values_of(trial), payload.FINALIST: json.dumps([trial.number, seed])}
        for trial in chosen
        for seed in seeds
    ]
    return _Finalists(searched, fits, folder, on_end)
