"""The sections of params.yaml as frozen typed objects; see there for the meaning and the units of each key."""

from itertools import pairwise
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, field_validator, model_validator

from models.spec import Count, Spec

Fraction = Annotated[float, Field(gt=0, lt=1)]
NonNegative = Annotated[float, Field(ge=0)]


class Data(Spec):
    dataset: str
    validation_fraction: Fraction
    test_fraction: Fraction
    limit: Count | None = None


CheckName = Literal[
    "label",
    "size",
    "constant",
    "near_constant",
    "duplicate_within_split",
    "duplicate_across_splits",
    "conflicting_labels",
    "near_duplicate",
    "label_suspect",
    "too_few_images",
    "class_share",
    "missing_class",
    "missing_split",
    "imbalance",
    "drift",
]
CHECKS: tuple[CheckName, ...] = get_args(CheckName)


class Validate(Spec):
    """Bounds on the data, and the checks that only warn."""

    min_images_per_class: Count
    max_class_imbalance: Annotated[float, Field(ge=1)]
    max_share_ratio: Annotated[float, Field(ge=1)]
    min_pixel_range: Annotated[int, Field(ge=1, le=255)]
    min_pixel_deviation: Annotated[float, Field(ge=0, le=127.5)]
    max_drift: NonNegative
    min_distance: Annotated[float, Field(ge=0, le=1)]
    min_label_margin: Annotated[float, Field(le=1)]
    warnings: tuple[CheckName, ...]


Bound = Annotated[float, Field(ge=0, lt=1)]  # of a random change; 0: none


# Augmentations by name, for images whose class survives small turns and shifts, but perhaps not a reflection.
PRESETS: dict[str, dict[str, Any]] = {
    "light": {"shift": 0.1, "rotation": 10.0, "scale": 0.1, "fill_mode": "nearest"},
    "strong": {"shift": 0.2, "rotation": 30.0, "scale": 0.25, "shear": 15.0, "elastic": 0.02, "fill_mode": "nearest"},
}


class Augmentation(Spec):
    """Random changes of the training images; docs/training.md defines them."""

    shift: Bound = 0.0
    rotation: Annotated[float, Field(ge=0, le=180)] = 0.0
    scale: Bound = 0.0
    shear: Annotated[float, Field(ge=0, lt=90)] = 0.0
    elastic: Bound = 0.0
    fill_mode: Literal["constant", "nearest"] = "constant"
    flip: bool = False
    erase: Annotated[float, Field(ge=0, le=1)] = 0.0
    mixup: Annotated[float, Field(ge=0, le=10)] = 0.0
    cutmix: Annotated[float, Field(ge=0, le=10)] = 0.0
    brightness: Bound = 0.0
    contrast: Bound = 0.0
    saturation: Bound = 0.0
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.0

    @model_validator(mode="before")
    @classmethod
    def _of_preset(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        if value not in PRESETS:
            raise ValueError(f"there is no augmentation of this name; allowed: {', '.join(PRESETS)}, or a mapping")
        return PRESETS[value]

    @property
    def geometric(self) -> bool:
        return any((self.shift, self.rotation, self.scale, self.shear, self.elastic))

    @property
    def colored(self) -> bool:
        return any((self.brightness, self.contrast, self.saturation, self.hue))

    @property
    def active(self) -> bool:
        """True if images are changed one by one."""
        return self.geometric or self.colored or self.flip or self.erase > 0

    @property
    def mixes(self) -> bool:
        """True if images are mixed with one another."""
        return self.mixup > 0 or self.cutmix > 0


Epochs = Annotated[int, Field(ge=1, le=100_000)]
Fits = Annotated[int, Field(ge=1, le=1_000)]  # trainings of one network

# Keys of each schedule and of each loss.
SCHEDULE_KEYS: dict[str, tuple[str, ...]] = {
    "constant": ("warmup_epochs",),
    "cosine": ("warmup_epochs",),
    "one_cycle": (),
    "step": ("warmup_epochs", "step_epochs", "step_factor"),
}
LOSS_KEYS: dict[str, tuple[str, ...]] = {"cross_entropy": (), "focal": ("focal_gamma",)}


class Fit(Spec):
    """Training settings; docs/training.md defines those that params.yaml does not list."""

    epochs: Epochs
    batch_size: Count
    optimizer: Literal["adam", "adamw", "nadam", "rmsprop", "sgd"]
    learning_rate: Annotated[float, Field(gt=0, le=10)]
    schedule: Literal["constant", "cosine", "one_cycle", "step"]
    early_stopping: Count | None
    ema: Annotated[float, Field(gt=0, lt=1)] | None
    label_smoothing: Annotated[float, Field(ge=0, lt=1)]
    augmentation: Augmentation
    weight_decay: Annotated[float, Field(ge=0, lt=1)] | None = None
    l2: Annotated[float, Field(ge=0, le=1)] = 0.0
    warmup_epochs: Annotated[int, Field(ge=0, le=100_000)] = 0
    step_epochs: Annotated[tuple[Epochs, ...], Field(min_length=1)] | None = None
    step_factor: Fraction = 0.1
    clip_norm: Annotated[float, Field(gt=0)] | None = None
    class_weight: Literal["balanced"] | dict[str, Annotated[float, Field(gt=0)]] | None = None
    loss: Literal["cross_entropy", "focal"] = "cross_entropy"
    focal_gamma: Annotated[float, Field(ge=0, le=10)] = 2.0

    @field_validator("step_epochs")
    @classmethod
    def _ascending(cls, epochs: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if epochs and any(later <= earlier for earlier, later in pairwise(epochs)):
            raise ValueError("step_epochs is not in ascending order; allowed: for example [30, 60]")
        return epochs

    @model_validator(mode="after")
    def _keys_of_schedule_and_loss(self) -> "Fit":
        for choice, keys_of in (("schedule", SCHEDULE_KEYS), ("loss", LOSS_KEYS)):
            chosen = getattr(self, choice)
            for key in unused_keys(keys_of, chosen):
                if getattr(self, key) != type(self).model_fields[key].default:
                    having = ", ".join(name for name, keys in keys_of.items() if key in keys)
                    raise ValueError(
                        f"{choice} {chosen} has no key {key}; remove it, or set {choice} to one of: {having}"
                    )
        return self


def unused_keys(keys_of: dict[str, tuple[str, ...]], chosen: Any) -> list[str]:
    """The keys that other choices have and this one has not."""
    own = keys_of.get(chosen, ()) if isinstance(chosen, str) else ()
    return [key for key in dict.fromkeys(key for keys in keys_of.values() for key in keys) if key not in own]


class Pruning(Spec):
    """When the median stopping rule may stop trials: so many completed trials, so many epochs."""

    min_trials: Count
    min_epochs: Count


class Tune(Spec):
    base: str
    tuner: Literal["random", "bayesian", "hyperband", "grid"]
    trials: Annotated[int, Field(ge=1, le=100_000)]
    concurrent_trials: Annotated[int, Field(ge=1, le=10_000)]
    epochs: Epochs
    objective: Literal["val_loss", "val_accuracy"]
    score: Literal["last", "best"]
    pruning: Pruning | None
    finalists: Fits
    finalist_seeds: Fits
    space: dict[str, Any]

    @property
    def adaptive(self) -> bool:
        """True if trials are chosen by the outcomes of earlier ones."""
        return self.tuner in ("bayesian", "hyperband")

    @property
    def side_by_side(self) -> int:
        """The most fits that the search can run at a time."""
        trials = self.concurrent_trials if self.adaptive else self.trials
        return max(trials, self.finalists * self.finalist_seeds if self.finalists > 1 else 1)


class Robustness(Spec):
    """Numbers of corrupted, shifted and out-of-distribution images; None: all."""

    corrupted_images: Count | None
    shifted_images: Count | None
    max_shift: Annotated[int, Field(ge=1, le=8)]
    out_of_distribution_images: Count | None
    out_of_distribution_dataset: str | None


class Evaluate(Spec):
    batch_size: Count
    seeds: Fits
    robustness: Robustness


class Runtime(Spec):
    device: Literal["auto", "cpu", "gpu"]
    precision: Literal["auto", "float32", "bfloat16"]
    threads: Annotated[int, Field(ge=0, le=1024)]
    replicas: Annotated[int, Field(ge=1, le=64)]
