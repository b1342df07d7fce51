"""Placement of a stage's fits, from the environment: this process, processes of this machine, or a cluster."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.core import machine
from pipeline.core.errors import ConfigError
from pipeline.core.sections import Runtime
from pipeline.engine.engine import Engine, InProcess

WORKERS = "FIT_WORKERS"
SCHEDULER = "DASK_SCHEDULER_ADDRESS"  # Dask's own variable


@contextmanager
def start(runtime: Runtime, fits: int) -> Iterator[Engine]:
    """The engine for a number of fits; its processes load TensorFlow while the stage goes on.

    Raises:
        ConfigError: FIT_WORKERS or DASK_SCHEDULER_ADDRESS is invalid.
        ClusterError: the cluster cannot be used.
    """
    address, count = os.environ.get(SCHEDULER), workers(runtime, fits)
    if not address and count == 1:
        yield InProcess(runtime)
        return
    from pipeline.engine import cluster  # Dask takes half a second to load

    if address:
        with cluster.remote(address, runtime) as engine:
            yield engine
    else:
        with cluster.local(count, machine.gpus(runtime), runtime) as engine:
            yield engine


def workers(runtime: Runtime, fits: int) -> int:
    """The number of fits at a time on this machine: FIT_WORKERS, or one per GPU or core, limited by memory.

    Raises:
        ConfigError: FIT_WORKERS is invalid.
    """
    wanted = os.environ.get(WORKERS)
    if wanted:
        if not re.fullmatch(r"[1-9]\d{0,3}", wanted, re.ASCII):
            raise ConfigError(f"{WORKERS}: found {wanted}; allowed: a whole number from 1 to 9999")
        return min(int(wanted), fits)
    if gpus := machine.gpus(runtime):
        return min(len(gpus), fits)
    if runtime.threads != 1:  # each fit uses several cores
        return 1
    return max(1, min(machine.cores(), fits, machine.fits_in_memory()))
