"""Atomic writes: a reader, or the next run after a kill, finds either the old content or the new."""

import errno
import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.core.errors import DataError

UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM}


@contextmanager
def file(target: Path) -> Iterator[Path]:
    """A path to write to; it replaces `target` when the block ends without an exception.

    Raises:
        DataError: the disk is full or not writable; `target` is unchanged.
    """
    with _scratch(target) as scratch:
        part = scratch / target.name
        yield part
        publish(part, target)


@contextmanager
def folder(target: Path) -> Iterator[Path]:
    """A folder to fill; it replaces `target` with all its content when the block ends without an exception.

    Raises:
        DataError: the disk is full or not writable; `target` is unchanged.
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
    """Replace a file by UTF-8 text."""
    with file(target) as part:
        part.write_text(text, encoding="utf-8")


def require_writable(*targets: Path) -> None:
    """Refuse targets that could not be written, before long work whose result they are to hold.

    Raises:
        DataError: the disk is full, or the folder of a target is not writable.
    """
    for target in targets:
        with _scratch(target) as scratch:
            (scratch / "probe").write_bytes(b"0")


def publish(part: Path, target: Path) -> None:
    """Rename a complete file to its final name on the same file system, after its content has reached the disk."""
    _sync(part)
    part.replace(target)
    _sync(target.parent)


@contextmanager
def writing(target: Path) -> Iterator[None]:
    """Turn the errors of a full or protected disk into a message.

    Raises:
        DataError: the block could not write.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        reason = os.strerror(error.errno or 0)
        raise DataError(f"{target}: cannot be written: {reason}; fix this and rerun the stage") from None


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
    """Remove what killed processes left, and restore the old content if one was killed between the two renames.

    The kernel releases the locks of a process that ends, so a folder that can be locked belongs to no live process.
    """
    own = re.compile(rf"\.{re.escape(target.name)}-[a-z0-9_]{{8}}")  # not of a target with a longer name
    for scratch in filter(lambda path: own.fullmatch(path.name), target.parent.iterdir()):
        try:
            lock = _locked(scratch)
        except OSError:  # in use, or already removed
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
