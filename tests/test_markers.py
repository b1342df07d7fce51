"""Text between two markers of a document: replaced there, and nowhere else."""

from pathlib import Path

import pytest

from pipeline import markers
from pipeline.errors import DataError

BEGIN, END = "<!-- here -->", "<!-- to here -->"


def test_what_is_between_the_markers_is_replaced_and_nothing_else(tmp_path: Path):
    document = tmp_path / "document.md"
    document.write_text(f"before\n{BEGIN}\nold\nolder\n{END}\nafter\n", encoding="utf-8")
    for text in ("new\n", "", "again\n\nand again\n"):
        markers.write(document, BEGIN, END, text)
        assert document.read_text(encoding="utf-8") == f"before\n{BEGIN}\n{text}{END}\nafter\n"


@pytest.mark.parametrize("content", ["", f"{BEGIN}\n", f"{END}\n", f"{END}\n{BEGIN}\n"])
def test_a_document_without_them_is_left_alone(tmp_path: Path, content: str):
    document = tmp_path / "document.md"
    document.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=r"document.md: the markers .* are gone: <!-- here --> and <!-- to here -->"):
        markers.write(document, BEGIN, END, "new\n")
    assert document.read_text(encoding="utf-8") == content
