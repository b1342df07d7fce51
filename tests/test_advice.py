"""Advice for networks that do not beat a baseline."""

from typing import Any

import numpy as np
import pytest
from scipy import stats

from pipeline.core import config
from pipeline.core.advice import advice
from pipeline.core.command import Stopwatch
from pipeline.core.records import Counts, Scores
from pipeline.engine import engine
from pipeline.train.task import FitOutcome
from pipeline.train.train import Trainer, no_better_than_one_class, train_network

from .conftest import Here, Project, overlaid
from .test_fit import NETWORK


def test_accuracy_is_tested_against_the_most_frequent_class():
    labels = np.repeat([0, 1, 2], [30, 20, 10])
    for right in (0, 30, 36, 37, 45):
        p = stats.binomtest(right, 60, 0.5, alternative="greater").pvalue
        found = no_better_than_one_class(right / 60, labels)
        assert (found is None) == (p < 0.05)
        assert not found or found.endswith(f"by answering one class (50.00%, p = {p:.2g})")


def test_advice_follows_the_settings(project: Project):
    common = project.params()["fit"]
    plain, changed = (
        config.network_from(NETWORK | {"fit": overlaid(common, changes)})
        for changes in ({"epochs": 15}, {"epochs": 60, "augmentation": "light"})
    )
    assert advice(plain).startswith("try more epochs than 15, a batch_size below 64, augmentation: light or strong, ")
    assert advice(changed).startswith(
        "try more epochs than 60, a batch_size below 64, group instead of batch normalization, "
    )


COUNTS = Counts(parameters=1, trainable_parameters=1, non_trainable_parameters=0, multiply_adds=1)


def test_training_warns_about_a_network_that_guesses(
    validated: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    params = config.load(validated.paths)
    trainer = Trainer.create("train", params, validated.paths, Here(params.runtime), Stopwatch())
    for accuracy, warned in ((0.1, True), (0.9, False)):

        async def train(*_: Any, accuracy: float = accuracy) -> FitOutcome:
            return FitOutcome([], Scores(accuracy=accuracy, loss=2.3), COUNTS, None)

        monkeypatch.setattr(Trainer, "train", train)
        engine.complete(train_network("model_1", params.network("model_1"), trainer))
        error = capsys.readouterr().err
        assert error.startswith("warning: model_1: 10.00% of ") == warned
        assert ("; try more epochs than" in error) == warned
