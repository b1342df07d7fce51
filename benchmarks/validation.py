"""Time and memory of the stage validate, imports included, on MNIST and on ten times as many images.

  DATASET_MIRROR=../shared/datasets python benchmarks/validation.py [--times 10] [--repeats 3]

The larger set is made of MNIST: every image once as it is, then blended with another one of its class.
"""

import argparse
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
from ruamel.yaml import YAML

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from pipeline import config, readers  # noqa: E402
from pipeline.download import download  # noqa: E402
from pipeline.paths import Paths  # noqa: E402
from pipeline.readers import Images  # noqa: E402

MEGABYTE = 2**20
KIND = 0.7  # share of the image itself in a blend


def project(folder: Path, times: int) -> Paths:
    """A project whose dataset `large` is MNIST so many times, in gzipped IDX files."""
    (folder / "data").mkdir(parents=True)
    yaml = YAML(typ="safe", pure=True)
    params, catalog = yaml.load(ROOT / "params.yaml"), yaml.load(ROOT / "data" / "catalog.yaml")
    params["data"] |= {"dataset": "large", "limit": None}
    files = {role: {"name": file["name"]} for role, file in catalog["mnist"]["files"].items()}
    catalog["large"] = catalog["mnist"] | {"files": files}
    yaml.dump(params, folder / "params.yaml")
    yaml.dump(catalog, folder / "data" / "catalog.yaml")
    paths = Paths(folder)
    entry = config.load_catalog(paths)["mnist"]
    mirror = os.environ.get("DATASET_MIRROR", "")
    with redirect_stdout(sys.stderr):
        download("mnist", entry, paths, mirror if "://" in mirror or not mirror else str(Path(mirror).resolve()))
    paths.raw("large").mkdir()
    for split, images in readers.read(entry, paths.raw("mnist")).items():
        write(paths.raw("large"), files, split, enlarged(images, times))
    return paths


def enlarged(split: Images, times: int) -> Images:
    order = np.argsort(split.labels, kind="stable")
    images, labels = split.images[order], split.labels[order]
    first = np.searchsorted(labels, labels, side="left")
    count = np.searchsorted(labels, labels, side="right") - first
    parts = [split.images]
    for away in range(1, times):  # another partner each time
        partners = first + (np.arange(len(labels)) - first + away) % count
        parts.append(np.concatenate([blend(images[s], images[partners[s]]) for s in chunks(len(images))]))
    return Images(np.concatenate(parts), np.concatenate([split.labels, *[labels] * (times - 1)]))


def chunks(count: int) -> list[slice]:
    return [slice(start, start + 4096) for start in range(0, count, 4096)]


def blend(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return (KIND * one.astype(np.float32) + (1 - KIND) * other).astype(np.uint8)


def write(folder: Path, files: dict[str, dict[str, str]], split: str, content: Images) -> None:
    for kind, array in {"images": content.images[..., 0], "labels": content.labels.astype(np.uint8)}.items():
        with gzip.open(folder / files[f"{split}_{kind}"]["name"], "wb", compresslevel=1) as file:
            file.write(bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes())
            file.write(array.data)


def measured(paths: Paths) -> tuple[float, float, float]:
    """Seconds, seconds of processor, and megabytes at the peak, of one run of the stage in a process of its own."""
    shutil.rmtree(paths.validated, ignore_errors=True)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline.validate"], cwd=paths.root, env=environment, stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"the stage ended with {process.returncode}")
    return time.perf_counter() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=10, help="size of the larger set, in MNISTs")
    parser.add_argument("--repeats", type=int, default=3, help="runs, of which the fastest counts")
    arguments = parser.parse_args()
    print(f"{os.cpu_count()} cores; load {os.getloadavg()[0]:.1f}")
    print("| images | pixels, MB | s | s of processor | peak, MB | peak less pixels, MB |")
    print("|---|---|---|---|---|---|")
    for times in (1, arguments.times):
        with tempfile.TemporaryDirectory() as folder:
            paths = project(Path(folder) / "project", times)
            seconds, processor, peak = min(measured(paths) for _ in range(arguments.repeats))
            pixels = sum((paths.split(name) / "images.npy").stat().st_size for name in ("train", "validation", "test"))
        images, pixels = pixels // 784, pixels / MEGABYTE
        print(f"| {images:,} | {pixels:.0f} | {seconds:.1f} | {processor:.1f} | {peak:.0f} | {peak - pixels:.0f} |")


if __name__ == "__main__":
    main()
