"""Results of fits on disk: written by training, and found again where the same fit is asked for twice."""

from collections.abc import Iterable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.core import atomic, records
from pipeline.core.errors import DataError
from pipeline.core.paths import MODEL
from pipeline.core.records import TrainingRecord
from pipeline.train.monitor import Epoch
from pipeline.train.task import FitOutcome, FittedModel

HISTORY = "history.csv"


def write(folder: Path, history: list[Epoch], model: FittedModel) -> None:
    """Write model.keras and history.csv."""
    table = pd.DataFrame(history)
    table.insert(0, "epoch", range(1, len(history) + 1))
    with atomic.file(folder / MODEL) as part:
        part.write_bytes(model.file)
    with atomic.file(folder / HISTORY) as part:
        table.to_csv(part, index=False)


def find(folders: Iterable[Path], key: str) -> tuple[TrainingRecord, FitOutcome] | None:
    """The training with this key, and its outcome, from the first folder that holds it undamaged.

    Another stage may be writing to the folders at the same time.
    """
    for folder in folders:
        with suppress(DataError, OSError):
            record = records.load_training_in(folder)
            if record.key == key:
                file, table = (folder / MODEL).read_bytes(), pd.read_csv(folder / HISTORY)
                if sha256(file).hexdigest() == record.sha256:
                    history: Any = table.drop(columns="epoch").to_dict("records")
                    return record, FitOutcome(
                        history, record.validation, record.counts, FittedModel(file, record.limits)
                    )
    return None
