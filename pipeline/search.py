"""Keras Tuner over the dimensions of a search space: which networks are tried, in which order, and what came of them.

An oracle hands out trials and is told their outcomes; `work` is the loop of whoever runs them. What a trial came to is
written to a file of its own in one step: a search that is started again asks the same questions, and is given the
recorded answers. Keras Tuner's own files, which are not written in one step, are not written at all.
"""

import json
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import keras_tuner
import pandas as pd
from keras_tuner import oracles
from keras_tuner.engine.trial import Trial as Offer
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits

from pipeline import atomic, space
from pipeline.config import Pruning, Tune
from pipeline.pruning import stopped_after
from pipeline.space import Choice, Dimension, Value

DIRECTIONS = {"val_loss": "min", "val_accuracy": "max"}
FIGURES = ("val_accuracy", "val_loss")
# Travel with a trial's values, as Keras Tuner's own tuner/epochs does.
JOB, OUTCOME, FINALIST = "tuner/job", "tuner/outcome", "tuner/finalist"
COLLISIONS = 1000  # draws without a new network after which the space counts as used up
CANDIDATES = 50  # new networks among which Bayesian search chooses where its own choice has been tried
POLL = 0.2  # seconds until a worker asks again

Figures = dict[str, float]
Block = Mapping[str, Any]


@dataclass(frozen=True)
class Outcome:
    """What running a trial came to.

    `status`: COMPLETED or FAILED. `curve`: the figures of each epoch, fewer where the trial was stopped. `run_id`: its
    MLflow run.
    """

    status: str
    figures: Figures
    curve: list[Figures]
    error: str | None = None
    run_id: str | None = None


@dataclass(frozen=True)
class Trial:
    """One trial: its place in the search, the values of its active dimensions, and its epochs.

    `status`: RUNNING, COMPLETED, PRUNED or FAILED. `note`: what the search gives to every trial. `finalist`: of a trial
    that is run again, its number in the search and the seed.
    """

    number: int
    values: dict[str, Value]
    epochs: int
    status: str
    figures: Figures
    curve: list[Figures]
    error: str | None = None
    run_id: str | None = None
    note: dict[str, str] | None = None
    finalist: Sequence[int] | None = None


Stops = Callable[[list[Figures]], bool]  # whether a trial with this curve so far is stopped
RunTrial = Callable[[Trial, Stops], Outcome]


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


def sample(values: Mapping[str, Any], dimensions: list[Dimension], base: Block) -> dict[str, Value]:
    """The active dimensions of a network and their values, as `space.apply` takes them, from Keras Tuner's."""
    every = {dimension.name: _decoded(dimension, values[dimension.name]) for dimension in dimensions}
    unused = space.inactive(space.apply(base, every))
    return {name: value for name, value in every.items() if name not in unused}


class Oracle(keras_tuner.Oracle):
    """What all kinds of search have in common: the base first, no network twice, outcomes on disk."""

    dimensions: list[Dimension]
    base: Block
    tune: Tune
    folder: Path
    note: dict[str, str]
    ended: Callable[[Trial], None]

    def begin(
        self, tune: Tune, base: Block, folder: Path, note: dict[str, str], ended: Callable[[Trial], None]
    ) -> None:
        self.tune, self.base, self.folder, self.note, self.ended = tune, base, folder, note, ended
        self.dimensions = space.dimensions(tune.space, base)
        self.seen: dict[str, float] = {}  # when each worker was last heard of
        self.dismissed: set[str] = set()  # the workers that were told that nothing is left
        self.verbose = 0
        self._max_collisions = COLLISIONS
        paths = sorted(folder.glob("trials/*.json"))
        self._records = {int(path.stem): json.loads(path.read_text(encoding="utf-8")) for path in paths}
        self._known = {self._key(record["values"]): record["outcome"] for record in self._records.values()}

    def save(self) -> None:
        pass

    def _save_trial(self, trial: Offer) -> None:
        pass

    @keras_tuner.synchronized
    def create_trial(self, tuner_id: str) -> Offer:
        while True:
            self.seen[tuner_id] = time.monotonic()
            offer = super().create_trial(tuner_id)
            if offer.status == "STOPPED":
                self.dismissed.add(tuner_id)
            values = offer.hyperparameters.values
            if offer.status != "RUNNING" or (JOB in values and OUTCOME not in values):
                return offer
            values.pop(OUTCOME, None)  # a trial that Hyperband promotes has those of its first round
            values[JOB] = json.dumps(asdict(self._trial(offer, note=self.note)))
            known = self._known.get(self._key(values))
            if known is None:
                return offer
            values[OUTCOME] = json.dumps(known)
            offer.status = known["status"]
            self.end_trial(offer)

    @keras_tuner.synchronized
    def end_trial(self, trial: Offer) -> None:
        own = self.trials[trial.trial_id]
        if OUTCOME in own.hyperparameters.values and trial is not own:
            return  # of a worker that was given up, but lives
        outcome = trial.hyperparameters.values[OUTCOME]
        # On the way to a worker and back, numbers have lost digits: Keras Tuner sends them in single precision.
        trial.hyperparameters = own.hyperparameters
        trial.hyperparameters.values[OUTCOME] = outcome
        record = {"values": self._own_values(trial), "outcome": json.loads(outcome)}
        number = int(trial.trial_id)
        if self._records.get(number) != record:
            atomic.write_text(self.folder / "trials" / f"{number:05d}.json", json.dumps(record, indent=1))
            self._records[number] = record
        super().end_trial(trial)
        self.ended(self._trial(own))

    def score_trial(self, trial: Offer) -> None:
        trial.score = self._trial(trial).figures[self.tune.objective]

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        response = self._proposal(trial_id)
        record = self._records.get(int(trial_id))
        if record and self.tune.tuner != "hyperband":  # Bayesian search may not choose to the last digit as before
            return {"status": "RUNNING", "values": record["values"]}
        if response.get("values"):
            response["values"] = self._neutral(response["values"])
        return response

    def _proposal(self, trial_id: str) -> dict[str, Any]:
        """What this kind of search tries next, as `populate_space` gives it."""
        raise NotImplementedError

    def _neutral(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Inactive dimensions at their defaults: what they are makes no difference."""
        active = sample(values, self.dimensions, self.base)
        unused = [dimension.name for dimension in self.dimensions if dimension.name not in active]
        return {**values, **{name: self.hyperparameters.get(name) for name in unused}}

    @property
    def used_up(self) -> bool:
        """Whether the space held too few networks for the search."""
        return len(self.trials) < self.tune.trials

    def trial(self, number: int) -> Trial:
        return self._trial(self.trials[self.start_order[number]])

    def values_of(self, trial: Trial) -> dict[str, Any]:
        """A trial's values as Keras Tuner has them."""
        return self._own_values(self.trials[self.start_order[trial.number]])

    def abandon(self, worker: str, error: str) -> None:
        """Record the trial of a worker that no longer answers as failed."""
        offer = self.ongoing_trials[worker]
        offer.status = "FAILED"
        offer.hyperparameters.values[OUTCOME] = json.dumps(asdict(Outcome("FAILED", {}, [], error)))
        self.end_trial(offer)

    def _random_values(self) -> dict[str, Any] | None:
        return super()._random_values() if self.trials else self._base_values()

    def _base_values(self) -> dict[str, Any]:
        return dict(keras_tuner.HyperParameters.from_config(self.hyperparameters.get_config()).values)

    def _own_values(self, trial: Offer) -> dict[str, Any]:
        return {name: value for name, value in trial.hyperparameters.values.items() if name not in (JOB, OUTCOME)}

    def _trial(self, offer: Offer, note: dict[str, str] | None = None) -> Trial:
        values = offer.hyperparameters.values
        outcome = Outcome(**json.loads(values[OUTCOME])) if OUTCOME in values else Outcome("RUNNING", {}, [])
        return Trial(
            number=int(offer.trial_id),
            values=sample(values, self.dimensions, self.base),
            epochs=self._epochs(values),
            note=note,
            finalist=json.loads(values[FINALIST]) if FINALIST in values else None,
            **asdict(outcome),
        )

    def _epochs(self, values: Mapping[str, Any]) -> int:
        return values.get("tuner/epochs", self.tune.epochs)  # Hyperband begins most trials with fewer

    def _key(self, values: Mapping[str, Any]) -> tuple[str, int, str | None]:
        return self._compute_values_hash(values), self._epochs(values), values.get(FINALIST)

    def _compute_values_hash(self, values: Mapping[str, Any]) -> str:
        return space.identity(space.apply(self.base, sample(values, self.dimensions, self.base)))

    def _check_consecutive_failures(self) -> None:
        pass  # what fails by its own values says nothing of the others; anything else is no failure of a trial


class _Random(Oracle, oracles.RandomSearchOracle):
    def _proposal(self, trial_id: str) -> dict[str, Any]:
        return oracles.RandomSearchOracle.populate_space(self, trial_id)


class _Bayesian(Oracle, oracles.BayesianOptimizationOracle):
    def _proposal(self, trial_id: str) -> dict[str, Any]:
        with threadpool_limits(1), warnings.catch_warnings():  # thousands of tiny products, slower with more threads
            warnings.simplefilter("ignore", ConvergenceWarning)  # of a few points that differ by little
            response = oracles.BayesianOptimizationOracle.populate_space(self, trial_id)
        if response["values"] is None or not self._duplicate(response["values"]):
            return response
        candidates = [self._neutral(new) for _ in range(CANDIDATES) if (new := self._random_values()) is not None]
        if not candidates:
            return {"status": "STOPPED", "values": None}
        return {"status": "RUNNING", "values": min(candidates, key=self._bound)}

    def _bound(self, values: Mapping[str, Any]) -> float:
        """The lower confidence bound by which Keras Tuner chooses, of one network."""
        vector = [hp.value_to_prob(values[hp.name]) for hp in self.hyperparameters.space]
        mean, deviation = self.gpr.predict([vector], return_std=True)
        return float(mean[0] - self.beta * deviation[0])


class _Hyperband(Oracle, oracles.HyperbandOracle):
    short: tuple[int, int] | None = None  # the bracket that no new network was left for, and how many it has

    @property
    def used_up(self) -> bool:
        return self.short is not None

    def _proposal(self, trial_id: str) -> dict[str, Any]:
        return oracles.HyperbandOracle.populate_space(self, trial_id)

    def _random_trial(self, trial_id: str, bracket: dict[str, Any]) -> dict[str, Any]:
        response = super()._random_trial(trial_id, bracket)
        drawn = len(bracket["rounds"][0])
        if response["status"] == "STOPPED" and self.short is None and drawn:
            self.short = bracket["bracket_num"], drawn
            return self._proposal(trial_id)  # the rounds that follow, among those there are
        return response

    def _get_size(self, bracket_num: int, round_num: int) -> int:
        size = super()._get_size(bracket_num, round_num)
        if self.short is None or self.short[0] != bracket_num:
            return size
        return min(size, -(-self.short[1] // self.factor**round_num))


class _Grid(Oracle, oracles.GridSearchOracle):
    """Every combination in order, without waiting for the outcome of one before the next is handed out."""

    last: dict[str, Any]

    def _proposal(self, trial_id: str) -> dict[str, Any]:
        values = self._get_next_combination(self.last) if self.trials else self._base_values()
        while values is not None and self._duplicate(values):
            values = self._get_next_combination(values)
        if values is None:
            return {"status": "STOPPED", "values": None}
        self.last = values
        return {"status": "RUNNING", "values": values}


class _Finals(Oracle, keras_tuner.Oracle):
    """Trials that are known from the beginning."""

    fits: list[dict[str, Any]]

    def _proposal(self, trial_id: str) -> dict[str, Any]:
        return {"status": "RUNNING", "values": self.fits[int(trial_id)]}


def oracle(
    tune: Tune,
    base: Block,
    seed: int,
    folder: Path,
    ended: Callable[[Trial], None] = lambda trial: None,
    note: dict[str, str] | None = None,
) -> Oracle:
    """What hands out the trials of a search, or those that are left of one that was interrupted.

    Args:
        folder: where outcomes are kept; it belongs to this space, seed, data and code alone.
        ended: called with every trial that has ended, also those of before an interruption.
        note: given to every trial, for those who run it.
    """
    common = _common(tune, base, seed)
    match tune.tuner:
        case "random":
            made = _Random(max_trials=tune.trials, **common)
        case "bayesian":
            # Keras Tuner's own 3 for each dimension would leave a short search nothing but random trials.
            first = max(2, min(3 * len(common["hyperparameters"].space), tune.trials // 3))
            made = _Bayesian(max_trials=tune.trials, num_initial_points=first, **common)
        case "hyperband":
            made = _Hyperband(max_epochs=tune.epochs, **common)
        case "grid":
            made = _Grid(max_trials=tune.trials, **common)
    made.begin(tune, base, folder, note or {}, ended)
    return made


def finals(
    searched: Oracle, chosen: list[Trial], seeds: list[int], folder: Path, ended: Callable[[Trial], None]
) -> Oracle:
    """What hands out the fits of a search's finalists: each with every seed. Else as `oracle` says."""
    tune, base = searched.tune, searched.base
    fits = [
        {**searched.values_of(trial), FINALIST: json.dumps([trial.number, seed])} for trial in chosen for seed in seeds
    ]
    made = _Finals(max_trials=len(fits), **_common(tune, base, searched.seed))
    made.fits = fits
    made.begin(tune, base, folder, searched.note, ended)
    return made


def _common(tune: Tune, base: Block, seed: int) -> dict[str, Any]:
    return {
        "objective": keras_tuner.Objective(tune.objective, DIRECTIONS[tune.objective]),
        "hyperparameters": hyperparameters(space.dimensions(tune.space, base)),
        "tune_new_entries": False,
        "seed": seed,
    }


def work(asked: Any, name: str, tune: Tune, run: RunTrial) -> None:
    """Run trials until there are none left.

    Args:
        asked: an oracle, or Keras Tuner's client of one in another process.
        run: trains one trial. What it raises ends the search: failures of the trial itself are outcomes.
    """
    while True:
        offer = asked.create_trial(name)
        if offer.status == "STOPPED":
            return
        if offer.status == "IDLE":
            time.sleep(POLL)
            continue
        trial = Trial(**json.loads(offer.hyperparameters.values[JOB]))
        outcome = run(trial, _Stopping(asked, offer.trial_id, tune))
        offer.hyperparameters.values[OUTCOME] = json.dumps(asdict(outcome))
        offer.status = outcome.status
        asked.end_trial(offer)


def search(
    tune: Tune,
    base: Block,
    seed: int,
    folder: Path,
    run: RunTrial,
    ended: Callable[[Trial], None] = lambda trial: None,
) -> list[Trial]:
    """Run a search, or what is left of one that was interrupted, in this process: see `oracle` and `work`."""
    asked = oracle(tune, base, seed, folder, ended)
    work(asked, "worker0", tune, run)
    return trials(asked)


def trials(asked: Oracle) -> list[Trial]:
    """Every trial that has ended, in the order in which they were begun.

    Pruning is settled here, by the trials that were begun before each one: so it does not depend on how many ran side
    by side. A trial that went on, because those before it had not ended, is cut off where it would have been stopped.
    """
    return _settled(fits(asked), asked.tune)


def fits(asked: Oracle) -> list[Trial]:
    """Every trial as it was run, in the order in which they were begun."""
    return [asked.trial(number) for number in range(len(asked.start_order))]


def _settled(done: list[Trial], tune: Tune) -> list[Trial]:
    rule = _rule(tune)
    completed: list[list[float]] = []
    settled = []
    for trial in done:
        curve = [cost(figures, tune.objective) for figures in trial.curve]
        epoch = stopped_after(curve, completed, trial.epochs, rule) if rule else None
        if epoch is not None:
            ran = trial.curve[:epoch]
            trial = replace(trial, status="PRUNED", figures=_scored(ran, tune), curve=ran, error=None)
        elif trial.status == "COMPLETED":
            completed.append(curve)
        settled.append(trial)
    return settled


class _Stopping:
    """Whether a trial is stopped; never before the trials that were begun earlier have ended."""

    def __init__(self, asked: Any, trial_id: str, tune: Tune) -> None:
        self._asked = asked
        self._tune = tune
        self._earlier = [f"{number:0{len(trial_id)}d}" for number in range(int(trial_id))]
        self._outcomes: list[Outcome] = []

    def __call__(self, curve: list[Figures]) -> bool:
        tune = self._tune
        if _rule(tune) is None or len(curve) >= tune.epochs:
            return False
        while len(self._outcomes) < len(self._earlier):
            values = self._asked.get_trial(self._earlier[len(self._outcomes)]).hyperparameters.values
            if OUTCOME not in values:
                return False
            self._outcomes.append(Outcome(**json.loads(values[OUTCOME])))
        own = Outcome("RUNNING", {}, curve)
        every = [Trial(n, {}, tune.epochs, **asdict(each)) for n, each in enumerate([*self._outcomes, own])]
        return _settled(every, tune)[-1].status == "PRUNED"


def _rule(tune: Tune) -> Pruning | None:
    return None if tune.tuner == "hyperband" else tune.pruning


def cost(figures: Figures, objective: str) -> float:
    """The objective, turned so that lower is better."""
    return figures[objective] if DIRECTIONS[objective] == "min" else -figures[objective]


def _scored(curve: list[Figures], tune: Tune) -> Figures:
    """The validation figures of the epoch that counts."""
    figures = min(curve, key=lambda each: cost(each, tune.objective)) if tune.score == "best" else curve[-1]
    return {name: figures[name] for name in FIGURES}


def ranked(found: list[Trial], objective: str) -> list[Trial]:
    """The completed trials, the best first, the earlier one of equals; of each network its best trial."""
    completed = sorted((t for t in found if t.status == "COMPLETED"), key=lambda t: cost(t.figures, objective))
    networks: dict[str, Trial] = {}
    for trial in completed:
        networks.setdefault(json.dumps(trial.values), trial)
    return list(networks.values())


def trial_table(found: list[Trial], dimensions: list[Dimension]) -> pd.DataFrame:
    """One row per trial: number, status, epochs that it ran, figures, then a column for each dimension, empty where it
    is inactive."""
    rows = [
        {
            "trial": trial.number,
            "status": trial.status,
            "epochs": len(trial.curve),
            **{name: trial.figures.get(name) for name in FIGURES},
            **{d.name: _cell(trial.values[d.name]) if d.name in trial.values else None for d in dimensions},
        }
        for trial in found
    ]
    numbers = {"trial": int, "epochs": int, **dict.fromkeys(FIGURES, float)}
    return pd.DataFrame(rows, dtype=object).astype(numbers)  # else 2 beside an empty cell would become 2.0


def curve_table(found: list[Trial]) -> pd.DataFrame:
    """One row per trial and epoch: trial, epoch from 1, loss, accuracy, val_loss, val_accuracy."""
    names = ["loss", "accuracy", "val_loss", "val_accuracy"]
    rows = [
        {"trial": trial.number, "epoch": epoch, **{name: figures[name] for name in names}}
        for trial in found
        for epoch, figures in enumerate(trial.curve, start=1)
    ]
    return pd.DataFrame(rows, columns=["trial", "epoch", *names])


def _cell(value: Value) -> Value:
    return json.dumps(value) if isinstance(value, list | dict) else value


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
