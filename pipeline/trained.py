"""What training wrote down about a network, and what may be believed of a file that holds one."""

import json
from pathlib import Path
from typing import Any

from pipeline.config import TUNED
from pipeline.errors import DataError
from pipeline.paths import Paths

About = dict[str, Any]  # results/train/NAME/run.json


def trained_run(name: str, paths: Paths) -> About:
    """What the training of a network wrote down about itself.

    Raises:
        DataError: the network was not trained, or by a version that did not write down the SHA-256 of its file.
    """
    path = paths.training(name) / "run.json"
    stage_name = "tune" if name == TUNED else f"train@{name}"
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path}: not found; train it first: dvc repro {stage_name}") from None
    if "sha256" not in about:
        raise DataError(f"{path}: has no sha256 of the network; train it again: dvc repro --force {stage_name}")
    return about


def of_file(file: Path, paths: Paths) -> About | None:
    """What is known of a file: the record of the network whose place it lies in; None where it lies elsewhere."""
    name = file.stem
    return trained_run(name, paths) if file.resolve() == paths.model(name).resolve() else None
