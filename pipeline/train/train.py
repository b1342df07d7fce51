"""Open a run, fit, log and save: once, for stages, trials and replicates."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from models import architecture, inference
from pipeline.core import atomic, baseline, config, provenance
from pipeline.core.command import Stopwatch
from pipeline.core.config import NetworkConfig, Params
from pipeline.core.dataset import TrainingData, load_training
from pipeline.core.paths import MODEL, Paths
from pipeline.core.records import RECORD, Counts, Device, TrainingRecord
from pipeline.runtime import saved_model, unusual
from pipeline.tracking import Description, Kind, ModelToLog, Run, Tracker
from pipeline.train.callbacks import Epoch, Monitor
from pipeline.train.fit import FitSpec, Fitted, fit

MAX_TITLE = 200  # characters; databases of MLflow hold 250
EXAMPLE = 2  # images that are logged as the example of a model's input


@dataclass(frozen=True)
class Job:
    """One fit and what is kept of it.

    name: of the network.
    title: of the MLflow run; the name of the network unless given.
    kind: of the MLflow run.
    parent: the MLflow run to nest the run under.
    params: to log instead of the complete configuration.
    checkpoint: the file to resume from; None: a killed fit begins anew.
    output: the folder of model.keras, history.csv and record.json; None: nothing is written.
    log_model: whether MLflow keeps the model.
    """

    name: str
    spec: FitSpec
    title: str | None = None
    kind: Kind = "network"
    parent: str | None = None
    params: Mapping[str, Any] | None = None
    checkpoint: Path | None = None
    output: Path | None = None
    log_model: bool = False


@dataclass(frozen=True)
class Trainer:
    """Runs the fits of one stage on the same data and device."""

    params: Params
    paths: Paths
    data: TrainingData
    device: Device
    tracker: Tracker

    @classmethod
    def create(cls, stage: str, params: Params, paths: Paths, device: Device, stopwatch: Stopwatch) -> "Trainer":
        """Load the data that the fits of a stage share.

        Raises:
            DataError: there is no validated data.
        """
        with stopwatch("data"):
            data = load_training(paths)
        return cls(params, paths, data, device, Tracker(paths, data.info, stage, stopwatch, {"device": device.name}))

    def spec(self, network: NetworkConfig, seed: int | None = None, best: str | None = None) -> FitSpec:
        """The specification of a fit on this device; `seed` is that of params.yaml unless given."""
        return FitSpec(network, self.params.seed if seed is None else seed, self.device.precision, best)

    def settings_digest(self, spec: FitSpec) -> str:
        """Digest of everything that a fit's result follows from, except data and code."""
        return provenance.digest(spec.network.model_dump(mode="json"), spec.seed, self.device.model_dump())

    def key(self, spec: FitSpec) -> str:
        """Digest of everything that a fit's result follows from."""
        code = provenance.code_digest(self.tracker.stage)
        return provenance.digest(self.settings_digest(spec), self.data.info.digest, code)

    def title(self, name: str, network: NetworkConfig) -> str:
        """The name of a network's run: that of the network, with the changes of a DVC experiment."""
        return " · ".join(filter(None, [name, baseline.changes(self.paths, name, network)]))[:MAX_TITLE]

    def train(self, job: Job, monitor: Monitor | None = None) -> Fitted:
        """Open a run, fit, log and save.

        Raises:
            TrainingError: the loss is no longer a number.
            ShapeError: the output of a layer would be empty.
            DataError: the output cannot be written.
        """
        if job.output:
            atomic.require_writable(job.output / RECORD)
        monitor = monitor or Monitor(job.title or job.name)
        stopwatch, info, network = self.tracker.stopwatch, self.data.info, job.spec.network
        with self.tracker.run(job.title or job.name, parent=job.parent) as run:
            monitor.on_run(run.id)
            layers = architecture.trace(network, info.image, len(info.classes))
            counts = Counts.of(layers)
            about = self.description(job)
            run.tags({"params.digest": self.settings_digest(job.spec)} | about.tags)
            run.params(about.params | dict(job.params or self._settings(job.spec)))
            run.metrics(counts.model_dump())
            if job.output:
                run.table("layers", layer_table(layers))
                run.dataset(info, "training")
                if self.paths.validation.is_dir():  # to look at, not to depend on
                    run.file(self.paths.validation)
            with stopwatch("fit"):
                fitted = fit(job.spec, self.data, _Logged(monitor, run), job.checkpoint)
            run.metrics({f"validation_{metric}": value for metric, value in fitted.validation.model_dump().items()})
            if job.output:
                self._save(job, job.output, fitted, counts, run)
            elif job.log_model:
                with tempfile.TemporaryDirectory() as folder:
                    file = Path(folder) / MODEL
                    saved_model.save(fitted.model, file)
                    self._log_model(job, fitted, file, run)
        return fitted

    def _save(self, job: Job, output: Path, fitted: Fitted, counts: Counts, run: Run) -> None:
        history = pd.DataFrame(fitted.history)
        history.insert(0, "epoch", range(1, len(history) + 1))
        with self.tracker.stopwatch("writing"):
            sha256 = saved_model.save(fitted.model, output / MODEL)
            with atomic.file(output / "history.csv") as part:
                history.to_csv(part, index=False)
        if job.log_model:
            self._log_model(job, fitted, output / MODEL, run)
        with self.tracker.stopwatch("limits"):
            limits = unusual.limits(fitted.model, self.data.validation.images) if job.log_model else None
        record = TrainingRecord(
            name=job.name,
            network=job.spec.network,
            base=self.params.base_of(job.name),
            seed=job.spec.seed,
            dataset=self.data.info.dataset,
            data_digest=self.data.info.digest,
            settings_digest=self.settings_digest(job.spec),
            device=self.device,
            origin=provenance.origin(self.paths.root, self.tracker.stage),
            sha256=sha256,
            counts=counts,
            validation=fitted.validation,
            limits=limits,
            run_id=run.id,
            model_uri=run.model_uri,
        )
        with self.tracker.stopwatch("writing"):
            record.write(output)

    def _log_model(self, job: Job, fitted: Fitted, file: Path, run: Run) -> None:
        info = self.data.info
        example = self.data.train.images[:EXAMPLE].astype(np.float32) / 255
        probabilities = inference.probabilities(fitted.model, example)
        metadata = {"dataset": info.dataset, "classes": info.classes}
        run.model(ModelToLog(job.title or job.name, file, example, probabilities, metadata))

    def description(self, job: Job) -> Description:
        """The description of a fit's run."""
        params, paths, network = self.params, self.paths, job.spec.network
        sought = job.kind in ("trial", "finalist")
        base = params.search.base if sought else params.base_of(job.name)
        record = {
            "network": paths.training(job.name) / RECORD,
            "replicate": paths.replicate(job.name, job.spec.seed) / RECORD,
            "trial": paths.search / "trials.csv",
            "finalist": paths.search / "finalists.csv",
        }[job.kind]
        return Description(
            job.kind,
            network,
            (base, params.network(base)) if base else None,
            "" if sought else baseline.changes(paths, job.name, network),
            record.relative_to(paths.root),
        )

    def _settings(self, spec: FitSpec) -> dict[str, Any]:
        """The complete configuration of a fit under dotted names."""
        data = self.params.data.model_dump()
        settings = config.flatten({"seed": spec.seed, "data": data, **spec.network.model_dump(mode="json")})
        return settings | {"device": self.device.kind, "precision": self.device.precision}


class _Logged(Monitor):
    """Logs every epoch to a run before it hands it to another monitor."""

    def __init__(self, monitor: Monitor, run: Run) -> None:
        super().__init__(monitor.title)
        self._monitor = monitor
        self._run = run

    def on_epoch(self, number: int, metrics: Epoch) -> None:
        self._run.epoch(number, metrics)
        self._monitor.on_epoch(number, metrics)

    def should_stop(self, history: list[Epoch]) -> bool:
        return self._monitor.should_stop(history)


def train_network(name: str, network: NetworkConfig, trainer: Trainer) -> None:
    """Train a network with the project's parameters; write its model, history and record.

    Killed, it resumes from its last checkpoint when it is started again with the same settings, data and code.
    """
    spec, paths = trainer.spec(network), trainer.paths
    job = Job(
        name,
        spec,
        trainer.title(name, network),
        checkpoint=paths.resumable / "train" / f"{name}-{trainer.key(spec)}.npz",
        output=paths.training(name),
        log_model=True,
    )
    trainer.train(job)


def layer_table(layers: list[architecture.Traced]) -> pd.DataFrame:
    """One row per layer: layer, kind, output shape, parameters, non_trainable, multiply_adds of one image."""
    return pd.DataFrame(
        {
            "layer": row.layer.name,
            "kind": type(row.layer).__name__,
            "output": "x".join(map(str, row.output_shape)),
            "parameters": row.parameters,
            "non_trainable": row.non_trainable,
            "multiply_adds": row.multiply_adds,
        }
        for row in layers
    )
