"""Sources of networks: a version in the model registry, or a .keras file whose SHA-256 is known."""

from dataclasses import dataclass
from pathlib import Path

from pipeline.core import records
from pipeline.core.config import Params
from pipeline.core.errors import DataError
from pipeline.core.paths import Paths
from pipeline.core.records import TrainingRecord

REGISTRY = "models:/"


@dataclass(frozen=True)
class SavedNetwork:
    """A .keras file, the SHA-256 that it must have, the dataset that it classifies, and its record if it has one."""

    file: Path
    sha256: str
    dataset: str
    record: TrainingRecord | None


def find(model: str | None, sha256: str | None, params: Params, paths: Paths) -> SavedNetwork | str:
    """Return a .keras file that may be loaded, or else the URI of a registered version.

    Args:
        model: a file or a URI; None: the champion of the configured dataset.
        sha256: the checksum of a file that was not trained here.

    Raises:
        DataError: the file does not exist, or its checksum is unknown.
    """
    if model is None or model.startswith(REGISTRY):
        return registered(model, params)
    file = Path(model)
    if not file.is_file():
        raise DataError(f"--model {file}: no such file; give a .keras file or a URI such as {registered(None, params)}")
    record = records.record_of(file, paths)
    expected = sha256 or (record.sha256 if record else None)
    if expected is None:
        raise DataError(
            f"{file}: not trained in this project; a .keras file can run code when it is loaded, so if you trust its "
            "source, give its checksum: --sha256 HASH"
        )
    return SavedNetwork(file, expected, record.dataset if record else params.data.dataset, record)


def registered(model: str | None, params: Params) -> str:
    """Return the URI of a registered version; None: the champion of the configured dataset.

    Raises:
        DataError: it is not a URI of the model registry.
    """
    if model is not None and not model.startswith(REGISTRY):
        raise DataError(
            f"--model {model}: not in the model registry; allowed: models:/NAME@ALIAS, models:/NAME/VERSION"
        )
    return model or f"{REGISTRY}{params.data.dataset}@champion"
