"""A trained network, loaded for use. Code that a model in the registry brings with it is never run."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
from pydantic import ValidationError

from models import inference
from pipeline.core import config, own_files
from pipeline.core.catalog import Entry
from pipeline.core.errors import DataError
from pipeline.core.limits import Limits
from pipeline.core.paths import Paths
from pipeline.deploy.model_source import SavedNetwork
from pipeline.runtime import saved_model
from pipeline.tracking import registered
from pipeline.tracking.registered import RegisteredNetwork


@dataclass(frozen=True)
class Identity:
    """The name of a network, and where it comes from; None for what is not known of it.

    source: the URI of a registered version, or the path of a file.
    """

    name: str
    source: str
    version: str | None
    dataset: str
    summary: str | None
    validation_accuracy: float | None

    def __str__(self) -> str:
        version = f", version {self.version}" if self.version else ""
        parts = [f"{self.name} ({self.source}{version})", f"dataset {self.dataset}"]
        if self.summary:
            parts.append(self.summary)
        if self.validation_accuracy is not None:
            parts.append(f"validation accuracy {self.validation_accuracy:.2%}")
        return "; ".join(parts)


@dataclass(frozen=True)
class LoadedNetwork:
    """A network, its identity, the catalogue's entry of its dataset, and the limits of unusual images if known."""

    model: keras.Model
    identity: Identity
    entry: Entry
    limits: Limits | None

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Predict float64 probabilities (n, classes) for images (n, height, width, channels), float32 in [0, 1]."""
        return inference.probabilities(self.model, images)


def load(source: SavedNetwork | str, paths: Paths) -> LoadedNetwork:
    """Load a saved network, or that of a registered version, if its SHA-256 is the known one.

    Raises:
        DataError: the network does not exist, may not be loaded, or does not fit its dataset.
    """
    if isinstance(source, SavedNetwork):
        return _load(source, _of_file(source), source.record.limits if source.record else None, paths)
    with tempfile.TemporaryDirectory() as folder:
        found = registered.download(paths, source, Path(folder))
        return _load(found, _of_version(found, source), _limits(found, source), paths)


def _load(
    source: SavedNetwork | RegisteredNetwork, identity: Identity, limits: Limits | None, paths: Paths
) -> LoadedNetwork:
    entry = config.load_catalog(paths).get(source.dataset)
    code = source.record.code(paths) if isinstance(source, SavedNetwork) and source.record else None
    if isinstance(source, RegisteredNetwork) and registered.CODE in source.tags:
        own = source.tags[registered.CODE], source.tags[registered.CODE_SHA256]
        code = own_files.read_code(*own, paths.own_networks)
    model = saved_model.load(source.file, source.sha256, code)
    inputs, outputs = model.input_shape[1:], model.output_shape[1:]
    if entry is None or inputs != entry.image or outputs != (len(entry.classes),):
        raise DataError(f"{source.file}: maps {inputs} to {outputs}: not a network for the dataset {source.dataset}")
    return LoadedNetwork(model, identity, entry, limits)


def _of_file(source: SavedNetwork) -> Identity:
    record = source.record
    if record is None:
        return Identity(source.file.stem, str(source.file), None, source.dataset, None, None)
    return Identity(record.name, str(source.file), None, source.dataset, record.summary, record.validation.accuracy)


def _of_version(found: RegisteredNetwork, uri: str) -> Identity:
    accuracy = found.tags.get(registered.VALIDATION_ACCURACY)
    return Identity(
        name=found.tags.get(registered.MODEL, found.file.stem),
        source=uri,
        version=found.version,
        dataset=found.dataset,
        summary=found.tags.get(registered.SUMMARY),
        validation_accuracy=None if accuracy is None else float(accuracy),
    )


def _limits(found: RegisteredNetwork, uri: str) -> Limits | None:
    """Read the limits from the tags of a version; None for one that was registered without them."""
    text = found.tags.get(registered.LIMITS)
    if text is None:
        return None
    try:
        return Limits.model_validate_json(text)
    except ValidationError:
        raise DataError(
            f"{uri}: version {found.version}: its tag {registered.LIMITS} is damaged: {text[:100]}"
        ) from None
