"""Advice for networks that do not beat a baseline."""

import numpy as np
from scipy import stats

from pipeline.core import config
from pipeline.core.advice import advice
from pipeline.train.train import no_better_than_one_class

from .conftest import Project, overlaid
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
        "try more epochs than 60, a batch_size below 64, global pooling or fewer units in the head, "
    )
