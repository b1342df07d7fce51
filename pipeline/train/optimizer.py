"""The configured optimizer: learning-rate schedule, weight decay and clipping of gradients."""

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops
from keras.optimizers.schedules import CosineDecay, LearningRateSchedule, PiecewiseConstantDecay

from pipeline.core.sections import Fit
from pipeline.train.fused_adam import Adam, AdamW

# Of one_cycle, as in PyTorch's OneCycleLR.
RISE = 0.3  # share of the steps until the learning rate is at its highest
START = 1 / 25  # the first learning rate over the highest
FINAL = 1e-4  # the last learning rate over the first
STEPS = (0.5, 0.75)  # shares of the training after which `step` lowers the learning rate, unless the epochs are given


def optimizer(settings: Fit, steps: int, variables: Sequence[keras.Variable]) -> keras.Optimizer:
    """Build the configured optimizer for variables, with its schedule over epochs of so many steps."""
    kinds: dict[str, tuple[type[keras.Optimizer], dict[str, Any]]] = {
        "adam": (Adam, {}),
        "adamw": (AdamW, {}),
        "nadam": (keras.optimizers.Nadam, {}),
        "rmsprop": (keras.optimizers.RMSprop, {}),
        "sgd": (keras.optimizers.SGD, {"momentum": 0.9, "nesterov": True}),
    }
    kind, options = kinds[settings.optimizer]
    if settings.ema:
        options |= {"use_ema": True, "ema_momentum": settings.ema}
    if settings.weight_decay is not None:
        options["weight_decay"] = settings.weight_decay
    built = kind(learning_rate=schedule(settings, steps), global_clipnorm=settings.clip_norm, **options)
    if settings.weight_decay:
        built.exclude_from_weight_decay([variable for variable in variables if not is_kernel(variable)])
    built.build(variables)
    return built


def is_kernel(variable: keras.Variable) -> bool:
    """Return whether weight decay and L2 apply to a variable: not to biases and the parameters of normalization."""
    return len(variable.shape) > 1 and variable.name not in ("bias", "gamma", "beta")


def schedule(settings: Fit, steps: int) -> float | LearningRateSchedule:
    """The learning rate, or its schedule over epochs of so many steps."""
    rate, total = settings.learning_rate, settings.epochs * steps
    warmup = min(settings.warmup_epochs, settings.epochs) * steps
    match settings.schedule:
        case "one_cycle":
            return OneCycle(rate, total)
        case "cosine" if warmup:
            return CosineDecay(0.0, max(total - warmup, 1), warmup_target=rate, warmup_steps=warmup)
        case "cosine":
            return CosineDecay(rate, total)
        case "step":
            ends = [epoch * steps for epoch in settings.step_epochs or ()] or [round(total * share) for share in STEPS]
            rates = [rate * settings.step_factor**number for number in range(len(ends) + 1)]
            # Keras changes the rate behind a boundary.
            return WarmUp(PiecewiseConstantDecay([end - 1 for end in ends], rates), warmup)
    return WarmUp(rate, warmup) if warmup else rate


class WarmUp(LearningRateSchedule):
    """A schedule, or a constant rate, times a factor that rises linearly from 0 to 1 in the first steps."""

    def __init__(self, schedule: Any, steps: int) -> None:
        super().__init__()
        self._schedule = schedule
        self._steps = steps

    def __call__(self, step: Any) -> Any:
        rate = self._schedule(step) if isinstance(self._schedule, LearningRateSchedule) else self._schedule
        return rate * ops.minimum(ops.cast(step, "float32") / max(self._steps, 1), 1.0) if self._steps else rate

    def get_config(self) -> dict[str, Any]:
        return {"schedule": self._schedule, "steps": self._steps}


class OneCycle(LearningRateSchedule):
    """From a low rate to the highest and down to almost 0, both along half a cosine (Smith & Topin, 1708.07120).

    As PyTorch's OneCycleLR with its defaults, but the momentum stays as it is.
    """

    def __init__(self, highest: float, steps: int) -> None:
        super().__init__()
        self._highest = highest
        self._steps = steps

    def __call__(self, step: Any) -> Any:
        first, top, last = self._highest * START, RISE * self._steps - 1, self._steps - 1
        step = ops.cast(step, "float32")
        rising = self._between(first, self._highest, step / max(top, 1e-6))
        falling = self._between(self._highest, first * FINAL, (step - top) / (last - top))
        return ops.where(step <= top, rising, falling)

    @staticmethod
    def _between(start: float, end: float, share: Any) -> Any:
        return end + (start - end) / 2 * (1 + ops.cos(math.pi * ops.clip(share, 0.0, 1.0)))

    def get_config(self) -> dict[str, Any]:
        return {"highest": self._highest, "steps": self._steps}
