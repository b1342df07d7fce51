"""Cost of inference on this machine: time and memory.

Unlike all other results of evaluation, they differ from run to run; so they have a table of their own.
"""

import resource
import sys
import time
from pathlib import Path

import numpy as np
import tensorflow as tf

from pipeline.runtime.predictor import Predict

CALLS, WARM_UP = 200, 20  # single images
SECONDS = 0.5  # of scoring in batches, at least
IMAGES = 2000  # scored in batches at a time, at most
MEBIBYTE = 2**20


def measure(predict: Predict, images: np.ndarray, device: str) -> dict[str, float]:
    """Time and memory of scoring uint8 images (n, height, width, channels), from NumPy to NumPy.

    latency_p50_ms, latency_p95_ms: median and 95th percentile for a single image; images_per_second: in batches;
    peak_memory_mb: on a GPU, TensorFlow's on the device; else the process's, including TensorFlow and the data.

    Args:
        device: cpu or gpu.
    """
    _reset_peak(device)
    several = images[:IMAGES]
    predict(several)
    scored, began = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - began) < SECONDS:
        predict(several)
        scored += len(several)
    seconds = [_seconds(predict, images[:1]) for _ in range(WARM_UP + CALLS)][WARM_UP:]
    p50, p95 = np.quantile(seconds, [0.5, 0.95]) * 1000
    return {
        "latency_p50_ms": float(p50),
        "latency_p95_ms": float(p95),
        "images_per_second": scored / elapsed,
        "peak_memory_mb": _peak(device) / MEBIBYTE,
    }


def _seconds(predict: Predict, images: np.ndarray) -> float:
    began = time.perf_counter()
    predict(images)
    return time.perf_counter() - began


def _reset_peak(device: str) -> None:
    """Discard earlier peaks. For a process, only Linux can; elsewhere the peak is the one since its start."""
    if device == "gpu":
        tf.config.experimental.reset_memory_stats("GPU:0")
    elif (control := Path("/proc/self/clear_refs")).exists():
        control.write_text("5", encoding="ascii")  # proc(5): 5 sets the peak to the memory resident now


def _peak(device: str) -> int:
    """Bytes."""
    if device == "gpu":
        return tf.config.experimental.get_memory_info("GPU:0")["peak"]
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage(2)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
