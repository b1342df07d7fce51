"""Published files, opened with their checksum verified and their unpacked size bounded."""

import gzip
import hashlib
import lzma
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO, cast

import numpy as np

from pipeline.core.catalog import File
from pipeline.core.errors import DataError

# A file may unpack to the larger of a fixed size and a multiple of its packed size. Images of digits shrink to a
# fifth, sorted labels to a thousandth.
UNPACKED_BYTES = 2**26
UNPACKED_RATIO = 100

# What reading a damaged archive or gzip file raises: RuntimeError stands for encryption and for unknown compression,
# ValueError for names that are not UTF-8.
DAMAGED = (
    OSError,
    EOFError,
    RuntimeError,
    ValueError,
    lzma.LZMAError,
    struct.error,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
)
# Compression in zip files that unpacks no more than is asked for: one kilobyte of bzip2 expands to a gigabyte.
BOUNDED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
CHUNK = 2**20  # bytes read at a time
MAX_SHOWN = 300  # characters of a file's content in a message


@contextmanager
def opened(folder: Path, file: File) -> Iterator[tuple[BinaryIO, int]]:
    """The content of a file, gunzipped if it is a .gz file, and the maximum number of bytes it may unpack to.

    The checksum is verified on the open file, so it holds for the bytes that are then parsed.

    Raises:
        DataError: the file is missing, unreadable or damaged, or its checksum is wrong.
    """
    path = folder / file.name
    if path.exists() and not path.is_file():
        raise DataError(f"{path}: not a regular file; replace it by the file itself")
    again = "delete it and rerun the stage download"
    try:
        with path.open("rb") as packed:
            found = hashlib.file_digest(packed, "sha256").hexdigest()
            if file.sha256 is not None and found != file.sha256:
                raise DataError(f"{path}: has the SHA-256 {found[:12]}… instead of {file.sha256[:12]}…; {again}")
            size = packed.tell()
            packed.seek(0)
            if file.name.endswith(".gz") and not file.name.endswith(".tar.gz"):
                with gzip.GzipFile(fileobj=packed) as content:
                    yield cast(BinaryIO, content), max(UNPACKED_BYTES, UNPACKED_RATIO * size)
            else:
                yield packed, max(UNPACKED_BYTES, UNPACKED_RATIO * size) if file.name.endswith(".npz") else size
    except FileNotFoundError:
        raise DataError(f"{path}: not found; run the stage download first") from None
    except DAMAGED as error:
        raise DataError(f"{path}: cannot be read: {shown(error)}; {again}") from None


def fill(values: np.ndarray, content: IO[bytes]) -> int:
    """Read bytes until the array is full or the content ends; the number of bytes read."""
    buffer, filled = values.reshape(-1).data, 0
    # In chunks: gzip would otherwise hold a second copy of all values.
    while count := content.readinto(buffer[filled : filled + CHUNK]):  # type: ignore[attr-defined]
        filled += count
    return filled


def shown(content: object) -> str:
    """Text from a file, or an error that quotes it, for a message: cut short, unprintable characters escaped."""
    text = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in str(content)[:MAX_SHOWN])
    return text if len(str(content)) <= MAX_SHOWN else f"{text}…"


def refuse_bomb(name: str, size: int, limit: int) -> None:
    """Check an unpacked size, as far as it is known, against its limit.

    Raises:
        DataError: the size is above the limit.
    """
    if size > limit:
        raise DataError(f"{name}: unpacks to more than {limit:,} bytes, too many for images: a decompression bomb")
