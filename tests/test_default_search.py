"""The command that measures the default search: its sections, and its table in docs/search.md."""

import pandas as pd
import pytest

from benchmarks import default_search
from pipeline.core import config
from pipeline.core.errors import DataError
from pipeline.core.paths import Paths
from pipeline.report import markers

from .conftest import ROOT


def rows(search: str, losses: list[float], **more: object) -> pd.DataFrame:
    found = {"search": search, "seed": [1, 2, 3], "test_accuracy": [0.98, 0.97, 0.99], "test_loss": losses}
    return pd.DataFrame(found | {"device": "a processor", "precision": "float32"} | more)


def test_differences_are_paired_by_seed():
    """Differences -0.01, -0.03, -0.02: mean -0.02, standard error 0.00577, t of two degrees of freedom 4.303."""
    base = rows(default_search.BASE, [0.08, 0.10, 0.06])
    found = rows("new", [0.07, 0.07, 0.04], winner=[3, 1, 2], processor_seconds=[160, 150, 170])
    same = rows("old", [0.08, 0.10, 0.06], winner=0, processor_seconds=140)
    text = default_search.table(pd.concat([base, found.iloc[::-1], same]))
    assert "| base | 98.00% | 0.0800 | | | | |" in text
    assert "| new | 98.00% | 0.0600 | +0.00 | -0.0200 (-0.0448 to +0.0048) | 3 of 3 | 160 |" in text
    assert "| old | 98.00% | 0.0800 | +0.00 | +0.0000 | 0 of 3 | 140 |" in text
    assert text.endswith("\n\n3 seeds; a processor, float32.\n")


def test_a_section_comes_from_a_file_or_a_revision(tmp_path):
    file = tmp_path / "tune.yaml"
    file.write_text("tune: {trials: 3}\n", encoding="utf-8")
    assert default_search.section(str(file)) == {"trials": 3}
    with pytest.raises(DataError, match="neither a file nor a revision"):
        default_search.section("no-such-revision")


def test_document_shows_the_recorded_rows(tmp_path):
    recorded = pd.read_csv(default_search.ROWS)
    written = tmp_path / "search.md"
    written.write_text(default_search.DOCUMENT.read_text(encoding="utf-8"), encoding="utf-8")
    markers.write(written, default_search.BEGIN, default_search.END, default_search.table(recorded))
    assert written.read_text(encoding="utf-8") == default_search.DOCUMENT.read_text(encoding="utf-8"), (
        "run `python -m benchmarks.default_search`"
    )


def test_the_recorded_search_is_that_of_params_yaml():
    recorded = pd.read_csv(default_search.ROWS)
    settings = recorded.loc[recorded["search"] == default_search.NEW, "settings"]
    assert set(settings) == {default_search.digest(config.load(Paths(ROOT)), default_search.NEW)}, (
        "run `python -m benchmarks.default_search`"
    )
