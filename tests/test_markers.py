"""Generated text between two markers of a document."""

from pathlib import Path

import pytest

from pipeline.core.errors import DataError
from pipeline.report import markers

BEGIN, END = "<!-- here -->", "<!-- to here -->"


def test_only_the_text_between_the_markers_is_replaced(tmp_path: Path):
    document = tmp_path / "document.md"
    document.write_text(f"before\n{BEGIN}\nold\nolder\n{END}\nafter\n", encoding="utf-8")
    for text in ("new\n", "", "again\n\nand again\n"):
        markers.write(document, BEGIN, END, text)
        assert document.read_text(encoding="utf-8") == f"before\n{BEGIN}\n{text}{END}\nafter\n"


@pytest.mark.parametrize("content", ["", f"{BEGIN}\n", f"{END}\n", f"{END}\n{BEGIN}\n"])
def test_a_document_without_the_markers_is_refused_and_unchanged(tmp_path: Path, content: str):
    document = tmp_path / "document.md"
    document.write_text(content, encoding="utf-8")
    with pytest.raises(
        DataError, match=r"document\.md: the markers .* are missing; .* <!-- here --> and <!-- to here -->"
    ):
        markers.write(document, BEGIN, END, "new\n")
    assert document.read_text(encoding="utf-8") == content
