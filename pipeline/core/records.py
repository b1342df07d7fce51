"""Records of training and search for later stages: typed, written and read here alone."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import ValidationError

from models.architecture import Traced
from models.spec import Spec
from pipeline.core import atomic
from pipeline.core.config import TUNED, NetworkConfig
from pipeline.core.errors import DataError
from pipeline.core.paths import Paths
from pipeline.core.provenance import Origin

RECORD = "record.json"


class Device(Spec):
    """The device of a fit. `threads` is the number of cores used within one operation, 0 for all."""

    kind: Literal["cpu", "gpu"]
    name: str
    precision: Literal["float32", "bfloat16"]
    threads: int


class Counts(Spec):
    """The parameters of a network, and its multiply-adds for one image."""

    parameters: int
    trainable_parameters: int
    non_trainable_parameters: int
    multiply_adds: int

    @classmethod
    def of(cls, layers: Iterable[Traced]) -> "Counts":
        """Sum over the layers of a network."""
        rows = list(layers)
        total, fixed = sum(row.parameters for row in rows), sum(row.non_trainable for row in rows)
        return cls(
            parameters=total,
            trainable_parameters=total - fixed,
            non_trainable_parameters=fixed,
            multiply_adds=sum(row.multiply_adds for row in rows),
        )


class Scores(Spec):
    """Accuracy as a share, and loss: the mean negative log-likelihood in nats."""

    accuracy: float
    loss: float


class TrainingRecord(Spec):
    """One trained network: what it is, what it was trained on and with, and how well it does on the validation images.

    `sha256` is that of its .keras file, `data_digest` that of the data, `settings_digest` that of everything else the
    weights follow from except the code. `run_id` and `model_uri` name its MLflow run and logged model; they are None
    where MLflow could not be reached.
    """

    name: str
    network: NetworkConfig
    seed: int
    dataset: str
    data_digest: str
    settings_digest: str
    device: Device
    origin: Origin
    sha256: str
    counts: Counts
    validation: Scores
    run_id: str | None
    model_uri: str | None

    def write(self, folder: Path) -> None:
        """Write record.json, whose presence marks the training as complete."""
        _write(self, folder)

    @property
    def validation_metrics(self) -> dict[str, float]:
        """Counts and validation scores under the names that they have in MLflow and results/metrics.json."""
        scores = {f"validation_{metric}": value for metric, value in self.validation.model_dump().items()}
        return scores | self.counts.model_dump()

    def require_data(self, digest: str) -> None:
        """Refuse a network that was trained on other data.

        Raises:
            DataError: the digests differ.
        """
        if self.data_digest != digest:
            raise DataError(f"{self.name}: trained on other data than data/validated holds; run `dvc repro`")


class SearchRecord(Spec):
    """One search: its MLflow run, what it follows from, the number of its winning trial, and why trials failed."""

    run_id: str | None
    objective: Literal["val_loss", "val_accuracy"]
    data_digest: str
    settings_digest: str
    device: Device
    winner: int
    errors: Mapping[str, str]  # by number of the trial

    def write(self, folder: Path) -> None:
        """Write record.json."""
        _write(self, folder)


def load_training(paths: Paths, name: str) -> TrainingRecord:
    """Read the record of a network of params.yaml, or of the search's winner.

    Raises:
        DataError: the network was not trained, or the record is damaged.
    """
    return _read(TrainingRecord, paths.training(name), "tune" if name == TUNED else f"train@{name}")


def load_replicates(paths: Paths, name: str, seeds: range) -> dict[int, TrainingRecord]:
    """Read the records of a network trained with other seeds, by seed.

    Raises:
        DataError: one of them was not trained, or its record is damaged.
    """
    return {seed: _read(TrainingRecord, paths.replicate(name, seed), "replicate") for seed in seeds}


def load_search(paths: Paths) -> SearchRecord:
    """Read the record of the search.

    Raises:
        DataError: there was no search, or the record is damaged.
    """
    return _read(SearchRecord, paths.search, "tune")


def record_of(file: Path, paths: Paths) -> TrainingRecord | None:
    """The record of a .keras file in artifacts/models; None for a file elsewhere.

    Raises:
        DataError: the file lies there, but has no record.
    """
    return load_training(paths, file.stem) if file.resolve() == paths.model(file.stem).resolve() else None


R = TypeVar("R", TrainingRecord, SearchRecord)


def _write(record: TrainingRecord | SearchRecord, folder: Path) -> None:
    atomic.write_text(folder / RECORD, record.model_dump_json(indent=2) + "\n")


def _read(kind: type[R], folder: Path, stage: str) -> R:
    path = folder / RECORD
    try:
        return kind.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path}: not found; run `dvc repro {stage}` first") from None
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        raise DataError(f"{path}: damaged or of another version ({where}); run `dvc repro --force {stage}`") from None
