"""The device and the precision that a stage computes with, settled once, before anything is computed."""

import os
import platform
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # read when TensorFlow is loaded; 2 leaves its errors


@contextmanager
def _quiet() -> Iterator[None]:
    """Hold back what TensorFlow's libraries print while they look for hardware, unless they fail at it.

    They write to the file descriptor itself, before any level of logging is in force.
    """
    sys.stderr.flush()
    original = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(original, held.read())
            raise
        finally:
            os.dup2(original, 2)
            os.close(original)


@contextmanager
def _without(*modules: str) -> Iterator[None]:
    """Let imports of these modules fail, unless they are loaded already.

    Keras takes scikit-learn and pyplot, for wrappers and galleries that are of no use here, if it finds them: a third
    of the time that TensorFlow takes to load.
    """
    hidden = [name for name in modules if name not in sys.modules]
    sys.modules |= dict.fromkeys(hidden)  # None: the import system raises ModuleNotFoundError
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


with _quiet(), _without("sklearn", "matplotlib.pyplot"):
    import tensorflow as tf

from pipeline.config import Runtime as Wanted
from pipeline.errors import DeviceError

BFLOAT16_INSTRUCTIONS = {"avx512_bf16", "amx_bf16"}


@dataclass(frozen=True)
class Runtime:
    """What is used: `device` cpu or gpu, its name, `precision` float32 or bfloat16, and `threads` of one operation."""

    device: str
    name: str
    precision: str
    threads: int


def start(wanted: Wanted) -> Runtime:
    """Make TensorFlow repeatable and choose device and precision; call it before the first tensor is made.

    Raises:
        DeviceError: a GPU is asked for and there is none.
    """
    with _quiet():
        gpus = tf.config.list_physical_devices("GPU")
    if wanted.device == "gpu" and not gpus:
        raise DeviceError(
            "params.yaml: runtime.device: found gpu, but TensorFlow sees none; allowed: auto, cpu, or gpu after "
            "`make setup GPU=1` on a machine with an NVIDIA GPU and its driver"
        )
    device = "cpu" if wanted.device == "cpu" or not gpus else "gpu"
    if device == "gpu":
        for gpu in gpus:
            # Otherwise the first process takes all of the memory, and a second experiment beside it fails.
            tf.config.experimental.set_memory_growth(gpu, True)
    else:
        tf.config.set_visible_devices([], "GPU")
    tf.config.threading.set_intra_op_parallelism_threads(wanted.threads)
    tf.config.experimental.enable_op_determinism()
    tf.get_logger().setLevel("ERROR")  # a search compiles a new graph for each trial, and TensorFlow warns of it
    details = tf.config.experimental.get_device_details(gpus[0]) if device == "gpu" else {}
    name = details.get("device_name", "GPU") if device == "gpu" else f"{_processor()}, {os.cpu_count()} cores"
    precision = wanted.precision if wanted.precision != "auto" else _precision(details)
    print(f"device: {device} ({name}), precision: {precision}", flush=True)
    return Runtime(device, name, precision, wanted.threads)


def _precision(gpu: dict) -> str:
    """bfloat16 where the hardware has instructions for it: elsewhere it is emulated, and slow."""
    if gpu:
        return "bfloat16" if gpu.get("compute_capability", (0, 0)) >= (8, 0) else "float32"
    return "bfloat16" if BFLOAT16_INSTRUCTIONS & set(_cpuinfo("flags").split()) else "float32"


def _processor() -> str:
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def _cpuinfo(key: str) -> str:
    """One line of Linux's description of the first processor; empty on other systems."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), "")
