"""The search: runs the trials that an oracle proposes, and prunes them by the trials begun before them."""

import asyncio
import json
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from pipeline.core import atomic
from pipeline.core.search_space import Value
from pipeline.core.sections import Tune
from pipeline.tune.oracles import Block, Oracle, make_oracle
from pipeline.tune.pruning import Curve, stopped_after
from pipeline.tune.trial import METRICS, Metrics, Outcome, Trial, cost

ShouldStop = Callable[[list[Metrics]], bool]  # from the curve so far
RunTrial = Callable[[Trial, ShouldStop], Awaitable[Outcome]]
OnEnd = Callable[[Trial], None]


class Search:
    """A search whose outcomes are kept in a folder: started again, it runs only the trials that are left.

    Args:
        base: the complete block of the base network.
        folder: to be used for this space, seed, data and code only.
        on_end: called with every trial that ends, also with those that ended before an interruption.
    """

    def __init__(self, tune: Tune, base: Block, seed: int, folder: Path, on_end: OnEnd = lambda trial: None) -> None:
        self._tune, self._folder, self._on_end = tune, folder / "trials", on_end
        self._records = {int(path.stem): load(path) for path in sorted(self._folder.glob("*.json"))}
        self._recorded = {_key(record["network"], record["epochs"]): record for record in self._records.values()}
        known = {number: record["values"] for number, record in self._records.items()}
        self.oracle: Oracle = make_oracle(tune, base, seed, known)
        self._trials: list[Trial] = []
        self._settled: list[Trial] = []  # with pruning, up to the first that has not ended
        self._completed: list[Curve] = []  # of these

    async def run(self, run_trial: RunTrial) -> list[Trial]:
        """Run all trials; returns them in the order in which they were begun, with pruning settled.

        The oracle learns the outcomes in the order of the trials, and those of Bayesian search and Hyperband after a
        fixed number of further proposals: what is tried does not depend on which trial ends first.

        Args:
            run_trial: trains one trial. An exception from it ends the search: failures of a trial are outcomes.
        """
        running: deque[tuple[Trial, asyncio.Task[None]]] = deque()
        async with asyncio.TaskGroup() as group:
            while True:
                trial = self.oracle.propose() if len(running) < self._most else None
                if trial is not None:
                    self._trials.append(trial)
                    running.append((trial, group.create_task(self._run(trial, run_trial))))
                elif running:
                    trial, task = running.popleft()
                    await task
                    self.oracle.tell(self._settled[trial.number])
                else:
                    return self._settled

    @property
    def _most(self) -> int:
        """The number of trials whose outcomes the oracle need not know before it proposes the next."""
        return self._tune.concurrent_trials if self._tune.adaptive else self._tune.trials

    async def _run(self, trial: Trial, run_trial: RunTrial) -> None:
        recorded = self._recorded.get(_key(trial.values, trial.epochs))
        outcome = Outcome(**recorded["outcome"]) if recorded else await run_trial(trial, self._pruning_check(trial))
        values = self.oracle.values(trial.number)
        record = {"network": trial.values, "epochs": trial.epochs, "values": values, "outcome": asdict(outcome)}
        if self._records.get(trial.number) != record:
            save(self._folder / f"{trial.number:05d}.json", record)
        self._trials[trial.number] = trial.ended(outcome)
        self._on_end(self._trials[trial.number])
        while len(self._settled) < len(self._trials) and self._trials[len(self._settled)].status != "RUNNING":
            self._settle(self._trials[len(self._settled)])

    def _settle(self, trial: Trial) -> None:
        """Judge a trial by those begun before it, so that the result does not depend on how many ran side by side.

        A trial that ran past its pruning point, because earlier trials were unfinished, is cut off there.
        """
        epoch = self._stopped_after(trial.curve, trial.epochs)
        if epoch is not None:
            kept = trial.curve[:epoch]
            trial = replace(trial, status="PRUNED", metrics=_final(kept, self._tune), curve=kept, error=None)
        elif trial.status == "COMPLETED":
            self._completed.append(self._costs(trial.curve))
        self._settled.append(trial)

    def _pruning_check(self, trial: Trial) -> ShouldStop:
        """False until all trials begun before this one have ended."""

        def should_stop(curve: list[Metrics]) -> bool:
            return len(self._settled) == trial.number and self._stopped_after(curve, trial.epochs) is not None

        return should_stop

    def _stopped_after(self, curve: list[Metrics], epochs: int) -> int | None:
        rule = None if self._tune.tuner == "hyperband" else self._tune.pruning  # Hyperband has a rule of its own
        return stopped_after(self._costs(curve), self._completed, epochs, rule) if rule else None

    def _costs(self, curve: list[Metrics]) -> Curve:
        return [cost(metrics, self._tune.objective) for metrics in curve]


def load(path: Path) -> dict[str, Any]:
    """Read a record of `save`."""
    return json.loads(path.read_text(encoding="utf-8"))


def save(path: Path, record: dict[str, Any]) -> None:
    """Write a record in one step, so that a kill leaves it complete or absent."""
    atomic.write_text(path, json.dumps(record, indent=1))


def _key(values: dict[str, Value], epochs: int) -> str:
    return json.dumps([values, epochs])


def _final(curve: list[Metrics], tune: Tune) -> Metrics:
    """The validation metrics of the epoch that counts: the last, or the one with the best objective."""
    metrics = min(curve, key=lambda epoch: cost(epoch, tune.objective)) if tune.score == "best" else curve[-1]
    return {name: metrics[name] for name in METRICS}
