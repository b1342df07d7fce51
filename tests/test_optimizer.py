"""Optimizers against Keras's, learning-rate schedules against their definitions."""

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.optimizers.schedules import CosineDecay
from pydantic import ValidationError

from pipeline.core.sections import Augmentation, Fit
from pipeline.train.optimizer import optimizer, schedule

# The learning rates of PyTorch 2.13, OneCycleLR(optimizer, max_lr=0.1, total_steps=20), by step.
ONE_CYCLE = {0: 0.004, 2: 0.037167184270002526, 5: 0.1, 10: 0.07169430017913009, 19: 4e-07}


def settings(**changes: Any) -> Fit:
    """Training settings: four epochs at a rate of 0.1."""
    common: dict[str, Any] = {"epochs": 4, "batch_size": 8, "optimizer": "adam", "learning_rate": 0.1}
    common |= {"schedule": "constant", "early_stopping": None, "ema": None, "label_smoothing": 0.0}
    values: dict[str, Any] = common | {"augmentation": Augmentation()} | changes
    return Fit(**values)


def rates(steps: int = 5, **changes: Any) -> list[float]:
    """The learning rate of each step of four epochs."""
    found: Any = schedule(settings(**changes), steps)
    if isinstance(found, float):
        return [found] * 4 * steps
    return [float(keras.ops.convert_to_numpy(found(step))) for step in range(4 * steps)]


def variables() -> list[keras.Variable]:
    """A kernel, a bias and a scale, all ones."""
    shapes = {"kernel": (2, 3), "bias": (3,), "gamma": (3,)}
    return [keras.Variable(np.ones(shape, np.float32), name=name) for name, shape in shapes.items()]


def stepped(built: keras.Optimizer, updated: list[keras.Variable], scale: float = 1.0) -> list[np.ndarray]:
    """The variables after two steps."""
    for step in (1, 2):
        built.apply([tf.fill(variable.shape, scale * step) for variable in updated], updated)
    return [variable.numpy() for variable in updated]


KINDS = {
    "adam": keras.optimizers.Adam(0.1, weight_decay=0.1),
    "adamw": keras.optimizers.AdamW(0.1, weight_decay=0.1),
    "nadam": keras.optimizers.Nadam(0.1, weight_decay=0.1),
    "rmsprop": keras.optimizers.RMSprop(0.1, weight_decay=0.1),
    "sgd": keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True, weight_decay=0.1),
}


@pytest.mark.parametrize("name", KINDS)
def test_weight_decay_is_that_of_keras_for_kernels_alone(name: str):
    updated, expected, free = variables(), variables(), variables()
    reference = KINDS[name]
    reference.exclude_from_weight_decay(expected[1:])
    built = optimizer(settings(optimizer=name, weight_decay=0.1), 5, updated)
    assert type(built).__name__.lower() == name
    for ours, theirs in zip(stepped(built, updated), stepped(reference, expected), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    none = stepped(optimizer(settings(optimizer=name, weight_decay=0.0), 5, free), free)
    assert np.all(updated[0].numpy() < none[0])
    np.testing.assert_array_equal(updated[1].numpy(), none[1])


def test_adamw_without_weight_decay_has_the_default_of_keras_on_all_weights():
    updated, expected = variables(), variables()
    ours = stepped(optimizer(settings(optimizer="adamw"), 5, updated), updated)
    for found, theirs in zip(ours, stepped(keras.optimizers.AdamW(0.1), expected), strict=True):
        np.testing.assert_allclose(found, theirs, rtol=1e-5)


def test_clip_norm_bounds_the_norm_of_all_gradients_together():
    updated = variables()
    before = [variable.numpy() for variable in updated]
    built = optimizer(settings(optimizer="sgd", clip_norm=0.5), 5, updated)
    built.apply([tf.fill(variable.shape, 7.0) for variable in updated], updated)
    taken = np.concatenate([np.ravel(old - new) for old, new in zip(before, updated, strict=True)])
    np.testing.assert_allclose(np.linalg.norm(taken), 0.1 * 1.9 * 0.5, rtol=1e-5)  # Nesterov's first step: 1.9


def test_schedules_follow_their_definitions():
    steps = np.arange(20)
    np.testing.assert_allclose(rates(), 0.1, rtol=1e-6)
    np.testing.assert_allclose(rates(schedule="cosine"), 0.05 * (1 + np.cos(np.pi * steps / 20)), rtol=1e-5)
    warm = 0.1 * np.minimum(steps / 10, 1)
    np.testing.assert_allclose(rates(warmup_epochs=2), warm, rtol=1e-6)
    keras_own = CosineDecay(0.0, 10, warmup_target=0.1, warmup_steps=10)
    found = rates(schedule="cosine", warmup_epochs=2)
    np.testing.assert_allclose(found, [float(keras.ops.convert_to_numpy(keras_own(s))) for s in steps], rtol=1e-6)
    one_cycle = rates(schedule="one_cycle")
    assert {step: one_cycle[step] for step in ONE_CYCLE} == pytest.approx(ONE_CYCLE, rel=1e-5)
    halves = [0.1] * 10 + [0.01] * 5 + [0.001] * 5
    np.testing.assert_allclose(rates(schedule="step"), halves, rtol=1e-6)
    listed = {"schedule": "step", "step_epochs": (1, 3), "step_factor": 0.5}
    np.testing.assert_allclose(rates(**listed), [0.1] * 5 + [0.05] * 10 + [0.025] * 5, rtol=1e-6)
    np.testing.assert_allclose(rates(**listed, warmup_epochs=1)[:6], [0, 0.02, 0.04, 0.06, 0.08, 0.05], rtol=1e-6)


def test_keys_of_other_schedules_and_losses_are_refused():
    for changes, message in (
        (
            {"schedule": "cosine", "step_factor": 0.5},
            "schedule cosine has no key step_factor; remove it, or .*: step",
        ),
        (
            {"schedule": "one_cycle", "warmup_epochs": 1},
            "one_cycle has no key warmup_epochs; .*: constant, cosine",
        ),
        ({"schedule": "step", "step_epochs": (3, 2)}, "step_epochs is not in ascending order"),
        ({"focal_gamma": 1.0}, "loss cross_entropy has no key focal_gamma; remove it, or set loss to one of: focal"),
    ):
        with pytest.raises(ValidationError, match=message):
            settings(**changes)
