"""What training wrote down about a network, and what may be believed of a file that holds one."""

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
        DataError: the network was not trained, or by a version that did not write down the SHA-256 of its file.
    """
    return _read(paths.training(name), "tune" if name == TUNED else f"train@{name}")


def of_file(file: Path, paths: Paths) -> About | None:
    """What is known of a file: the record of the network whose place it lies in; None where it lies elsewhere."""
    name = file.stem
    return load(paths, name) if file.resolve() == paths.model(name).resolve() else None


def load_replicates(paths: Paths, name: str, seeds: range) -> dict[int, About]:
    """The run.json of the same network trained with other seeds, by seed.

    Raises:
        DataError: one of them was not trained.
    """
    return {seed: _read(paths.replicate(name, seed), "replicate") for seed in seeds}


def require_data(digest: str, about: About, paths: Paths) -> None:
    """Refuse a network of other data than there is now.

    Raises:
        DataError: the digests differ.
    """
    if about["data"] != digest:
        folder = paths.training(about["model"])
        raise DataError(f"{folder}: trained on other data than data/validated holds; run dvc repro")


def _read(folder: Path, stage: str) -> About:
    path = folder / "run.json"
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path}: not found; train it first: dvc repro {stage}") from None
    if "sha256" not in about:
        raise DataError(f"{path}: has no sha256 of the network; train it again: dvc repro --force {stage}")
    return about
