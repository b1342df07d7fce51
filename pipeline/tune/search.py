"""The search: runs the trials that an oracle hands out, and prunes them by the trials begun before them."""

import time
from dataclasses import asdict, replace
from typing import Any

from pipeline.core.config import Pruning, Tune
from pipeline.tune import payload
from pipeline.tune.oracles import Oracle
from pipeline.tune.pruning import stopped_after
from pipeline.tune.trial import METRICS, Metrics, Outcome, RunTrial, Trial, cost

POLL = 0.2  # seconds between requests of an idle worker


def run_trials(oracle: Any, worker_name: str, tune: Tune, run: RunTrial) -> None:
    """Run trials until none are left.

    Args:
        oracle: an Oracle, or Keras Tuner's client of one in another process.
        run: trains one trial. An exception from it ends the search: failures of the trial itself are outcomes.
    """
    while True:
        offered = oracle.create_trial(worker_name)
        if offered.status == "STOPPED":
            return
        if offered.status == "IDLE":
            time.sleep(POLL)
            continue
        outcome = run(payload.attached(offered), PruningCheck(oracle, offered.trial_id, tune))
        payload.finish(offered, outcome)
        oracle.end_trial(offered)


def settled_trials(oracle: Oracle) -> list[Trial]:
    """All finished trials, in the order in which they were begun, with pruning settled.

    Each trial is judged by those begun before it, so the result does not depend on how many ran side by side. A trial
    that ran past its pruning point, because earlier trials were unfinished, is cut off there.
    """
    return _settled(all_fits(oracle), oracle.tune)


def all_fits(oracle: Oracle) -> list[Trial]:
    """All trials as they were run, in the order in which they were begun."""
    return [oracle.trial(number) for number in range(len(oracle.start_order))]


class PruningCheck:
    """The `ShouldStop` of a running trial; False until all trials begun before it have ended."""

    def __init__(self, oracle: Any, trial_id: str, tune: Tune) -> None:
        self._oracle = oracle
        self._tune = tune
        self._earlier = [f"{number:0{len(trial_id)}d}" for number in range(int(trial_id))]
        self._outcomes: list[Outcome] = []

    def __call__(self, curve: list[Metrics]) -> bool:
        tune = self._tune
        if _rule(tune) is None or len(curve) >= tune.epochs:
            return False
        for trial_id in self._earlier[len(self._outcomes) :]:
            outcome = payload.outcome_of(self._oracle.get_trial(trial_id))
            if outcome is None:
                return False
            self._outcomes.append(outcome)
        outcomes = [*self._outcomes, Outcome("RUNNING", {}, curve)]
        trials = [Trial(number, {}, tune.epochs, **asdict(outcome)) for number, outcome in enumerate(outcomes)]
        return _settled(trials, tune)[-1].status == "PRUNED"


def _settled(trials: list[Trial], tune: Tune) -> list[Trial]:
    rule = _rule(tune)
    completed: list[list[float]] = []
    settled = []
    for trial in trials:
        curve = [cost(metrics, tune.objective) for metrics in trial.curve]
        epoch = stopped_after(curve, completed, trial.epochs, rule) if rule else None
        if epoch is not None:
            kept = trial.curve[:epoch]
            trial = replace(trial, status="PRUNED", metrics=_final(kept, tune), curve=kept, error=None)
        elif trial.status == "COMPLETED":
            completed.append(curve)
        settled.append(trial)
    return settled


def _rule(tune: Tune) -> Pruning | None:
    return None if tune.tuner == "hyperband" else tune.pruning  # Hyperband has a rule of its own


def _final(curve: list[Metrics], tune: Tune) -> Metrics:
    """The validation metrics of the epoch that counts: the last, or the one with the best objective."""
    metrics = min(curve, key=lambda epoch: cost(epoch, tune.objective)) if tune.score == "best" else curve[-1]
    return {name: metrics[name] for name in METRICS}
