"""The run on all of MNIST: its parameters, and the figures of its page."""

from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from scipy import ndimage

from benchmarks import mnist, mnist_errors
from pipeline.core import config
from pipeline.core.paths import Paths
from pipeline.evaluate.significance import seeds_test
from pipeline.runtime.predictor import predictor


def test_parameters_are_valid(tmp_path: Path) -> None:
    mnist.prepare(tmp_path / "clone")
    params = config.load(Paths(tmp_path / "clone"))
    assert {"model_1", "model_2", "recipe", "lenet"} <= set(params.models)
    assert params.data.dataset == "mnist"
    assert params.search.trials >= 48
    assert params.evaluate.seeds >= 5


def test_detectable_difference_is_found_with_its_power() -> None:
    draws = np.random.default_rng(1)
    found = seeds_test(mnist.detectable(0.04, 5) + draws.normal(0, 0.04, (20_000, 5))) < 1 - mnist.LEVEL
    assert found.mean() == pytest.approx(mnist.POWER, abs=0.01)


def test_errors_are_counted_by_the_seeds_that_share_them() -> None:
    labels = np.array([0, 1, 1, 0])
    right, wrong = np.array([0.9, 0.1]), np.array([0.4, 0.6])
    # Of class 0, 1, 1, 0: one seed errs on the last image, the other on the second and on the last.
    outputs = np.array([[right, right[::-1], right[::-1], wrong], [right, wrong[::-1], right[::-1], wrong]])
    assert mnist_errors.shared(outputs.argmax(axis=2) != labels) == [1, 1]
    row = mnist_errors.table({"net": outputs}, labels, "net").splitlines()[2]
    assert row.startswith("| net | 1, 2 | 1, 1 | 1 |")
    assert row.endswith("| 1 |")


def test_views_are_averaged_around_a_trained_network() -> None:
    draws = np.random.default_rng(1)
    model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(3, "softmax")])
    images = ndimage.gaussian_filter(draws.random((5, 8, 8, 1), np.float32), (0, 1, 1, 0))
    angles = (-mnist_errors.ANGLE, 0, mnist_errors.ANGLE)
    rotated = [ndimage.rotate(images, angle, (1, 2), reshape=False, order=1, mode="grid-constant") for angle in angles]
    expected = np.mean([model(view) for view in rotated], axis=0)
    found = predictor(mnist_errors.with_views(model))((255 * images).round().astype(np.uint8))
    np.testing.assert_allclose(found, expected, atol=0.005)  # pixels of 8 bits
    assert np.abs(found - model(images)).max() > 0.01


def test_figure_has_a_row_per_change_and_a_dot_per_block(tmp_path: Path) -> None:
    rows = [
        ("blocks.0.pooling.kind", "average", "max", 0.1),
        ("blocks.1.pooling.kind", "average", "max", -0.2),
        ("blocks.0.dropout", "+0.1", "", 0.3),
        ("blocks.1.pooling.window", "3", "2", np.nan),
        ("head.dropout", "+0.1", "", 0.2),
    ]
    effects = pd.DataFrame(rows, columns=["dimension", "change", "reference", "effect"])
    axes = mnist.draw(effects.assign(low=effects["effect"] - 1, high=effects["effect"] + 1), tmp_path / "effects.png")
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "kind of pooling: average instead of max",
        "dropout: +0.1",
    ]
    dots = {line.get_label(): np.asarray(line.get_xdata()).tolist() for line in axes.lines[1:]}
    assert dots == {"block 1": [10, 30], "block 2": [-20]}
    assert (tmp_path / "effects.png").stat().st_size > 1000


def test_figure_of_effects_that_all_blocks_share(tmp_path: Path) -> None:
    row = {"dimension": "blocks.*.dropout", "change": "+0.1", "reference": "", "effect": 0.1, "low": 0.0, "high": 0.2}
    axes = mnist.draw(pd.DataFrame([row]), tmp_path / "effects.png")
    assert [np.asarray(line.get_xdata()).tolist() for line in axes.lines[1:]] == [[10]]
    assert axes.get_legend() is None
