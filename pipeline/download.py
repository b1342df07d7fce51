"""Fetch the files of the dataset that params.yaml names:  python -m pipeline.download

DATASET_MIRROR, a folder or a base URL that holds <dataset>/<file>, is tried before the sources of data/catalog.yaml.
A file counts only when its SHA-256 is the catalogue's; what is already there and right is kept. An interrupted
download goes on where it was. What came from where, and when, is in data/raw/<dataset>.json.
"""

import hashlib
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline import atomic, config, sources, stage
from pipeline.catalog import Entry, File
from pipeline.errors import DataError
from pipeline.paths import Paths
from pipeline.sources import SourceError

HTML = (b"<!doctype html", b"<html")  # how the pages begin that servers send in place of a file


def download(dataset: str, entry: Entry, paths: Paths, mirror: str | None = None) -> None:
    """Bring every file of a dataset into data/raw.

    Raises:
        DataError: a file could not be had; it names every source that was tried, why it failed, and the ways on.
    """
    tried = ([f"{mirror.rstrip('/')}/{dataset}"] if mirror else []) + list(entry.sources)
    folder = paths.raw(dataset)
    with atomic.writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for file in entry.files.values():
        target = folder / file.name
        if file.sha256 and target.is_file() and _sha256(target) == file.sha256:
            print(f"{file.name}: already there")
            continue
        source = _fetch(file, tried, target, paths)
        about = {"source": source, "bytes": target.stat().st_size, "sha256": _sha256(target)}
        _record(paths.manifest(dataset), file.name, about | {"time": datetime.now(UTC).isoformat(timespec="seconds")})
        print(f"{file.name}: {about['bytes']:,} bytes from {source}")
        if file.sha256 is None:
            print(f"warning: data/catalog.yaml has no checksum for {file.name}; to pin it, sha256: {about['sha256']}")


def _fetch(file: File, tried: list[str], target: Path, paths: Paths) -> str:
    """Put a file into its place, whole and checked; the source that it came from."""
    # Unfinished files lie outside of what DVC tracks, on the file system of the target: the last step is a rename.
    unfinished = paths.unfinished_download(target.parent.name)
    with atomic.writing(unfinished):
        unfinished.mkdir(parents=True, exist_ok=True)
    part = unfinished / f"{(file.sha256 or 'unpinned')[:12]}-{file.name}"
    failures = []
    for source in tried:
        try:
            _fetch_checked(source, file, part, paths.home)
        except SourceError as error:
            failures.append(f"{source}: {error}")
            continue
        atomic.publish(part, target)
        return source
    reasons = "\n  ".join(failures)
    raise DataError(
        f"{file.name} could not be had:\n  {reasons}\n"
        "Set DATASET_MIRROR to a folder or URL that holds it as <dataset>/<file>,\n"
        "or use the dataset that comes with the environment: dvc exp run -S data.dataset=mnist_5k"
    )


def _fetch_checked(source: str, file: File, part: Path, home: Path) -> None:
    resumed = part.exists()
    sources.fetch(source, file, part, home)
    problem = _mismatch(file, part)
    if problem and resumed:  # perhaps it was the old part that was wrong
        part.unlink()
        sources.fetch(source, file, part, home)
        problem = _mismatch(file, part)
    if problem:
        part.unlink()
        raise SourceError(problem)


def _mismatch(file: File, part: Path) -> str | None:
    size, found = part.stat().st_size, _sha256(part)
    if file.size not in (None, size):
        return f"the file has {size:,} bytes instead of {file.size:,}"
    if file.sha256 in (None, found):
        return None
    with part.open("rb") as content:
        if content.read(100).lstrip().lower().startswith(HTML):
            return "sends an HTML page instead of the file"
    return f"the file has the SHA-256 {found} instead of {file.sha256}"


def _record(manifest: Path, name: str, about: dict[str, Any]) -> None:
    known = json.loads(manifest.read_text(encoding="utf-8")) if manifest.is_file() else {}
    atomic.write_text(manifest, json.dumps(known | {name: about}, indent=2) + "\n")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def run(paths: Paths) -> None:
    stopwatch = stage.Stopwatch()
    params = config.load(paths)
    dataset = params.data.dataset
    with stopwatch("data"):
        entry = config.load_catalog(paths)[dataset]
        download(dataset, entry, paths, os.environ.get("DATASET_MIRROR"))
    stopwatch.report("download")


def main() -> None:
    stage.main(lambda _: run(Paths()), stage.parser(__doc__))


if __name__ == "__main__":
    main()
