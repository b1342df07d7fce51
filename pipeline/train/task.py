"""A fit as a value: its specification, and its outcome. Both travel between processes and machines."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from models.own_code import LayerRow
from pipeline.core.config import AnyNetwork
from pipeline.core.limits import Limits
from pipeline.core.records import Counts, Scores
from pipeline.train.monitor import Epoch

RUN = "pipeline.train.fit:run"  # the function that runs a FitTask; by name, since its module loads TensorFlow


@dataclass(frozen=True)
class FitSpec:
    """The settings that determine the result of a fit, beside data and code.

    `seed` determines the initial weights, the order of the batches, dropout and augmentation. `best` is the validation
    metric, val_loss or val_accuracy, whose best epoch gives the weights; None: those of the last epoch. Each batch is
    split into `replicas` equal parts. `files` are those of own_networks/ that the network has, by name.
    """

    network: AnyNetwork
    seed: int
    precision: str
    best: str | None = None
    replicas: int = 1
    files: Mapping[str, bytes] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class FitTask:
    """A fit to run.

    keep_model: whether the outcome has the trained network.
    limits: whether it has those of usual images.
    checkpoint: the file to resume from; None: a killed fit begins anew.
    """

    spec: FitSpec
    keep_model: bool = False
    limits: bool = False
    checkpoint: Path | None = None


@dataclass(frozen=True)
class FittedModel:
    """A trained network.

    file: the content of its .keras file.
    limits: of usual images, if they were asked for.
    """

    file: bytes
    limits: Limits | None


@dataclass(frozen=True)
class FitOutcome:
    """The outcome of a fit.

    history: the metrics of each epoch.
    validation: the scores of the final weights on the validation images.
    counts: of the network.
    model: if kept.
    layers: of a network of the user's own code, whose layers are not known before it is built.
    """

    history: list[Epoch]
    validation: Scores
    counts: Counts
    model: FittedModel | None
    layers: list[LayerRow] | None = None
