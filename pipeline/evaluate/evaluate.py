"""Measure the networks on the test images; store, log and register the results."""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np
import pandas as pd

from pipeline.core import dataset, records
from pipeline.core.command import Stopwatch
from pipeline.core.config import Params
from pipeline.core.paths import MODEL, Paths
from pipeline.core.records import Device, TrainingRecord
from pipeline.evaluate import baselines, explanations, out_of_distribution, robustness, scoring, significance, tables
from pipeline.evaluate.scoring import EvaluationData, NetworkScores
from pipeline.runtime import saved_model
from pipeline.runtime.predictor import Predict, predictor
from pipeline.runtime.scores import scores
from pipeline.tracking import ModelToLog, Tracker, registry

EXAMPLE = 2  # images that are logged as the example of a model's input


def evaluate(params: Params, paths: Paths, device: Device, stopwatch: Stopwatch) -> None:
    """Evaluate the networks of params.yaml and the search's winner.

    Raises:
        DataError: a network was not trained, or on other data, or its file is damaged; or another dataset that
            params.yaml names is missing.
    """
    trained = {name: records.load_training(paths, name) for name in params.trained}
    replicates = {name: records.load_replicates(paths, name, params.replicate_seeds) for name in trained}
    with stopwatch("data"):
        data = load_data(params, paths)
    for record in trained.values():
        record.require_data(data.info.digest)
    tracker = Tracker(paths, data.info, "evaluate", stopwatch, {"device": device.name})
    Evaluation(params, paths, data, device, tracker).run(trained, replicates)


def load_data(params: Params, paths: Paths) -> EvaluationData:
    """Read the images to measure on.

    Raises:
        DataError: they are missing or damaged.
    """
    return EvaluationData(
        dataset.load_info(paths),
        dataset.load(paths, "test"),
        dataset.load(paths, "validation"),
        out_of_distribution.load_images(params.evaluate.robustness.out_of_distribution_dataset, paths),
    )


@dataclass(frozen=True)
class Evaluation:
    """One evaluation: settings, data, device and the runs to log to."""

    params: Params
    paths: Paths
    data: EvaluationData
    device: Device
    tracker: Tracker

    def run(
        self, trained: Mapping[str, TrainingRecord], replicates: Mapping[str, Mapping[int, TrainingRecord]]
    ) -> None:
        """Measure the networks, write artifacts/evaluation, log to MLflow and register the champion."""
        stopwatch, test = self.tracker.stopwatch, self.data.test
        example = explanations.middle_example(test.labels)
        predictors, scored, explained = {}, {}, {}
        for name, record in trained.items():
            same = next((other for other in scored if trained[other].sha256 == record.sha256), None)
            if same:  # as where a search was won by its base
                predictors[name] = predictors[same] = _once(predictors[same])
                scored[name], explained[name] = scored[same], explained[same]
                continue
            with stopwatch("scoring"):
                model = saved_model.load(self.paths.model(name), record.sha256, record.code(self.paths))
                predictors[name] = predictor(model, self.params.evaluate.batch_size)
                scored[name] = scoring.score(predictors[name], self.data, self.device.kind)
            with stopwatch("explanations"):
                explained[name] = explanations.explain(model, test, scored[name].probabilities, example)
        probabilities = {name: each.probabilities for name, each in scored.items()}
        found = tables.score_tables(scored) | self._robustness(predictors)
        found["comparisons"] = significance.compare(
            {name: each.argmax(axis=1) for name, each in probabilities.items()}, test.labels
        )
        with stopwatch("baselines"):
            measured = baselines.measure(dataset.load(self.paths, "train"), self.data, scored, self.params.seed)
        found |= {"baselines": measured.table, "baseline_comparisons": measured.comparisons}
        found["cost"] = tables.cost_table(scored, trained, self.paths)
        if self.params.replicate_seeds:
            found |= self._seeds(scored, replicates)
        metrics = {name: each.metrics | tables.table_metrics(found, name) for name, each in scored.items()}
        with stopwatch("writing"):
            collected = explanations.collect(explained, probabilities, test, self.data.info.classes, example)
            tables.write(self.paths, tables.complete(metrics, trained), found, collected)
        for row in measured.table.to_dict("records"):
            _print(row["baseline"], row)
        candidates = [
            self._log(trained[name], each, metrics[name], found["comparisons"], measured.unbeaten[name])
            for name, each in scored.items()
        ]
        registry.register(self.paths, self.data.info, candidates, stopwatch)

    def _robustness(self, predictors: Mapping[str, Predict]) -> dict[str, pd.DataFrame]:
        """The tables of robustness; the first network is the reference."""
        test, seed, limits = self.data.test, self.params.seed, self.params.evaluate.robustness
        with self.tracker.stopwatch("robustness"):
            errors = robustness.corruption_errors(predictors, test, seed, limits.corrupted_images)
            return {
                "corruption": errors,
                "corruption_summary": robustness.corruption_summary(errors),
                "shift": robustness.shift_consistency(
                    predictors, test.images, seed, limits.shifted_images, limits.max_shift
                ),
                "out_of_distribution": out_of_distribution.detection(
                    predictors, test.images, seed, self.data.other, limits.out_of_distribution_images
                ),
            }

    def _seeds(
        self, scored: Mapping[str, NetworkScores], replicates: Mapping[str, Mapping[int, TrainingRecord]]
    ) -> dict[str, pd.DataFrame]:
        """Score and log the networks trained with other seeds, and compare the networks over all seeds."""
        test, stopwatch = self.data.test, self.tracker.stopwatch
        rows, known = [], {}  # scores and predictions by the SHA-256 of the network
        for name, by_seed in replicates.items():
            own = {metric: scored[name].metrics[metric] for metric in ("accuracy", "loss")}
            digest = _digest(scored[name].probabilities)
            rows.append({"model": name, "seed": self.params.seed, **own, "predictions": digest})
            for seed, record in by_seed.items():
                with stopwatch("scoring"):
                    if record.sha256 not in known:
                        file, code = self.paths.replicate(name, seed) / MODEL, record.code(self.paths)
                        model = saved_model.load(file, record.sha256, code)
                        probabilities = predictor(model, self.params.evaluate.batch_size)(test.images)
                        known[record.sha256] = scores(probabilities, test.labels).model_dump(), _digest(probabilities)
                found, digest = known[record.sha256]
                rows.append({"model": name, "seed": seed, **found, "predictions": digest})
                with self.tracker.reopen(f"{name} seed {seed}", record.run_id) as run:
                    run.metrics({f"test_{metric}": value for metric, value in found.items()})
        seeds = pd.DataFrame(rows)
        return {
            "seeds": seeds.drop(columns="predictions"),
            "replicates": tables.over_seeds(seeds),
            "seed_comparisons": significance.compare_seeds(seeds),
        }

    def _log(
        self,
        record: TrainingRecord,
        scored: NetworkScores,
        metrics: dict[str, float],
        comparisons: pd.DataFrame,
        unbeaten: str | None,
    ) -> registry.Candidate:
        """Add the results of a network to its MLflow run; in a store without that run, log the network as well."""
        name = record.name
        _print(name, metrics)
        with self.tracker.reopen(name, record.run_id) as run:
            moved = run.id != record.run_id
            if moved:
                run.metrics(record.validation_metrics)
            if moved or not registry.is_logged(self.paths, record):
                file, images, code = self.paths.model(name), self.data.test.images[:EXAMPLE], record.code(self.paths)
                run.model(ModelToLog(name, file, images, self.data.info, code))
            run.metrics({f"test_{metric}": value for metric, value in metrics.items()} | scored.cost)
            run.table("per_class", scored.per_class)
            run.table("confusion", scored.confusion)
            run.table("reliability", scored.reliability)
            run.table("comparisons", comparisons[(comparisons["a"] == name) | (comparisons["b"] == name)])
            return registry.Candidate(record, run.id, run.model_uri or record.model_uri, metrics, unbeaten)


def _once(predict: Predict) -> Predict:
    """Predict images that come again, as one network after another is shown them, only the first time."""
    images, probabilities = None, np.empty(0)

    def remembered(shown: np.ndarray) -> np.ndarray:
        nonlocal images, probabilities
        if shown is not images:
            images, probabilities = shown, predict(shown)
        return probabilities

    return remembered


def _print(name: str, metrics: Mapping[Any, Any]) -> None:
    print(f"{name}: test accuracy {metrics['accuracy']:.2%}, loss {metrics['loss']:.4f}", flush=True)


def _digest(probabilities: np.ndarray) -> str:
    """Equal for equal predictions."""
    return sha256(probabilities.argmax(axis=1).tobytes()).hexdigest()
