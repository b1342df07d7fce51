"""The device and the precision of a stage, chosen once, before anything is computed."""

import os
import platform
from pathlib import Path
from typing import Literal

import tensorflow as tf

from pipeline.core.errors import DeviceError
from pipeline.core.records import Device
from pipeline.core.sections import Runtime
from pipeline.runtime.startup import quiet

BFLOAT16_INSTRUCTIONS = {"avx512_bf16", "amx_bf16"}


def start(wanted: Runtime) -> Device:
    """Make TensorFlow deterministic and choose device and precision; to be called before the first tensor is made.

    Raises:
        DeviceError: a GPU is asked for and there is none, or there are several, but fewer than replicas.
    """
    with quiet():
        gpus = tf.config.list_physical_devices("GPU")
    if wanted.device == "gpu" and not gpus:
        raise DeviceError(
            "params.yaml: runtime.device: found gpu, but TensorFlow sees none; allowed: auto, cpu, or gpu after "
            "`make setup GPU=1` on a machine with an NVIDIA GPU and its driver"
        )
    kind = "cpu" if wanted.device == "cpu" or not gpus else "gpu"
    if kind == "gpu":
        if 1 < len(gpus) < wanted.replicas:
            raise DeviceError(
                f"params.yaml: runtime.replicas: found {wanted.replicas}, but TensorFlow sees {len(gpus)} GPUs; "
                f"allowed: 1 to {len(gpus)}, or any number on one GPU (CUDA_VISIBLE_DEVICES=0)"
            )
        for gpu in gpus:
            # Otherwise the first process takes all of the memory, and a second experiment beside it fails.
            tf.config.experimental.set_memory_growth(gpu, True)
    else:
        tf.config.set_visible_devices([], "GPU")
    tf.config.threading.set_intra_op_parallelism_threads(wanted.threads)
    tf.config.experimental.enable_op_determinism()
    tf.get_logger().setLevel("ERROR")  # a search compiles a new graph for each trial, and TensorFlow warns of it
    details = tf.config.experimental.get_device_details(gpus[0]) if kind == "gpu" else {}
    name = details.get("device_name", "GPU") if kind == "gpu" else f"{_processor()}, {os.cpu_count()} cores"
    precision = wanted.precision if wanted.precision != "auto" else _precision(details)
    print(f"device: {kind} ({name}), precision: {precision}", flush=True)
    return Device(kind=kind, name=name, precision=precision, threads=wanted.threads, replicas=wanted.replicas)


def _precision(gpu: dict) -> Literal["float32", "bfloat16"]:
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
