"""Running a task in this process, the stage's own or a worker's."""

import os
import pkgutil
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import cache
from typing import Any

from pipeline.core.records import Device
from pipeline.core.sections import Runtime
from pipeline.runtime.startup import load_tensorflow

Report = Callable[[object], None]


def device(runtime: Runtime, announced: bool = False) -> Device:
    """Load TensorFlow and start the device, once in a process.

    Raises:
        DeviceError: a GPU is asked for and there is none.
    """
    return _started(runtime.model_dump_json(), announced)


@cache
def _started(runtime: str, announced: bool) -> Device:
    load_tensorflow()
    start: Callable[[Runtime], Device] = pkgutil.resolve_name("pipeline.runtime.device:start")
    with open(os.devnull, "w") as nowhere, redirect_stdout(sys.stdout if announced else nowhere):
        return start(Runtime.model_validate_json(runtime))


def call(function: str, argument: object, data: object, report: Report) -> Any:
    """Call a function, which may load TensorFlow, by its name (module:function)."""
    load_tensorflow()
    return pkgutil.resolve_name(function)(argument, data, report)
