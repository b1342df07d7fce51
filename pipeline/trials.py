"""The fits of a search: each trained, recorded as a run nested under the search, and its failure kept as an outcome."""

import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import keras
import tensorflow as tf
from pydantic import ValidationError

from models.layers import ShapeError
from pipeline import artifacts, config, dataset, provenance, space, tracking, training, training_run
from pipeline.config import Model, Params
from pipeline.dataset import Card, Split
from pipeline.errors import TrainingError
from pipeline.paths import Paths
from pipeline.runtime import Runtime
from pipeline.search import Figures, Outcome, Stops, Trial
from pipeline.stage import Stopwatch

# What may be wrong with one network alone. Anything else would hit the next trial as well, and ends the search.
FAILURES = (TrainingError, ShapeError, ValidationError, MemoryError, tf.errors.ResourceExhaustedError)


@dataclass(frozen=True)
class Workplace:
    """What all fits of a search share."""

    params: Params
    paths: Paths
    card: Card
    train: Split
    validation: Split
    runtime: Runtime
    stopwatch: Stopwatch

    @property
    def identity(self) -> str:
        """Of the parameters that the search follows from."""
        base = self.params.base.model_dump(mode="json")
        settings = self.params.tune.model_dump(mode="json")
        return provenance.digest(settings, base, self.params.seed, asdict(self.runtime))

    @property
    def fingerprint(self) -> str:
        """Of all that the figures follow from except the device, which workers on other machines may not share."""
        settings = self.params.tune.model_dump(mode="json"), self.params.base.model_dump(mode="json"), self.params.seed
        code = provenance.code_digest()
        return provenance.digest(*settings, self.runtime.precision, self.card.digest, code)

    @property
    def tags(self) -> dict[str, str]:
        return {"params.digest": self.identity, "device": self.runtime.name}

    def network(self, values: dict[str, space.Value], epochs: int) -> Model:
        block = space.apply(self.params.base.model_dump(mode="json"), values)
        return config.model_from(block | {"fit": block["fit"] | {"epochs": epochs}})

    def run(self, trial: Trial, stops: Stops, parent: str | None) -> Outcome:
        """Train a trial, until its end or until `stops` says so; or a finalist to its end, its model kept in MLflow."""
        if trial.finalist:
            number, seed = trial.finalist
            name, epochs = f"finalist {number}, seed {seed}", self.params.tune.epochs
            return self._fit(name, trial.values, epochs, seed, parent, lambda curve: False, keep=True)
        name = f"trial {trial.number}"
        return self._fit(name, trial.values, trial.epochs, self.params.seed, parent, stops, keep=False)

    def _fit(
        self,
        name: str,
        values: dict[str, space.Value],
        epochs: int,
        seed: int,
        parent: str | None,
        stops: Stops,
        keep: bool,
    ) -> Outcome:
        tune, curve, stopped = self.params.tune, list[Figures](), list[int]()
        keras.utils.clear_session()  # the graphs of the fit before, which nothing else would free

        def stopping(history: list[Figures]) -> bool:
            if stops(history):
                stopped.append(len(history))
            return bool(stopped)

        def recorded(record: Callable[[int, Figures], None]) -> Callable[[int, Figures], None]:
            def on_epoch(number: int, figures: Figures) -> None:
                curve.append(figures)
                record(number, figures)

            return on_epoch

        run_id = None
        try:
            with tracking.run(
                self.paths, self.card, name, "tune", self.stopwatch, tags=self.tags, parent=parent
            ) as run:
                run_id = run.id
                run.params(config.flatten(values) | {"fit.epochs": epochs, "seed": seed})
                network = self.network(values, epochs)
                run.metrics(training_run.counts(training_run.layer_table(network, self.card)))
                with self.stopwatch("search"):
                    fitted = training.fit(
                        network,
                        self.card,
                        self.train,
                        self.validation,
                        seed=seed,
                        precision=self.runtime.precision,
                        on_epoch=recorded(run.epoch),
                        stops=stopping,
                        best=tune.objective if tune.score == "best" else None,
                    )
                run.metrics({f"validation_{figure}": value for figure, value in fitted.validation.items()})
                if stopped:
                    run.tags(pruned(stopped[0], epochs))
                if keep:
                    with tempfile.TemporaryDirectory() as folder:
                        saved = Path(folder) / "finalist.keras"
                        artifacts.save(fitted.model, saved)
                        training_run.record_model(run, name, fitted.model, saved, self.train, self.card)
        except FAILURES as error:
            return Outcome("FAILED", {}, curve, f"{type(error).__name__}: {error}", run_id)
        figures = {f"val_{figure}": value for figure, value in fitted.validation.items()}
        return Outcome("COMPLETED", figures, curve, None, run_id)


def workplace(params: Params, paths: Paths, runtime: Runtime, stopwatch: Stopwatch) -> Workplace:
    """Load what the fits of a search share."""
    with stopwatch("data"):
        card = dataset.load_card(paths)
        train, validation = dataset.load(paths, "train"), dataset.load(paths, "validation")
    return Workplace(params, paths, card, train, validation, runtime, stopwatch)


def pruned(epoch: int, epochs: int) -> dict[str, str]:
    """The tag of a trial that was stopped early."""
    return {"pruned": f"after epoch {epoch} of {epochs}"}
