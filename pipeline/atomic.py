"""Writing that is all or nothing: a reader, or the next run after a kill, sees the old content or the new."""

import errno
import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import DataError

UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM}


@contextmanager
def file(target: Path) -> Iterator[Path]:
    """A path to write to; what was written takes the place of `target` when the block ends well.

    Raises:
        DataError: it cannot be written; `target` is as it was.
    """
    with _scratch(target) as scratch:
        part = scratch / target.name
        yield part
        publish(part, target)


@contextmanager
def folder(target: Path) -> Iterator[Path]:
    """A folder to fill; it takes the place of `target`, and of all that was in it, when the block ends well.

    Raises:
        DataError: it cannot be written; `target` is as it was.
    """
    with _scratch(target) as scratch:
        part, old = scratch / "new", scratch / "old"
        part.mkdir()
        yield part
        for path in part.rglob("*"):
            _sync(path)
        if target.exists():
            target.rename(old)
        part.rename(target)
        _sync(target.parent)


def write_text(target: Path, text: str) -> None:
    with file(target) as part:
        part.write_text(text, encoding="utf-8")


def publish(part: Path, target: Path) -> None:
    """Give a complete file its final name, on the disk before the name is; both on one file system."""
    _sync(part)
    part.replace(target)
    _sync(target.parent)


@contextmanager
def writing(target: Path) -> Iterator[None]:
    """A full or protected disk as a message.

    Raises:
        DataError: the block could not write.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        reason = os.strerror(error.errno or 0)
        raise DataError(f"{target}: cannot be written: {reason}; put that right, then run the stage again") from None


@contextmanager
def _scratch(target: Path) -> Iterator[Path]:
    # Beside the target: a rename is atomic only within one file system.
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        _clear_up(target)
        scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
        lock = _locked(scratch)
        try:
            yield scratch
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
            os.close(lock)


def _clear_up(target: Path) -> None:
    """Remove what killed processes left; the old content comes back, if one was killed between the two renames.

    The kernel gives up a process's locks with the process, so what can be locked belongs to none that lives.
    """
    own = re.compile(rf"\.{re.escape(target.name)}-[a-z0-9_]{{8}}")  # not that of a target whose name is longer
    for scratch in filter(lambda path: own.fullmatch(path.name), target.parent.iterdir()):
        try:
            lock = _locked(scratch)
        except OSError:  # in use, or removed meanwhile
            continue
        old = scratch / "old"
        if old.exists() and not target.exists():
            old.rename(target)
        shutil.rmtree(scratch, ignore_errors=True)
        os.close(lock)


def _locked(scratch: Path) -> int:
    descriptor = os.open(scratch, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
