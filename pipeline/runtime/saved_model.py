"""Trained networks on disk: .keras files whose bytes depend on the network alone, loaded only with a known SHA-256.

A .keras file is a configuration that Keras builds objects from, so one from a stranger is a stranger's program. A file
is loaded only if it has the SHA-256 that training recorded, or that the user gives.
"""

import hashlib
import io
import json
import re
import tempfile
import zipfile
from pathlib import Path

import keras
import tensorflow as tf

import models.pooling  # noqa: F401  registers the custom layers that a network may contain
from models.own_code import OwnCode
from pipeline.core.errors import DataError

EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip archive can hold
DATE_SAVED = "1980-01-01@00:00:00"
MAX_REASON = 1000  # characters of Keras's message, which may quote the whole configuration
MAX_EXPANSION = 10  # times the size of the file: Keras compresses nothing, `save` neither
UNREADABLE = (  # what Keras and TensorFlow raise for a file that is not a network, or one too large for this machine
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    OSError,
    ArithmeticError,
    RecursionError,
    MemoryError,
    zipfile.BadZipFile,
    tf.errors.OpError,
)


def content(model: keras.Model) -> bytes:
    """Return the content of a model's .keras file. Equal models give equal bytes: Keras itself stores the time."""
    with tempfile.TemporaryDirectory() as folder:
        fresh, file = Path(folder) / "fresh.keras", io.BytesIO()
        model.save(fresh)
        with zipfile.ZipFile(fresh) as source, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            for name in sorted(source.namelist()):
                member = source.read(name)
                if name == "metadata.json":
                    member = json.dumps(json.loads(member) | {"date_saved": DATE_SAVED}).encode()
                if name == "config.json":
                    member = _numbered(member)
                archive.writestr(zipfile.ZipInfo(name, EPOCH), member)
    return file.getvalue()


def _numbered(config: bytes) -> bytes:
    """Number shared objects in order. Keras stores their addresses in memory."""
    numbers: dict[bytes, int] = {}

    def number(found: re.Match[bytes]) -> bytes:
        return b"%b%d" % (found[1], numbers.setdefault(found[2], len(numbers)))

    return re.sub(rb'("shared_object_id": )(\d+)', number, config)


def digest(path: Path) -> str:
    """Compute the SHA-256 of a saved network.

    Raises:
        DataError: the file does not exist.
    """
    try:
        with path.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()
    except FileNotFoundError:
        raise DataError(f"{path}: not found; run `dvc repro` to train it") from None
    except OSError as error:
        raise DataError(f"{path}: not a readable file ({error.strerror}); move it away, then run `dvc repro`") from None


def load(path: Path, sha256: str, code: OwnCode | None = None) -> keras.Model:
    """Load a model that `save` wrote.

    Args:
        code: the verified file that its layers may come from; it is run.

    Raises:
        DataError: the file does not exist, has another SHA-256, is damaged, or contains code.
    """
    found = digest(path)
    if found != sha256:
        raise DataError(
            f"{path}: SHA-256 is {found} instead of {sha256}: not the network that was trained here; "
            "`dvc checkout` or `dvc repro` restores it"
        )
    try:
        _refuse_expansion(path)
        if code:
            code.load()
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except UNREADABLE as error:
        if "Lambda" in str(error):
            raise DataError(
                f"{path}: contains a Lambda layer, which is Python code that would run here; use a Keras layer instead"
            ) from None
        reason = str(error)[:MAX_REASON] or type(error).__name__
        raise DataError(f"{path}: not a readable network ({reason}); run `dvc repro --force` on its stage") from None


def _refuse_expansion(path: Path) -> None:
    """Refuse an archive by the sizes in its directory, before any of it is unpacked."""
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(member.file_size for member in archive.infolist())
    size = path.stat().st_size
    if unpacked > MAX_EXPANSION * size:
        raise ValueError(f"its {size:,} bytes would unpack to {unpacked:,}")
