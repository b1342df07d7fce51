"""Choosing among finalists: the one-standard-error rule."""

import numpy as np
import pytest

from pipeline.tune.finalists import seeds, verdict


def test_a_clearly_best_mean_wins_regardless_of_size():
    found = verdict({4: [0.10, 0.11, 0.12], 0: [0.20, 0.21, 0.22]}, {4: 900, 0: 100})
    assert found.winner == 4
    assert found.means == {4: pytest.approx(0.11), 0: pytest.approx(0.21)}
    assert found.standard_error == pytest.approx(0.01 / 3**0.5)  # both have the std 0.01


def test_within_one_standard_error_the_smallest_network_wins():
    scores = {4: [0.10, 0.12, 0.14], 0: [0.11, 0.13, 0.15]}  # 0.01 apart, standard error 0.0115
    assert verdict(scores, {4: 900, 0: 100}).winner == 0
    assert verdict(scores, {4: 100, 0: 900}).winner == 4
    assert verdict(scores, {4: 100, 0: 100}).winner == 4


def test_the_standard_error_is_pooled_over_the_finalists():
    found = verdict({1: [1.0, 1.0], 2: [1.0, 1.2]}, {1: 5, 2: 5})
    assert found.standard_error == pytest.approx(np.sqrt((0.0 + 0.02) / 2 / 2))


def test_with_one_seed_the_standard_error_is_0():
    found = verdict({1: [0.2], 2: [0.1]}, {1: 1, 2: 9})
    assert (found.winner, found.standard_error) == (2, 0.0)


def test_seeds_are_derived_from_the_projects_and_differ_from_it():
    assert seeds(42, 3) == seeds(42, 5)[:3]
    assert len({*seeds(42, 50), *seeds(43, 50), 42, 43}) == 102
    assert all(0 <= seed < 2**31 for seed in seeds(42, 50))
