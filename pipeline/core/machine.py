"""The cores, GPUs and memory of this machine."""

import os
from pathlib import Path

import psutil

from pipeline.core.sections import Runtime

MEMORY = 2 * 2**30  # bytes for each process that trains


def cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gpus(runtime: Runtime) -> list[str]:
    """The GPUs that fits may use, as CUDA_VISIBLE_DEVICES names them; found without TensorFlow."""
    if runtime.device == "cpu":
        return []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name.strip() for name in visible.split(",") if name.strip() not in ("", "-1")]
    return [str(number) for number, _ in enumerate(Path("/dev").glob("nvidia[0-9]*"))]


def fits_in_memory() -> int:
    """The number of fits that the free memory suffices for."""
    return psutil.virtual_memory().available // MEMORY


def threads(processes: int) -> dict[str, str]:
    """The environment of each of several processes that train: its share of the cores, for operations side by side.

    Two at least, for the time in which others have ended or wait. Results do not depend on the number.
    """
    return {"TF_NUM_INTEROP_THREADS": str(max(2, cores() // processes))}
