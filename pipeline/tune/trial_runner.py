"""Runs the fits of a search: each is one MLflow run nested under the search, and a failure of its own is an outcome."""

from dataclasses import dataclass, replace

from pydantic import ValidationError

from models.architecture import ShapeError
from pipeline.core import config, provenance, search_space
from pipeline.core.config import AnyNetwork, NetworkConfig
from pipeline.core.errors import TrainingError
from pipeline.core.records import Counts
from pipeline.train.monitor import Epoch, Monitor
from pipeline.train.train import Job, Trainer
from pipeline.tune.search import ShouldStop
from pipeline.tune.trial import Outcome, Trial

# Failures of one network. Anything else would hit the next trial as well, and ends the search.
FAILURES = (TrainingError, ShapeError, ValidationError, MemoryError)


@dataclass(frozen=True)
class TrialRunner:
    """Runs trials and finalists on the same data and device; `parent` is the MLflow run of the search."""

    trainer: Trainer
    parent: str | None = None

    @property
    def settings_digest(self) -> str:
        """Digest of the parameters and the device that the search follows from."""
        params, device = self.trainer.params, self.trainer.device
        settings = params.search.model_dump(mode="json"), params.base.model_dump(mode="json"), params.seed
        return provenance.digest(*settings, device.model_dump())

    @property
    def key(self) -> str:
        """Digest of everything that the search follows from."""
        base = self.trainer.key(self.trainer.spec(self.trainer.params.base))  # data and the user's own code included
        return provenance.digest(self.settings_digest, base, provenance.code_digest("tune"))

    def network(self, trial: Trial) -> AnyNetwork:
        """The base network with the values of a trial."""
        block = search_space.apply(self.trainer.params.base.model_dump(mode="json"), trial.values)
        return config.network_from(block | {"fit": block["fit"] | {"epochs": trial.epochs}})

    def counts(self, trial: Trial, outcome: Outcome | Trial) -> dict[str, int]:
        """Counts of the network of a trial; those of the user's own code are known once it was built."""
        network, info = self.network(trial), self.trainer.data.info
        if isinstance(network, NetworkConfig):
            return Counts.of(network.trace(info.image, len(info.classes))).known
        return outcome.counts

    async def trial(self, trial: Trial, should_stop: ShouldStop) -> Outcome:
        """Train a trial until its end, or until `should_stop`."""
        return await self._outcome(trial, f"trial {trial.number}", None, should_stop)

    async def finalist(self, trial: Trial, seed: int) -> Outcome:
        """Train the network of a trial with another seed to its end; its model is logged to MLflow."""
        complete = replace(trial, epochs=self.trainer.params.search.epochs)
        return await self._outcome(complete, f"finalist {trial.number}, seed {seed}", seed, lambda curve: False)

    async def _outcome(self, trial: Trial, title: str, finalist: int | None, should_stop: ShouldStop) -> Outcome:
        params, tune = self.trainer.params, self.trainer.params.search
        seed = params.seed if finalist is None else finalist
        monitor = _TrialMonitor(should_stop)
        try:
            job = Job(
                title,
                self.trainer.spec(self.network(trial), seed, tune.objective if tune.score == "best" else None),
                kind="trial" if finalist is None else "finalist",
                parent=self.parent,
                params=config.flatten(trial.values) | {"fit.epochs": trial.epochs, "seed": seed},
                log_model=finalist is not None,
            )
            fitted = await self.trainer.train(job, monitor)
        except FAILURES as error:
            return Outcome("FAILED", {}, monitor.curve, f"{type(error).__name__}: {error}", monitor.run_id)
        if fitted is None:
            return Outcome("PRUNED", {}, monitor.curve, None, monitor.run_id)
        metrics = {f"val_{metric}": value for metric, value in fitted.validation.model_dump().items()}
        return Outcome("COMPLETED", metrics, monitor.curve, None, monitor.run_id, fitted.counts.known)


class _TrialMonitor(Monitor):
    """Keeps the curve of a trial, and ends it where the search says so."""

    def __init__(self, should_stop: ShouldStop) -> None:
        super().__init__()
        self._should_stop = should_stop
        self.curve: list[Epoch] = []
        self.run_id: str | None = None

    def on_run(self, run_id: str | None) -> None:
        self.run_id = run_id

    def on_epoch(self, number: int, metrics: Epoch) -> None:
        self.curve.append(metrics)

    def should_stop(self, history: list[Epoch]) -> bool:
        return self._should_stop(history)
