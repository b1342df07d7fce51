"""Archives of images: zip and tar files read member by member, never unpacked to disk, and folders packed into one."""

import gzip
import os
import stat
import tarfile
import unicodedata
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

from pipeline.core.catalog import is_formula
from pipeline.core.errors import DataError
from pipeline.formats import files

MEMBER_BYTES = 64 * 2**20  # maximum; a photograph of 50 megapixels is smaller
Member = tuple[PurePosixPath, Callable[[], bytes]]  # its path, and a function that reads it before the next is yielded
PADDING = 2**20  # bytes at most after the end of a tar archive
EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time a zip archive can store


def members(file: BinaryIO, name: str) -> Iterator[Member]:
    """The files of an archive, in its order, without hidden ones.

    Raises:
        DataError: the archive is damaged, or contains a link, a path outside the archive, a path twice, or a member too
            large.
    """
    seen = set()
    try:
        for path, content in _zip(file, name) if name.endswith(".zip") else _tar(file, name):
            if not path.parts:
                raise DataError(f"{name}: damaged: a file without a name")
            if path in seen:
                raise DataError(f"{name}: {path}: contained more than once; remove the other copies from the archive")
            seen.add(path)
            yield path, content
    except files.DAMAGED as error:
        raise DataError(f"{name}: damaged: {files.shown(error)}; delete it and rerun the stage download") from None


def pack(folder: Path, target: Path) -> None:
    """Pack a folder into an uncompressed zip archive whose bytes depend on names and contents only.

    Raises:
        DataError: the folder is missing, empty or unreadable, or contains a link or a device.
    """
    paths = sorted(_files(folder))
    if not paths:
        raise DataError(f"{folder}: contains no files")
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for path in paths:
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
            _refuse_unprintable(name, f"{where}/")
            if path.is_symlink():
                raise DataError(f"{path}: a link; replace it by the file itself")
            if name in names and not path.is_file():
                raise DataError(f"{path}: a pipe, socket or device instead of a file; remove it")
            if name in names:
                yield path


def _refuse(error: OSError) -> None:
    raise DataError(f"{error.filename}: {error.strerror}; make the folder readable") from None


def _refuse_unprintable(name: str, where: str) -> None:
    """Refuse names with control characters, and names that are not UTF-8, which Python decodes to surrogates."""
    if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in name):
        raise DataError(f"{where}{ascii(name)[1:-1]}: the name has control characters or is not UTF-8; rename the file")


def _hidden(name: str) -> bool:
    return name.startswith((".", "__MACOSX")) or name == "Thumbs.db"


def _zip(file: BinaryIO, name: str) -> Iterator[Member]:
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            path = _safe(info.filename, name, stat.S_ISLNK(info.external_attr >> 16), info.file_size)
            if info.flag_bits & 1:
                raise DataError(f"{name}: {info.filename}: encrypted")
            if info.compress_type not in files.BOUNDED:
                raise DataError(f"{name}: {info.filename}: not compressed with Deflate; pack the archive again with it")
            if not info.is_dir() and not any(map(_hidden, path.parts)):
                yield path, partial(_content, archive, info)


def _content(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """Read a member; without a limit, it would be unpacked as a whole before its size is compared."""
    with archive.open(info) as member:
        return member.read(info.file_size)


def _tar(file: BinaryIO, name: str) -> Iterator[Member]:
    # Not tarfile's own decompression, which ignores the checksum.
    content = cast(BinaryIO, gzip.GzipFile(fileobj=file)) if name.endswith((".gz", ".tgz")) else file
    bounded = _Bounded(content, name)
    with tarfile.open(fileobj=bounded, mode="r|") as archive:  # type: ignore[call-overload]
        for info in archive:
            bounded.left = _Bounded.ALLOWANCE
            # An extended header may give another size than the one by which the next member is found.
            size = max(info.size, archive.offset - info.offset_data)
            path = _safe(info.name, name, not (info.isreg() or info.isdir()), size)
            member = archive.extractfile(info)
            if member is not None and not any(map(_hidden, path.parts)):
                yield path, member.read
    content.read(PADDING)
    if content.read(1):
        raise DataError(f"{name}: damaged: other data follow the end of the archive")


class _Bounded:
    """A tar archive that is refused where too much lies between two members: tarfile holds headers in memory."""

    ALLOWANCE = 2 * MEMBER_BYTES

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file, self._name = file, name
        self.left = self.ALLOWANCE

    def read(self, size: int = -1) -> bytes:
        content = self._file.read(size)
        self.left -= len(content)
        if self.left < 0:
            raise DataError(f"{self._name}: damaged: more than {self.ALLOWANCE:,} bytes without a file")
        return content


def _safe(member: str, archive: str, special: bool, size: int) -> PurePosixPath:
    path = PurePosixPath(member)
    _refuse_unprintable(member, f"{archive}: ")
    if any(map(is_formula, path.parts[:1])):
        raise DataError(f"{archive}: {member}: begins like a formula of a spreadsheet; rename its first folder")
    if not member:
        raise DataError(f"{archive}: damaged: a member without a name")
    if special:
        raise DataError(f"{archive}: {member}: a link or device; only files and folders are allowed in an archive")
    if path.is_absolute() or ".." in path.parts or "\\" in member:
        raise DataError(f"{archive}: {member}: a path that leads outside the archive")
    if size > MEMBER_BYTES:
        raise DataError(f"{archive}: {member}: unpacks to {size:,} bytes; allowed: {MEMBER_BYTES:,} for one image")
    return path
