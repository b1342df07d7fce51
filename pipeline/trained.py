"""What the training of a network wrote down about itself."""

import json
from pathlib import Path
from typing import Any

from pipeline.config import TUNED
from pipeline.errors import DataError
from pipeline.paths import Paths

About = dict[str, Any]  # a run.json


def load(paths: Paths, name: str) -> About:
    """The run.json of a network of params.yaml, or of the search's winner.

    Raises:
        DataError: the network was not trained.
    """
    stage = "tune" if name == TUNED else f"train@{name}"
    return _read(paths.training(name), f"train it first: dvc repro {stage}")


def load_replicates(paths: Paths, name: str, seeds: range) -> dict[int, About]:
    """The run.json of the same network trained with other seeds, by seed.

    Raises:
        DataError: one of them was not trained.
    """
    return {seed: _read(paths.replicate(name, seed), "train it first: dvc repro replicate") for seed in seeds}


def require_data(digest: str, about: About, paths: Paths) -> None:
    """Refuse a network of other data than there is now.

    Raises:
        DataError: the digests differ.
    """
    if about["data"] != digest:
        folder = paths.training(about["model"])
        raise DataError(f"{folder}: trained on other data than data/validated holds; run dvc repro")


def _read(folder: Path, remedy: str) -> About:
    path = folder / "run.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path}: not found; {remedy}") from None
