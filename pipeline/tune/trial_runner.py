"""Runs the fits of a search: each is one MLflow run nested under the search, and a failure of its own is an outcome."""

from dataclasses import dataclass

import keras
import tensorflow as tf
from pydantic import ValidationError

from models.architecture import ShapeError
from pipeline.core import config, provenance, search_space
from pipeline.core.command import Stopwatch
from pipeline.core.config import NetworkConfig, Params
from pipeline.core.errors import TrainingError
from pipeline.core.paths import Paths
from pipeline.core.records import Device
from pipeline.train.callbacks import Epoch, Monitor
from pipeline.train.train import Job, Trainer
from pipeline.tune.trial import Outcome, ShouldStop, Trial

# Failures of one network. Anything else would hit the next trial as well, and ends the search.
FAILURES = (TrainingError, ShapeError, ValidationError, MemoryError, tf.errors.ResourceExhaustedError)


@dataclass(frozen=True)
class TrialRunner:
    """Runs trials and finalists on the same data and device."""

    trainer: Trainer

    @property
    def settings_digest(self) -> str:
        """Digest of the parameters and the device that the search follows from."""
        return provenance.digest(*_settings(self.trainer.params), self.trainer.device.model_dump())

    @property
    def key(self) -> str:
        """Digest of everything that the search follows from."""
        return provenance.digest(self.settings_digest, self.trainer.data.info.digest, provenance.code_digest("tune"))

    @property
    def fingerprint(self) -> str:
        """Digest of everything that the metrics follow from except the device: workers on other machines may differ."""
        trainer, code = self.trainer, provenance.code_digest("tune")
        return provenance.digest(*_settings(trainer.params), trainer.device.precision, trainer.data.info.digest, code)

    def network(self, values: dict[str, search_space.Value], epochs: int) -> NetworkConfig:
        """The base network with the values of a trial."""
        block = search_space.apply(self.trainer.params.base.model_dump(mode="json"), values)
        return config.network_from(block | {"fit": block["fit"] | {"epochs": epochs}})

    def run(self, trial: Trial, should_stop: ShouldStop, parent: str | None) -> Outcome:
        """Train a trial until its end or until `should_stop`; a finalist to its end, its model logged to MLflow."""
        params, tune = self.trainer.params, self.trainer.params.search
        title, epochs, seed = f"trial {trial.number}", trial.epochs, params.seed
        if trial.finalist:
            number, seed = trial.finalist
            title, epochs, should_stop = f"finalist {number}, seed {seed}", tune.epochs, lambda curve: False
        keras.utils.clear_session()  # frees the graphs of the fit before
        monitor = _TrialMonitor(should_stop)
        try:
            network = self.network(trial.values, epochs)
            job = Job(
                title,
                self.trainer.spec(network, seed, tune.objective if tune.score == "best" else None),
                kind="finalist" if trial.finalist else "trial",
                parent=parent,
                params=config.flatten(trial.values) | {"fit.epochs": epochs, "seed": seed},
                log_model=trial.finalist is not None,
            )
            fitted = self.trainer.train(job, monitor)
        except FAILURES as error:
            return Outcome("FAILED", {}, monitor.curve, f"{type(error).__name__}: {error}", monitor.run_id)
        metrics = {f"val_{metric}": value for metric, value in fitted.validation.model_dump().items()}
        return Outcome("COMPLETED", metrics, monitor.curve, None, monitor.run_id)


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


def start(params: Params, paths: Paths, device: Device, stopwatch: Stopwatch) -> TrialRunner:
    """Load what the fits of a search share.

    Raises:
        DataError: there is no validated data.
    """
    return TrialRunner(Trainer.create("tune", params, paths, device, stopwatch))


def _settings(params: Params) -> tuple[object, ...]:
    return params.search.model_dump(mode="json"), params.base.model_dump(mode="json"), params.seed
