"""Placement of a stage's fits, from the environment: this process, processes of this machine, or a cluster."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from pipeline.core.errors import ConfigError
from pipeline.core.sections import Runtime
from pipeline.engine import cluster
from pipeline.engine.engine import Engine, InProcess

WORKERS = "FIT_WORKERS"
SCHEDULER = "DASK_SCHEDULER_ADDRESS"  # Dask's own variable
MEMORY = 2 * 2**30  # bytes of free memory for each process of the default number


@contextmanager
def start(runtime: Runtime, fits: int) -> Iterator[Engine]:
    """The engine for a number of fits; its processes load TensorFlow while the stage goes on.

    Raises:
        ConfigError: FIT_WORKERS or DASK_SCHEDULER_ADDRESS is invalid.
        ClusterError: the cluster cannot be used.
    """
    address, count = os.environ.get(SCHEDULER), workers(runtime, fits)
    if address:
        with cluster.remote(address, runtime) as engine:
            yield engine
    elif count > 1:
        with cluster.local(count, _gpus(runtime), runtime) as engine:
            yield engine
    else:
        yield InProcess(runtime)


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
    if gpus := _gpus(runtime):
        return min(len(gpus), fits)
    if runtime.threads != 1:  # each fit uses several cores
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, fits, psutil.virtual_memory().available // MEMORY))


def _gpus(runtime: Runtime) -> list[str]:
    """The GPUs that fits may use, as CUDA numbers them."""
    if runtime.device == "cpu":
        return []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [gpu for gpu in visible.split(",") if gpu.strip() not in ("", "-1")]
    return sorted(path.name.removeprefix("nvidia") for path in Path("/dev").glob("nvidia[0-9]*"))
