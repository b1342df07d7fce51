"""Text that commands write into documents, between two markers."""

from pathlib import Path

from pipeline import atomic
from pipeline.errors import DataError


def write(document: Path, begin: str, end: str, text: str) -> None:
    """Put text, whole lines, between two lines of a document.

    Raises:
        DataError: the markers are not there, in this order.
    """
    before, found, rest = document.read_text(encoding="utf-8").partition(f"{begin}\n")
    _, found_too, after = rest.partition(f"{end}\n")
    if not found or not found_too:
        raise DataError(f"{document}: the markers of what is written into it are gone: {begin} and {end}")
    atomic.write_text(document, f"{before}{begin}\n{text}{end}\n{after}")
