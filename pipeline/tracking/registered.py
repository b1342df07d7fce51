"""Trained networks in the model registry, as files: downloaded and verified, never run.

An MLflow model brings Python code with it, which MLflow runs when it loads the model. Here only the saved network is
taken from it, and only if it has the SHA-256 that the version was registered with.
"""

import hashlib
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import mlflow
from mlflow.artifacts import download_artifacts, list_artifacts
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from pipeline.core.errors import DataError
from pipeline.core.paths import Paths
from pipeline.tracking import store
from pipeline.tracking.store import StoreError, connect

SHA256 = "model.sha256"  # the tag of a version that holds the checksum of its network
MODEL = "model"  # its name
CODE = "code.file"  # the file in own_networks/ that its layers come from, if any
CODE_SHA256 = "code.sha256"
SUMMARY = "summary"
VALIDATION_ACCURACY = "validation.accuracy"
LIMITS = "limits"  # of unusual images, as JSON
SCHEME = "models:/"
AGAIN = "`dvc repro` registers a champion; if nothing is out of date, `dvc repro --single-item --force evaluate`"


@dataclass(frozen=True)
class RegisteredNetwork:
    """A saved network that was downloaded, its SHA-256 in the registry, and the dataset that it classifies.

    `version` is the number of its version, `tags` what the version was registered with.
    """

    file: Path
    sha256: str
    dataset: str
    version: str
    tags: Mapping[str, str]


def download(paths: Paths, uri: str, folder: Path) -> RegisteredNetwork:
    """Download the saved network of a version, models:/NAME@ALIAS or models:/NAME/VERSION, into a folder.

    Raises:
        DataError: the version or its file does not exist, the file is not the one registered, or the store fails.
    """
    dataset, separator, version = uri.removeprefix(SCHEME).partition("@" if "@" in uri else "/")
    if not (dataset and separator and version):
        raise DataError(f"{uri}: not a registered version; allowed: models:/NAME@ALIAS, models:/NAME/VERSION")
    at = store.name(paths)
    try:
        with connect(paths):
            client = mlflow.MlflowClient()
            find = client.get_model_version_by_alias if separator == "@" else client.get_model_version
            found = store.attempt(at, find, dataset, version)
    except StoreError as error:
        raise DataError(f"{uri}: not found in MLflow at {at}: {error}; {AGAIN}") from None
    sha256 = found.tags.get(SHA256)
    if sha256 is None:
        raise DataError(f"{uri}: version {found.version} has no tag {SHA256}: not registered by this project; {AGAIN}")
    try:
        file = store.attempt(at, lambda: _saved_network(_location(found), folder))
    except StoreError as error:
        raise DataError(
            f"{uri}: the file of version {found.version} cannot be read from MLflow: {error}; {AGAIN}"
        ) from None
    if _digest(file) != sha256:
        raise DataError(
            f"{uri}: the network stored for version {found.version} was replaced after it was registered: SHA-256 "
            f"{_digest(file)} instead of {sha256}; find out by whom; then `dvc repro --single-item --force evaluate` "
            "registers the champion again"
        )
    return RegisteredNetwork(file, sha256, dataset, str(found.version), found.tags)


def usable(location: str, sha256: str) -> bool:
    """Check that the artifacts of a logged model, at this address, still have its saved network."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            return _digest(_saved_network(location, Path(folder))) == sha256
    except (MlflowException, OSError):
        return False


def usable_version(version: ModelVersion) -> bool:
    """Check that a version still has the network that it was registered with."""
    return usable(_location(version), version.tags.get(SHA256, ""))


def _location(version: ModelVersion) -> str:
    return mlflow.MlflowClient().get_model_version_download_uri(version.name, str(version.version))


def _saved_network(location: str, folder: Path) -> Path:
    data = f"{location}/data"
    listed = [PurePosixPath(entry.path).name for entry in list_artifacts(artifact_uri=data) or ()]
    files = [name for name in listed if name.endswith(".keras")]
    if len(files) != 1:
        raise FileNotFoundError(f"{len(files)} .keras files in {data}")
    return Path(download_artifacts(artifact_uri=f"{data}/{files[0]}", dst_path=str(folder)))


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
