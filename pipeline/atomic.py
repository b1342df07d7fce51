"""Writing that is all or nothing: a reader, or the next run after a kill, sees the old content or the new."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def file(target: Path) -> Iterator[Path]:
    """A path to write to; what was written takes the place of `target` when the block ends well."""
    with _scratch(target) as scratch:
        part = scratch / target.name
        yield part
        with part.open("rb") as written:
            os.fsync(written.fileno())
        part.replace(target)


@contextmanager
def folder(target: Path) -> Iterator[Path]:
    """A folder to fill; it takes the place of `target`, and of all that was in it, when the block ends well."""
    with _scratch(target) as scratch:
        part, old = scratch / "new", scratch / "old"
        part.mkdir()
        yield part
        if target.exists():
            target.rename(old)
        part.rename(target)


def write_text(target: Path, text: str) -> None:
    with file(target) as part:
        part.write_text(text, encoding="utf-8")


@contextmanager
def _scratch(target: Path) -> Iterator[Path]:
    # Beside the target: a rename is atomic only within one file system.
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
