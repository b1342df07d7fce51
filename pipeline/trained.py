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
        DataError: the network was not trained.
    """
    path = paths.training(name) / "run.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        stage_name = "tune" if name == TUNED else f"train@{name}"
        raise DataError(f"{path}: not found; train it first: dvc repro {stage_name}") from None


def of_file(file: Path, paths: Paths) -> About | None:
    """What is known of a file: the record of the network whose place it lies in; None where it lies elsewhere."""
    name = file.stem
    return trained_run(name, paths) if file.resolve() == paths.model(name).resolve() else None
