"""Bring the files of a dataset into data/raw, each complete and verified."""

import hashlib
import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

from pipeline.core import atomic
from pipeline.core.catalog import Entry, File
from pipeline.core.errors import DataError
from pipeline.core.paths import Paths
from pipeline.core.redact import redact
from pipeline.download import sources
from pipeline.download.sources import SourceError

HTML = (b"<!doctype html", b"<html")  # the beginning of a page that a server sends in place of a file


def download(dataset: str, entry: Entry, paths: Paths, mirror: str | None = None) -> None:
    """Download every file of a dataset that is not in place yet. The mirror is tried first.

    DVC removes the output of a stage before it runs, so files with a known checksum are kept elsewhere, too: they are
    downloaded once.

    Raises:
        DataError: a file could not be downloaded; lists every source with its error, and what to do next.
    """
    candidates = ([f"{mirror.rstrip('/')}/{dataset}"] if mirror else []) + list(entry.sources)
    folder = paths.raw(dataset)
    with atomic.writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for file in entry.files.values():
        target, kept = folder / file.name, paths.resumable / "download" / dataset / file.name
        if _is_complete(target, file) or (_is_complete(kept, file) and _copy(kept, target)):
            print(f"{file.name}: already downloaded")
            continue
        source = redact(_fetch_from_any(candidates, file, target, paths))
        if file.sha256:
            _copy(target, kept)
        size, checksum = target.stat().st_size, _sha256(target)
        _record(paths.manifest(dataset), file.name, {"source": source, "bytes": size, "sha256": checksum})
        print(f"{file.name}: {size:,} bytes from {source}")
        if file.sha256 is None:
            print(f"warning: data/catalog.yaml has no checksum for {file.name}; to pin it, add sha256: {checksum}")


def _is_complete(path: Path, file: File) -> bool:
    return file.sha256 is not None and path.is_file() and _sha256(path) == file.sha256


def _copy(source: Path, target: Path) -> bool:
    """Copy a file, or link it where the file system can: then it takes no space."""
    with atomic.file(target) as part:
        try:
            part.hardlink_to(source)
        except OSError:
            shutil.copyfile(source, part)
    return True


def _fetch_from_any(candidates: list[str], file: File, target: Path, paths: Paths) -> str:
    """Put a complete, verified file in place, and return its source."""
    # Partial files lie outside the folder that DVC tracks, on the same file system: the last step is a rename.
    partial = paths.unfinished_download(target.parent.name)
    with atomic.writing(partial):
        partial.mkdir(parents=True, exist_ok=True)
    part = partial / f"{(file.sha256 or 'unpinned')[:12]}-{file.name}"
    failures = []
    for source in candidates:
        try:
            _fetch_verified(source, file, part, paths.home)
        except SourceError as error:
            failures.append(redact(f"{source}: {error}"))
            continue
        atomic.publish(part, target)
        return source
    reasons = "\n  ".join(failures)
    raise DataError(
        f"{file.name} could not be downloaded; tried:\n  {reasons}\n"
        "Set DATASET_MIRROR to a folder or URL that contains it as <dataset>/<file>,\n"
        "or use the dataset that is installed with the packages: dvc exp run --temp -S data.dataset=mnist_5k"
    )


def _fetch_verified(source: str, file: File, part: Path, home: Path) -> None:
    resumed = part.exists()
    sources.fetch(source, file, part, home)
    problem = _mismatch(file, part)
    if problem and resumed:  # the earlier part may have been the wrong one
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


def _record(manifest: Path, name: str, origin: dict[str, str | int]) -> None:
    known = json.loads(manifest.read_text(encoding="utf-8")) if manifest.is_file() else {}
    known[name] = origin | {"time": datetime.now(UTC).isoformat(timespec="seconds")}
    atomic.write_text(manifest, json.dumps(known, indent=2) + "\n")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
