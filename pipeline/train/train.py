"""Open a run, fit, log and save: once, for stages, trials and replicates."""

import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import bdtrc

from models.architecture import Traced
from models.own_code import FOLDER, LayerRow, OwnCode, OwnNetwork, digest
from pipeline.core import atomic, baseline, config, own_files, provenance
from pipeline.core.advice import advice
from pipeline.core.command import Stopwatch
from pipeline.core.config import AnyNetwork, NetworkConfig, Params
from pipeline.core.dataset import TrainingData, load_training
from pipeline.core.errors import DataError
from pipeline.core.paths import MODEL, Paths
from pipeline.core.records import RECORD, Counts, Device, TrainingRecord
from pipeline.engine.engine import Engine
from pipeline.tracking import Description, Kind, ModelToLog, Run, Tracker
from pipeline.train import stored
from pipeline.train.monitor import Epoch, Monitor
from pipeline.train.task import RUN, FitOutcome, FitSpec, FitTask, FittedModel

ALPHA = 0.05  # the chance that a network that guesses is not reported
EXAMPLE = 2  # training images that serve as the example of a model's input
MAX_TITLE = 200  # characters; databases of MLflow hold 250


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
    others: the folders of trainings whose result is used instead of a fit, if they were the same fit.
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
    others: Sequence[Path] = ()


@dataclass(frozen=True)
class Trainer:
    """Runs the fits of one stage on the same data, with an engine."""

    params: Params
    paths: Paths
    data: TrainingData
    engine: Engine
    tracker: Tracker
    files: dict[str, bytes] = field(default_factory=dict)  # of own_networks/ that were read, by name

    @classmethod
    def create(cls, stage: str, params: Params, paths: Paths, engine: Engine, stopwatch: Stopwatch) -> "Trainer":
        """Load the data that the fits of a stage share, and hand them to the engine.

        Raises:
            DataError: there is no validated data.
            DeviceError: a GPU is asked for and there is none.
        """
        with stopwatch("data"):
            data = load_training(paths)
            engine.share(data)
        with stopwatch("imports"):
            device = engine.device
        return cls(params, paths, data, engine, Tracker(paths, data.info, stage, stopwatch, {"device": device.name}))

    @property
    def device(self) -> Device:
        return self.engine.device

    def spec(self, network: AnyNetwork, seed: int | None = None, best: str | None = None) -> FitSpec:
        """The specification of a fit on this device; `seed` is that of params.yaml unless given.

        Raises:
            DataError: a file of the network was changed since the stage `config` ran.
        """
        seed = self.params.seed if seed is None else seed
        files = {name: self._file(name) for name in own_files.names(network)}
        return FitSpec(network, seed, self.device.precision, best, self.device.replicas, files)

    def _file(self, name: str) -> bytes:
        if name not in self.files:
            content = own_files.read(name, self.paths.own_networks)
            if own_files.recorded(self.paths.network_files).get(name, digest(content)) != digest(content):
                raise DataError(f"{FOLDER}/{name}: changed since the stage `config` ran; run `dvc repro`")
            self.files[name] = content
        return self.files[name]

    def settings_digest(self, spec: FitSpec) -> str:
        """Digest of everything that a fit's result follows from, except data and code."""
        return provenance.digest(spec.network.model_dump(mode="json"), spec.seed, self.device.model_dump())

    def key(self, spec: FitSpec) -> str:
        """Digest of everything that a fit's result follows from."""
        code = provenance.code_digest("train")
        return provenance.digest(self.settings_digest(spec), self.data.info.digest, code, _digests(spec))

    def title(self, name: str, network: AnyNetwork) -> str:
        """The name of a network's run: that of the network, with the changes of a DVC experiment."""
        return " · ".join(filter(None, [name, baseline.changes(self.paths, name, network)]))[:MAX_TITLE]

    async def train(self, job: Job, monitor: Monitor | None = None) -> FitOutcome | None:
        """Wait until the fit can begin, open a run, fit or use the result of the same fit, log and save.

        Returns:
            The outcome; None if the monitor ended the fit.

        Raises:
            TrainingError: the loss is no longer a number, or the fit killed its workers.
            ShapeError: the output of a layer would be empty.
            DataError: the output cannot be written.
            ClusterError: the cluster that runs the fit is gone.
        """
        if job.output:
            atomic.require_writable(job.output / RECORD)
        monitor = monitor or Monitor(job.title or job.name)
        info, network = self.data.info, job.spec.network
        async with self.engine.slot():
            with self.tracker.run(job.title or job.name, parent=job.parent) as run:
                monitor.on_run(run.id)
                about = self.description(job)
                run.tags({"params.digest": self.settings_digest(job.spec)} | about.tags)
                run.params(about.params | dict(job.params or self._settings(job.spec)))
                if isinstance(network, NetworkConfig):
                    layers = network.trace(info.image, len(info.classes))
                    _log_layers(job, run, layers, Counts.of(layers))
                if job.output:
                    run.dataset(info, "training")
                    if self.paths.validation.is_dir():  # to look at, not to depend on
                        run.file(self.paths.validation)
                outcome = self._earlier(job, run) or await self._fitted(job, monitor, run)
                if outcome is not None:
                    if not isinstance(network, NetworkConfig):  # known now that it was built
                        _log_layers(job, run, outcome.layers, outcome.counts)
                    scores = outcome.validation.model_dump()
                    run.metrics({f"validation_{metric}": value for metric, value in scores.items()})
                    if outcome.model:
                        self._keep(job, outcome, outcome.model, run)
        return outcome

    def _earlier(self, job: Job, run: Run) -> FitOutcome | None:
        """The outcome of the same fit, as of the base of a search that no other network has beaten."""
        found = stored.find(job.others, self.key(job.spec)) if job.others else None
        if found is None:
            return None
        record, outcome = found
        print(f"{job.title or job.name}: the same fit as {record.name}, whose result is used", flush=True)
        if record.run_id:
            run.tags({"same.fit": record.run_id})
        for number, metrics in enumerate(outcome.history):
            run.epoch(number, metrics)
        return outcome

    async def _fitted(self, job: Job, monitor: Monitor, run: Run) -> FitOutcome | None:
        """Run the fit; each epoch goes to the monitor and to the run."""
        history: list[Epoch] = []

        def add(number: int, metrics: Epoch) -> None:
            history.append(metrics)
            run.epoch(number, metrics)
            monitor.on_epoch(number, metrics)

        def on_epoch(message: Any) -> bool:
            number, metrics = message
            if number == len(history):  # not an epoch that is repeated, after the death of a worker
                add(number, metrics)
            return not monitor.should_stop(history)

        keep = job.output is not None or job.log_model
        checkpoint = job.checkpoint if self.engine.local else None  # a file of this machine
        task = FitTask(job.spec, keep, job.output is not None and job.log_model, checkpoint)
        monitor.on_begin(job.spec.network.fit.epochs)
        try:
            outcome = await self.engine.run(RUN, task, on_epoch)
            for number in range(len(history), len(outcome.history) if outcome else 0):  # messages may be late
                add(number, outcome.history[number])
        finally:
            monitor.on_end()
        return outcome

    def _keep(self, job: Job, outcome: FitOutcome, model: FittedModel, run: Run) -> None:
        if job.output is None:
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / MODEL
                file.write_bytes(model.file)
                self._log_model(job, file, run)
            return
        with self.tracker.stopwatch("writing"):
            stored.write(job.output, outcome.history, model)
        if job.log_model:
            self._log_model(job, job.output / MODEL, run)
        record = TrainingRecord(
            name=job.name,
            network=job.spec.network,
            base=self.params.base_of(job.name),
            seed=job.spec.seed,
            dataset=self.data.info.dataset,
            data_digest=self.data.info.digest,
            settings_digest=self.settings_digest(job.spec),
            key=self.key(job.spec),
            device=self.device,
            origin=provenance.origin(self.paths.root, self.tracker.stage),
            sha256=sha256(model.file).hexdigest(),
            counts=outcome.counts,
            validation=outcome.validation,
            limits=model.limits,
            run_id=run.id,
            model_uri=run.model_uri,
            files=_digests(job.spec),
        )
        with self.tracker.stopwatch("writing"):
            record.write(job.output)

    def _log_model(self, job: Job, file: Path, run: Run) -> None:
        network, files = job.spec.network, job.spec.files
        code = OwnCode(network.file, files[network.file]) if isinstance(network, OwnNetwork) else None
        run.model(ModelToLog(job.title or job.name, file, self.data.train.images[:EXAMPLE], self.data.info, code))

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
        return settings | {
            "device": self.device.kind,
            "precision": self.device.precision,
            "replicas": spec.replicas,
        }


async def train_network(name: str, network: AnyNetwork, trainer: Trainer) -> None:
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
        others=[paths.training(other) for other in trainer.params.networks if other != name],
    )
    outcome = await trainer.train(job)
    if outcome and (reason := no_better_than_one_class(outcome.validation.accuracy, trainer.data.validation.labels)):
        print(f"warning: {name}: {reason}; {advice(network)}", file=sys.stderr, flush=True)


def no_better_than_one_class(accuracy: float, labels: np.ndarray) -> str | None:
    """Compare an accuracy with that of answering the most frequent class; None if it is significantly better."""
    share = float(np.bincount(labels).max() / len(labels))
    right = round(accuracy * len(labels))
    p = float(bdtrc(right - 1, len(labels), share)) if right else 1.0  # of as many right answers, or more
    if p < ALPHA:
        return None
    return (
        f"{accuracy:.2%} of {len(labels)} validation images, not significantly more than by answering one class "
        f"({share:.2%}, p = {p:.2g})"
    )


def _digests(spec: FitSpec) -> dict[str, str]:
    return {name: digest(content) for name, content in spec.files.items()}


def _log_layers(job: Job, run: Run, layers: Sequence[Traced | LayerRow] | None, counts: Counts) -> None:
    run.metrics(counts.known)
    if job.output and layers:
        run.table("layers", layer_table(layers))


def layer_table(layers: Sequence[Traced | LayerRow]) -> pd.DataFrame:
    """One row per layer: layer, kind, output shape, parameters, non_trainable, multiply_adds of one image."""
    return pd.DataFrame(
        {
            **_shown(row),
            "parameters": row.parameters,
            "non_trainable": row.non_trainable,
            "multiply_adds": row.multiply_adds,
        }
        for row in layers
    )


def _shown(row: Traced | LayerRow) -> dict[str, str]:
    if isinstance(row, LayerRow):
        name, kind, shape = row.name, row.kind, row.output
    else:
        name, kind, shape = row.layer.name, type(row.layer).__name__, row.output_shape
    return {"layer": name, "kind": kind, "output": "x".join(map(str, shape))}
