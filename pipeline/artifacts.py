"""Trained networks on disk: .keras files whose bytes depend on the network alone."""

import json
import zipfile
from pathlib import Path

import keras

import models.pooling  # noqa: F401  a network with layers of its own loads where these are known
from pipeline import atomic
from pipeline.errors import DataError

EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip archive can hold
DATE_SAVED = "1980-01-01@00:00:00"


def save(model: keras.Model, target: Path) -> None:
    """Write a model so that equal models are equal files: Keras itself puts the time of saving into the archive."""
    with atomic.file(target) as part:
        fresh = part.with_name("fresh.keras")
        model.save(fresh)
        with zipfile.ZipFile(fresh) as source, zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as archive:
            for name in sorted(source.namelist()):
                content = source.read(name)
                if name == "metadata.json":
                    content = json.dumps(json.loads(content) | {"date_saved": DATE_SAVED}).encode()
                archive.writestr(zipfile.ZipInfo(name, EPOCH), content)


def load(path: Path) -> keras.Model:
    """Read a model that `save` wrote.

    Raises:
        DataError: there is none, or it is damaged.
    """
    if not path.is_file():
        raise DataError(f"{path}: not found; run `dvc repro` to train it")
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except (ValueError, OSError, zipfile.BadZipFile, KeyError) as error:
        raise DataError(f"{path}: not a readable network ({error}); run `dvc repro --force` on its stage") from None
