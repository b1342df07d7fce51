"""Time and memory of the stage validate on MNIST and on ten times as many images.

  DATASET_MIRROR=../shared/datasets python -m benchmarks.validation [--times 10] [--repeats 3]

Imports are included. The larger set is MNIST, followed by blends of each image with others of its class.
"""

import gzip
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np

from benchmarks.project import ROOT, create, mirror, parser, yaml
from pipeline.core import config
from pipeline.core.paths import Paths
from pipeline.download.download import download
from pipeline.formats.images import Images
from pipeline.formats.read import read

MEGABYTE = 2**20
SHARE = 0.7  # of the image itself in a blend
CHUNK = 4096  # images blended at a time


def project(folder: Path, times: int) -> Paths:
    """A project whose dataset `large` is MNIST so many times, in gzipped IDX files."""
    original = yaml.load(ROOT / "data" / "catalog.yaml")["mnist"]
    files = {role: {"name": file["name"]} for role, file in original["files"].items()}
    paths = create(folder, {"data": {"dataset": "large", "limit": None}}, {"large": original | {"files": files}})
    entry = config.load_catalog(paths)["mnist"]
    with redirect_stdout(sys.stderr):
        download("mnist", entry, paths, mirror())
    paths.raw("large").mkdir()
    for split, images in read(entry, paths.raw("mnist")).items():
        content = enlarged(images, times)
        arrays = {"images": content.images[..., 0], "labels": content.labels.astype(np.uint8)}
        for kind, array in arrays.items():
            header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
            target = paths.raw("large") / files[f"{split}_{kind}"]["name"]
            target.write_bytes(gzip.compress(header + array.tobytes(), compresslevel=1))
    return paths


def enlarged(split: Images, times: int) -> Images:
    order = np.argsort(split.labels, kind="stable")
    images, labels = split.images[order], split.labels[order]
    first = np.searchsorted(labels, labels, side="left")
    count = np.searchsorted(labels, labels, side="right") - first
    parts = [split.images]
    for away in range(1, times):  # another partner each time
        partners = first + (np.arange(len(labels)) - first + away) % count
        chunks = [slice(start, start + CHUNK) for start in range(0, len(images), CHUNK)]
        parts += [blend(images[chunk], images[partners[chunk]]) for chunk in chunks]
    return Images(np.concatenate(parts), np.concatenate([split.labels, *[labels] * (times - 1)]))


def blend(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return (SHARE * one.astype(np.float32) + (1 - SHARE) * other).astype(np.uint8)


def measure(paths: Paths) -> tuple[float, float, float]:
    """Seconds, CPU seconds and peak megabytes of one run of the stage in its own process."""
    shutil.rmtree(paths.validated, ignore_errors=True)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "pipeline.validate"]
    began = time.perf_counter()
    process = subprocess.Popen(command, cwd=paths.root, env=environment, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"the stage ended with {process.returncode}")
    return time.perf_counter() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--times", type=int, default=10, help="size of the larger set, in MNISTs")
    arguments.add_argument("--repeats", type=int, default=3, help="runs, of which the fastest counts")
    given = arguments.parse_args()
    print(f"{os.cpu_count()} cores; load average {os.getloadavg()[0]:.1f}")
    print("| images | pixels, MB | s | CPU s | peak, MB | peak less pixels, MB |")
    print("|---|---|---|---|---|---|")
    for times in sorted({1, given.times}):
        with tempfile.TemporaryDirectory() as folder:
            paths = project(Path(folder), times)
            seconds, cpu, peak = min(measure(paths) for _ in range(given.repeats))
            pixels = sum((paths.split(name) / "images.npy").stat().st_size for name in ("train", "validation", "test"))
        images, pixels = pixels // 784, pixels / MEGABYTE
        print(
            f"| {images:,} | {pixels:.0f} | {seconds:.1f} | {cpu:.1f} | {peak:.0f} | {peak - pixels:.0f} |", flush=True
        )


if __name__ == "__main__":
    main()
