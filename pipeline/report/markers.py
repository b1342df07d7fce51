"""Generated text in documents, between two markers."""

from pathlib import Path

from pipeline.core import atomic
from pipeline.core.errors import DataError


def write(document: Path, begin: str, end: str, text: str) -> None:
    """Replace the lines between two marker lines of a document.

    Raises:
        DataError: the markers are missing or in the wrong order.
    """
    before, found, rest = document.read_text(encoding="utf-8").partition(f"{begin}\n")
    _, found_too, after = rest.partition(f"{end}\n")
    if not found or not found_too:
        raise DataError(f"{document}: the markers of generated text are missing; restore the lines {begin} and {end}")
    atomic.write_text(document, f"{before}{begin}\n{text}{end}\n{after}")
