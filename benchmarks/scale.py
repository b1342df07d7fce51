"""Measure the engine alone, with fits that sleep on simulated workers:  python -m benchmarks.scale

  python -m benchmarks.scale --workers 200 --fits 10000 --seconds 4

The workers share a few processes, so that one machine holds hundreds: the stage's process and the scheduler see no
difference. Each fit reports one epoch and returns a model of `--megabytes`. Prints the seconds until all workers were
busy, the wall time beside that of workers without gaps, the excess for each fit, and the memory of the stage's process.
"""

import argparse
import asyncio
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable

import dask.config
import psutil
from distributed import Client, Scheduler, Worker

from benchmarks.project import ROOT, parser
from pipeline.core.records import Device
from pipeline.core.sections import Runtime
from pipeline.engine import cluster, engine, task

CPU = Runtime(device="cpu", precision="float32", threads=1, replicas=1)
SLEEP = "benchmarks.scale:sleep"
SHARED = 25  # workers in a process


def sleep(argument: tuple[float, int], data: object, report: Callable[[object], None]) -> bytes:
    """A fit that sleeps, with an epoch in the middle."""
    seconds, size = argument
    time.sleep(seconds / 2)
    report("epoch")
    time.sleep(seconds / 2)
    return bytes(size)


async def simulate_workers(address: str, count: int) -> None:
    """Join a scheduler as several workers that need no TensorFlow, until it closes."""
    task.load_tensorflow = lambda: None
    task._started = lambda *_: Device(kind="cpu", name="simulated", precision="float32", threads=1, replicas=1)
    # Each worker would sample its threads 100 times a second: not what is measured, when they share two cores.
    dask.config.set({"distributed.worker.profile.enabled": False})
    workers = [await Worker(address, nthreads=1, memory_limit=0, silence_logs=50) for _ in range(count)]
    await asyncio.gather(*[worker.finished() for worker in workers])


async def simulate_scheduler(port: int) -> None:
    async with Scheduler(host="127.0.0.1", port=port, dashboard_address="127.0.0.1:0") as scheduler:
        await scheduler.finished()


def resident() -> float:
    """MiB of this process."""
    return psutil.Process().memory_info().rss / 2**20


async def run(used: engine.Engine, fits: int, seconds: float, size: int) -> tuple[float, list[float]]:
    """Run the fits; the wall time, and the times of their epochs."""
    began, epochs = time.perf_counter(), list[float]()

    def on_message(_: object) -> bool:
        epochs.append(time.perf_counter() - began)
        return True

    async def one() -> None:
        async with used.slot():
            await used.run(SLEEP, (seconds, size), on_message)

    async with asyncio.TaskGroup() as group:
        for _ in range(fits):
            group.create_task(one())
    return time.perf_counter() - began, epochs


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--workers", type=int, default=200)
    arguments.add_argument("--fits", type=int, default=10_000)
    arguments.add_argument("--seconds", type=float, default=4.0, help="of each fit")
    arguments.add_argument("--megabytes", type=float, default=0.0, help="of each result")
    arguments.add_argument("--port", type=int, default=18786)
    arguments.add_argument("--join", type=int, help=argparse.SUPPRESS)
    given = arguments.parse_args()
    logging.getLogger("distributed").setLevel(logging.ERROR)
    address = f"tcp://127.0.0.1:{given.port}"
    if given.join is not None:
        asyncio.run(simulate_workers(address, given.join) if given.join else simulate_scheduler(given.port))
        return
    me = [sys.executable, "-m", "benchmarks.scale", "--port", str(given.port), "--join"]
    counts = [0] + [min(SHARED, given.workers - start) for start in range(0, given.workers, SHARED)]
    children = [subprocess.Popen([*me, str(count)], cwd=ROOT) for count in counts]
    try:
        with Client(address, timeout="60s") as client:
            client.wait_for_workers(given.workers, timeout=300)
            used = cluster.Cluster(client, CPU, "the simulated cluster", False)
            used.share(None)
            before = resident()
            wall, epochs = engine.complete(run(used, given.fits, given.seconds, int(given.megabytes * 2**20)))
            after = resident()
    finally:
        for child in children:
            child.terminate()
            child.wait()
    ideal = -(-given.fits // given.workers) * given.seconds
    busy = sorted(epochs)[given.workers - 1] - given.seconds / 2
    print(f"{os.cpu_count()} cores; load average {os.getloadavg()[0]:.1f}")
    print("| fits | workers | s each | all busy after s | wall s | without gaps s | excess for each fit ms | MiB |")
    print("|---|---|---|---|---|---|---|---|")
    excess = 1000 * (wall - ideal) / given.fits
    print(
        f"| {given.fits} | {given.workers} | {given.seconds} | {busy:.1f} | {wall:.1f} | {ideal:.1f} | {excess:.2f} "
        f"| {before:.0f} to {after:.0f} |"
    )


if __name__ == "__main__":
    main()
