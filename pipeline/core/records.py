"""Records of training and search for later stages: typed, written and read here alone."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import Field, ValidationError

from models.architecture import Traced
from models.own_code import LayerRow, OwnCode, OwnNetwork
from models.spec import Spec
from pipeline.core import atomic, own_files, summary
from pipeline.core.config import NetworkBlock
from pipeline.core.errors import DataError
from pipeline.core.limits import Limits
from pipeline.core.paths import Paths
from pipeline.core.provenance import Origin

RECORD = "record.json"
NO_SEARCH = "null"  # the record where `tune` is null


class Device(Spec):
    """The device of a fit. `threads` is the number of cores used within one operation, 0 for all.

    `replicas` is the number of parts that each batch is split into.
    """

    kind: Literal["cpu", "gpu"]
    name: str
    precision: Literal["float32", "bfloat16"]
    threads: int
    replicas: int = 1


class Counts(Spec):
    """The parameters of a network, and its multiply-adds for one image."""

    parameters: int
    trainable_parameters: int
    non_trainable_parameters: int
    multiply_adds: int | None  # None for the user's own code

    @classmethod
    def of(cls, layers: Iterable[Traced | LayerRow]) -> "Counts":
        """Sum over the layers of a network."""
        rows = list(layers)
        total, fixed = sum(row.parameters for row in rows), sum(row.non_trainable for row in rows)
        costs = [row.multiply_adds for row in rows if row.multiply_adds is not None]
        return cls(
            parameters=total,
            trainable_parameters=total - fixed,
            non_trainable_parameters=fixed,
            multiply_adds=sum(costs) if len(costs) == len(rows) else None,
        )

    @property
    def known(self) -> dict[str, int]:
        return self.model_dump(exclude_none=True)


class Scores(Spec):
    """Accuracy as a share, and loss: the mean negative log-likelihood in nats."""

    accuracy: float
    loss: float


class TrainingRecord(Spec):
    """One trained network: what it is, what it was trained on and with, and how well it does on the validation images.

    `sha256` is that of its .keras file, `data_digest` that of the data, `settings_digest` that of everything else the
    weights follow from except the code, and `key` that of all of these. `base` names the network that this one varies,
    if any. `run_id` and `model_uri` name its MLflow run and logged model; they are None where MLflow could not be
    reached. `limits` tell unusual images by their scores; None for a replicate. `files` has the SHA-256 of each of the
    network's files in own_networks/.
    """

    name: str
    network: NetworkBlock
    base: str | None
    seed: int
    dataset: str
    data_digest: str
    settings_digest: str
    key: str
    device: Device
    origin: Origin
    sha256: str
    counts: Counts
    validation: Scores
    limits: Limits | None = None
    run_id: str | None
    model_uri: str | None
    files: Mapping[str, str] = Field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Write record.json, whose presence marks the training as complete."""
        _write(self, folder)

    @property
    def summary(self) -> str:
        """Pooling and dropout in one line."""
        return summary.summary(self.network)

    @property
    def validation_metrics(self) -> dict[str, float]:
        """Counts and validation scores under the names that they have in MLflow and results/metrics.json."""
        scores = {f"validation_{metric}": value for metric, value in self.validation.model_dump().items()}
        return {**scores, **self.counts.known}

    def code(self, paths: Paths) -> OwnCode | None:
        """The file that the network's layers may come from; None for a network of blocks.

        Raises:
            DataError: it was changed since the network was trained.
        """
        if not isinstance(self.network, OwnNetwork):
            return None
        name = self.network.file
        return own_files.read_code(name, self.files[name], paths.own_networks)

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
    return _read(TrainingRecord, paths.training(name))


def load_training_in(folder: Path) -> TrainingRecord:
    """Read the record of the training that a folder holds.

    Raises:
        DataError: there is none, or it is damaged.
    """
    return _read(TrainingRecord, folder)


def load_replicates(paths: Paths, name: str, seeds: range) -> dict[int, TrainingRecord]:
    """Read the records of a network trained with other seeds, by seed.

    Raises:
        DataError: one of them was not trained, or its record is damaged.
    """
    return {seed: _read(TrainingRecord, paths.replicate(name, seed)) for seed in seeds}


def write_no_search(paths: Paths) -> None:
    """Replace the output of the search by a record that there was none."""
    with atomic.folder(paths.search) as folder:
        (folder / RECORD).write_text(f"{NO_SEARCH}\n", encoding="utf-8")


def load_search(paths: Paths) -> SearchRecord | None:
    """Read the record of the search; None where `tune` was null.

    Raises:
        DataError: the stage `tune` did not run, or the record is damaged.
    """
    path = paths.search / RECORD
    if path.is_file() and path.read_text(encoding="utf-8").strip() == NO_SEARCH:
        return None
    return _read(SearchRecord, paths.search)


def record_of(file: Path, paths: Paths) -> TrainingRecord | None:
    """The record of a .keras file that a stage has written; None for a file elsewhere.

    Raises:
        DataError: the file lies in a folder of a stage, but has no record.
    """
    outputs = (paths.trainings, paths.search, paths.replicates)
    found = any(file.resolve().is_relative_to(folder.resolve()) for folder in outputs)
    return _read(TrainingRecord, file.parent) if found else None


R = TypeVar("R", TrainingRecord, SearchRecord)


def _write(record: TrainingRecord | SearchRecord, folder: Path) -> None:
    atomic.write_text(folder / RECORD, record.model_dump_json(indent=2) + "\n")


def _read(kind: type[R], folder: Path) -> R:
    path = folder / RECORD
    try:
        return kind.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path}: not found; run `dvc repro` first") from None
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        raise DataError(f"{path}: damaged or of another version ({where}); run `dvc repro --force`") from None
