"""Fetch the files of the dataset that params.yaml names:  python -m pipeline.download

DATASET_MIRROR, a folder or a base URL that holds <dataset>/<file>, is tried before the sources of data/catalog.yaml.
A file counts only when its SHA-256 is the catalogue's; what is already there and right is kept.
"""

import hashlib
import importlib.util
import os
import shutil
import tempfile
from pathlib import Path

import pooch
import requests

from pipeline import config, stage
from pipeline.catalog import Entry, File
from pipeline.errors import DataError
from pipeline.paths import Paths

TIMEOUT = 20  # seconds without a byte


def download(dataset: str, entry: Entry, folder: Path, mirror: str | None = None) -> None:
    """Bring every file of a dataset into `folder`.

    Raises:
        DataError: a file could not be had; it names every source that was tried, why it failed, and the ways on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sources = [f"{mirror.rstrip('/')}/{dataset}"] if mirror else []
    for file in entry.files.values():
        target = folder / file.name
        if target.is_file() and _sha256(target) == file.sha256:
            print(f"{file.name}: already there")
        else:
            _fetch(file, [*sources, *entry.sources], target)


def _fetch(file: File, sources: list[str], target: Path) -> None:
    failures = []
    # Beside the target, so that the last step is a rename within one file system: all of the file or none of it.
    with tempfile.TemporaryDirectory(prefix=".fetching-", dir=target.parent) as scratch:
        part = Path(scratch) / file.name
        for source in sources:
            try:
                _copy(source, file.name, part)
            except (OSError, requests.RequestException, DataError) as error:
                failures.append(f"{source}: {error}")
                continue
            found = _sha256(part)
            if found == file.sha256:
                part.replace(target)
                print(f"{file.name}: from {source}")
                return
            failures.append(f"{source}: the file has the SHA-256 {found[:12]}… instead of {file.sha256[:12]}…")
    tried = "\n  ".join(failures)
    raise DataError(
        f"{file.name} could not be had:\n  {tried}\n"
        "Set DATASET_MIRROR to a folder or URL that holds it as <dataset>/<file>,\n"
        "or use the dataset that comes with the environment: dvc exp run -S data.dataset=mnist_5k"
    )


def _copy(source: str, name: str, target: Path) -> None:
    if source.startswith("package:"):
        package, _, folder = source.removeprefix("package:").partition("/")
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            raise DataError(f"the package {package} is not installed")
        shutil.copyfile(Path(spec.origin).parent / folder / name, target)
    elif source.startswith(("http://", "https://")):
        fetch = pooch.HTTPDownloader(progressbar=True, timeout=TIMEOUT)
        fetch(f"{source}/{name}", str(target), None)  # type: ignore[arg-type]  # the third is unused for a URL
    else:
        shutil.copyfile(Path(source) / name, target)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main() -> None:
    stage.main(lambda _: run(Paths()), stage.parser(__doc__))


def run(paths: Paths) -> None:
    stopwatch = stage.Stopwatch()
    params = config.load(paths)
    dataset = params.data.dataset
    with stopwatch("data"):
        entry = config.load_catalog(paths)[dataset]
        download(dataset, entry, paths.raw(dataset), os.environ.get("DATASET_MIRROR"))
    stopwatch.report("download")


if __name__ == "__main__":
    main()
