"""Tasks for tests of engines. They need no TensorFlow, and processes that have preloaded this module load none.

Dask preloads it in the processes of `light_processes`, which are started and killed in tests.
"""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.core.errors import TrainingError
from pipeline.core.records import Device
from pipeline.engine import task


def dask_setup(worker: Any) -> None:
    """Dask calls this in every process that preloads the module."""
    task.load_tensorflow = lambda: None
    task._started = lambda runtime, announced: Device(kind="cpu", name="a processor", precision="float32", threads=1)


def steps(argument: Any, data: Any, report: Callable[[object], None]) -> Any:
    """Task: report so many steps, slowly, then return the argument and the data."""
    for step in range(argument["steps"]):
        time.sleep(argument.get("seconds", 0.0))
        report([step, os.getpid()])
    if argument.get("fails"):
        raise TrainingError("as asked")
    return argument["name"], data


def deadly(argument: Any, data: Any, report: Callable[[object], None]) -> Any:
    """Task: kill the process that runs it, the first time or always."""
    if argument is None or not argument.exists():
        if argument:
            argument.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "alive", data


def survivor(folder: Path) -> str:
    """Kill the process, the first two times."""
    if (deaths := len(list(folder.iterdir()))) < 2:
        (folder / str(deaths)).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "the data"


class Survivor:
    """Data that kill the first two processes that load them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> Any:
        return survivor, (self.folder,)
