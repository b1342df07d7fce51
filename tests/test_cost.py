"""Cost of functions whose cost is known."""

import numpy as np
import pytest

from pipeline.evaluate import cost

IMAGES = np.zeros((300, 4, 4, 1), np.uint8)


def test_times_are_those_of_the_clock(monkeypatch: pytest.MonkeyPatch):
    clock = iter(np.cumsum(np.r_[0, np.full(10_000, 0.002)]))
    monkeypatch.setattr(cost.time, "perf_counter", lambda: next(clock))
    calls: list[int] = []
    found = cost.measure(lambda images: calls.append(len(images)) or images, IMAGES, "cpu")
    assert (found["latency_p50_ms"], found["latency_p95_ms"]) == pytest.approx((2, 2))
    batches = calls.count(300) - 1  # the first one is not timed
    assert found["images_per_second"] == pytest.approx(batches * 300 / (0.002 * (batches + 1)))
    assert calls.count(1) == cost.CALLS + cost.WARM_UP


def test_peak_memory_is_that_of_the_last_measurement(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cost, "SECONDS", 0)

    def hungry(images: np.ndarray) -> np.ndarray:
        return np.ones((1 if len(images) == 1 else 300 * 2**17,)) * 1.0

    def modest(images: np.ndarray) -> np.ndarray:
        return images

    before = cost.measure(modest, IMAGES, "cpu")["peak_memory_mb"]
    with_arrays = cost.measure(hungry, IMAGES, "cpu")["peak_memory_mb"]
    assert with_arrays > before + 250
    assert cost.measure(modest, IMAGES, "cpu")["peak_memory_mb"] < before + 100
