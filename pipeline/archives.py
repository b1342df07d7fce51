"""Archives of images, zip or tar: read member by member, never unpacked onto the disk; and folders packed into one."""

import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from pipeline.errors import DataError

MOST_PER_MEMBER = 64 * 2**20  # bytes; a photograph of 50 megapixels has less
Member = tuple[PurePosixPath, Callable[[], bytes]]  # its path, and what reads it, until the next member is asked for
EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip archive can hold


def members(file: BinaryIO, name: str) -> Iterator[Member]:
    """The files of an archive, in the order of the archive; hidden ones are left out.

    Raises:
        DataError: the archive is damaged, or holds a link, a path that leads out of it, or a member too large.
    """
    try:
        yield from _zip(file, name) if name.endswith(".zip") else _tar(file, name)
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, NotImplementedError, OSError) as error:
        raise DataError(f"{name}: damaged: {error}; delete it and run the stage download again") from None


def pack(folder: Path, target: Path) -> None:
    """Put a folder into an uncompressed zip archive whose bytes depend on the names and contents alone.

    Raises:
        DataError: the folder is missing, empty or unreadable, or holds a link.
    """
    files = sorted(_files(folder))
    if not files:
        raise DataError(f"{folder}: holds no files")
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for path in files:
            try:
                content = path.read_bytes()
            except PermissionError:
                raise DataError(f"{path}: no permission to read it") from None
            archive.writestr(zipfile.ZipInfo(path.relative_to(folder).as_posix(), EPOCH), content)


def _files(folder: Path) -> Iterator[Path]:
    if not folder.is_dir():
        raise DataError(f"{folder}: not a folder")
    for where, folders, names in os.walk(folder, onerror=_refuse):
        folders[:] = [name for name in folders if not _hidden(name)]
        for name in [*folders, *filter(lambda name: not _hidden(name), names)]:
            path = Path(where, name)
            if path.is_symlink():
                raise DataError(f"{path}: a link; put the file itself there")
            if name in names:
                yield path


def _refuse(error: OSError) -> None:
    raise DataError(f"{error.filename}: {error.strerror}; the folder has to be readable") from None


def _hidden(name: str) -> bool:
    return name.startswith((".", "__MACOSX")) or name == "Thumbs.db"


def _zip(file: BinaryIO, name: str) -> Iterator[Member]:
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            path = _safe(info.filename, name, stat.S_ISLNK(info.external_attr >> 16), info.file_size)
            if info.flag_bits & 1:
                raise DataError(f"{name}: {info.filename}: encrypted")
            if not info.is_dir() and not any(map(_hidden, path.parts)):
                yield path, partial(archive.read, info)


def _tar(file: BinaryIO, name: str) -> Iterator[Member]:
    with tarfile.open(fileobj=file, mode="r|*") as archive:
        for info in archive:
            path = _safe(info.name, name, not (info.isreg() or info.isdir()), info.size)
            content = archive.extractfile(info)
            if content is not None and not any(map(_hidden, path.parts)):
                yield path, content.read


def _safe(member: str, archive: str, special: bool, size: int) -> PurePosixPath:
    path = PurePosixPath(member)
    if special:
        raise DataError(f"{archive}: {member}: a link or device; an archive may hold only files and folders")
    if path.is_absolute() or ".." in path.parts or "\\" in member:
        raise DataError(f"{archive}: {member}: a path that leads out of the archive")
    if size > MOST_PER_MEMBER:
        raise DataError(f"{archive}: {member}: unpacks to {size:,} bytes; allowed: {MOST_PER_MEMBER:,} for one image")
    return path
