"""Time and memory of the stages on generated images, with the memory limited.

  python -m benchmarks.large --images 80000 --side 224 --memory 3     # 12 GB of photos, as JPEG files in a tar archive
  python -m benchmarks.large --images 1000000 --side 32 --stages download validate    # NumPy arrays

Images are a pattern of their class, and one of their own. `--memory` sets a limit in GiB for every stage, with its
files in the page cache, by a memory cgroup (version 1, as root). The peak is that of memory that is backed by no file.
The stage `train in memory` trains without a limit, with all images in memory.
"""

import io
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.project import ROOT, create, parser, yaml
from pipeline.core import dataset
from pipeline.core.paths import Paths

CHUNK = 2**24  # values generated at a time
PHOTO = 64  # pixels: larger images are stored as JPEG files
GRID = 8  # points of a pattern along each axis
CGROUP = Path("/sys/fs/cgroup/memory")
ROBUSTNESS = {
    "corrupted_images": 500,
    "shifted_images": 500,
    "max_shift": 1,
    "out_of_distribution_images": 500,
    "out_of_distribution_dataset": None,
}
NETWORK = {
    "blocks": [{"filters": [filters], "pooling": {"kind": "max"}} for filters in (8, 16)],
    "head": {"pooling": "global_average"},
}
CHANGES = {
    "data": {"dataset": "large"},
    "fit": {"epochs": 2, "batch_size": 32},
    "evaluate": {"robustness": ROBUSTNESS},
    "grid": {"base": "network"},
}
STAGES = ("download", "validate", "train network", "evaluate")
HELD = "train in memory"
IN_MEMORY = """
import runpy, sys
from pipeline.train import batches
batches.IN_MEMORY = 2**60
sys.argv = ["train", "network"]
runpy.run_module("pipeline.train", run_name="__main__")
"""


def generated(count: int, side: int, classes: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Labels and images, uint8 (n, side, side, 3)."""
    draws = np.random.default_rng(1)
    spread = np.maximum(0, 1 - np.abs(np.linspace(0, GRID - 1, side)[:, None] - np.arange(GRID))).astype(np.float32)
    patterns = draws.random((classes, 3, GRID, GRID), np.float32)
    size = max(1, CHUNK // (3 * side * side))
    for start in range(0, count, size):
        labels = np.arange(start, min(start + size, count)) % classes
        own = draws.random((len(labels), 3, GRID, GRID), np.float32)
        smooth = spread @ (0.4 * patterns[labels] + 0.6 * own) @ spread.T
        yield labels, np.ascontiguousarray(np.moveaxis(255 * smooth, 1, 3), np.uint8)


def write_photos(target: Path, count: int, side: int, classes: int) -> None:
    def encoded(image: np.ndarray) -> bytes:
        content = io.BytesIO()
        Image.fromarray(image).save(content, "jpeg", quality=90)
        return content.getvalue()

    with tarfile.open(target, "w") as archive, ThreadPoolExecutor() as pool:
        number = 0
        for labels, images in generated(count, side, classes):
            for label, content in zip(labels, pool.map(encoded, images), strict=True):
                member = tarfile.TarInfo(f"class{label:04}/{number}.jpg")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
                number += 1


def write_arrays(target: Path, count: int, side: int, classes: int) -> None:
    every = []
    with zipfile.ZipFile(target, "w") as archive:
        with archive.open("x_train.npy", "w", force_zip64=True) as file:
            header = {"descr": "|u1", "fortran_order": False, "shape": (count, side, side, 3)}
            np.lib.format.write_array_header_1_0(file, header)
            for labels, images in generated(count, side, classes):
                every.append(labels)
                file.write(images.data)
        with archive.open("y_train.npy", "w") as file:
            np.lib.format.write_array(file, np.concatenate(every))


def project(folder: Path, count: int, side: int, classes: int) -> Paths:
    photos = side > PHOTO
    entry = {
        "description": "generated images",
        "image": [side, side, 3],
        "classes": [f"class{label:04}" for label in range(classes)],
        "format": "folder" if photos else "npz",
        "sources": [str(folder)],
        "files": {"images": {"name": "large.tar"}} if photos else {"arrays": {"name": "large.npz"}},
    }
    (write_photos if photos else write_arrays)(folder / ("large.tar" if photos else "large.npz"), count, side, classes)
    for file in entry["files"].values():
        file["size"] = (folder / file["name"]).stat().st_size
    paths = create(folder, CHANGES, {"large": entry})
    params = yaml.load(paths.params)
    yaml.dump(params | {"models": {"network": NETWORK}, "tune": None}, paths.params)
    return paths


def measure(stage: str, paths: Paths, limit: float | None) -> tuple[float, float, float, str]:
    """Seconds, CPU seconds, the peak in MB of memory that is backed by no file, and the output."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "MLFLOW_TRACKING_URI": f"sqlite:///{paths.root}/mlflow.db"}
    group = CGROUP / f"large-{os.getpid()}"
    if limit:
        group.mkdir(exist_ok=True)
        (group / "memory.limit_in_bytes").write_text(str(int(limit * 2**30)))
    began, peak = time.perf_counter(), 0
    enter = (lambda: (group / "cgroup.procs").write_text(str(os.getpid()))) if limit else None
    command = ["-c", IN_MEMORY] if stage == HELD else ["-m", *f"pipeline.{stage}".split()]
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            [sys.executable, *command], cwd=paths.root, env=environment, preexec_fn=enter, stdout=output
        )
        while True:
            found, status, usage = os.wait4(process.pid, os.WNOHANG)
            if found:
                break
            peak = max(peak, anonymous(process.pid))
            time.sleep(0.05)
        if limit:
            group.rmdir()
        if status:
            sys.exit(f"{stage} ended with {os.waitstatus_to_exitcode(status)}")
        output.seek(0)
        return time.perf_counter() - began, usage.ru_utime + usage.ru_stime, peak / 2**20, output.read()


def anonymous(process: int) -> int:
    """Bytes of a process's memory that is backed by no file."""
    try:
        lines = Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines()
    except OSError:  # it has ended
        return 0
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--images", type=int, default=10_000)
    arguments.add_argument("--side", type=int, default=224, help="height and width")
    arguments.add_argument("--classes", type=int, default=10)
    arguments.add_argument("--memory", type=float, help="GiB; default: not limited")
    arguments.add_argument("--stages", nargs="*", default=STAGES)
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:  # /tmp may be in memory
        paths = project(Path(folder), given.images, given.side, given.classes)
        print(f"{os.cpu_count()} cores; load average {os.getloadavg()[0]:.1f}")
        print(f"{given.images:,} images, {given.images * given.side**2 * 3 / 2**30:.2f} GiB of pixels")
        print("| stage | s | CPU s | peak, MB | images/s in the last epoch |\n|---|---|---|---|---|", flush=True)
        for stage in given.stages:
            seconds, cpu, peak, output = measure(stage, paths, None if stage == HELD else given.memory)
            epochs = re.findall(r"epoch .*\(([\d.]+) s\)", output)
            rate = f"{dataset.load_info(paths).images['train'] / float(epochs[-1]):,.0f}" if epochs else ""
            print(f"| {stage} | {seconds:.1f} | {cpu:.1f} | {peak:.0f} | {rate} |", flush=True)


if __name__ == "__main__":
    main()
