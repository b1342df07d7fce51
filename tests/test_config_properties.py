"""Random mistakes in params.yaml: an error message, or valid parameters that DVC reads as this project does."""

import io
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dvc.parsing.context import Context
from dvc.utils.serialize import load_yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from models import architecture
from pipeline.core import config, yaml_file
from pipeline.core.config import TUNED, NetworkConfig, Params
from pipeline.core.errors import ConfigError
from pipeline.core.paths import Paths

from .conftest import ROOT

TEXT = (ROOT / "params.yaml").read_text(encoding="utf-8")
CATALOG = (ROOT / "data" / "catalog.yaml").read_text(encoding="utf-8")
RAW = YAML(typ="safe").load(TEXT)
FEW = settings(max_examples=150, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])

# Text that changes the meaning of YAML, or that some readers take for something else.
FRAGMENTS = st.sampled_from(
    [
        *[
            ": ",
            ", ",
            "- ",
            "[",
            "]",
            "{",
            "}",
            "#",
            "&a ",
            "*a",
            "<<: ",
            "? ",
            "'",
            '"',
            "\\",
            "= ",
            "%YAML 1.1\n---\n",
        ],
        *["!!str ", "!!int ", "!!bool ", "!!float ", "!!binary ", "!!set ", "!!omap ", "!!timestamp ", "!foo "],
        *[
            "null",
            "~",
            "true",
            "no",
            "0",
            "-1",
            "1e3",
            "1e400",
            "0x1F",
            "0o17",
            "017",
            ".inf",
            ".nan",
            "1_000",
            "9" * 30,
        ],
        *["12:30:45", "2024-02-30", "CON", "tuned", "model_2", "---\n", "...\n"],
        *["", "\t", "\n", "\r", "\n  ", "é", "\u2028", "\x85", "\ufeff", "\x00", "\ud7ff"],
    ]
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.integers(-(10**40), 10**40),
    st.floats(),
    st.text(max_size=5),
    st.sampled_from(
        ["tuned", "search", "nul", "model_2", "max", "lp", "same", "mnist", "${seed}", "a.b", ".inf", "1e3"]
    ),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.one_of(st.sampled_from(["min", "max", "step", "log", "kind"]), SCALARS), inner, max_size=3),
    ),
    max_leaves=5,
)


def places(node: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) of nested lists and maps."""
    for key, child in list(node.items() if isinstance(node, dict) else enumerate(node)):
        yield node, key
        if isinstance(child, dict | list):
            yield from places(child)


@st.composite
def edited_text(draw: st.DrawFn) -> bytes:
    """The text with a few characters replaced."""
    text = TEXT
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.integers(0, 8)))
        text = text[:start] + draw(FRAGMENTS) + text[end:]
    return text.encode(draw(st.sampled_from(["utf-8"] * 9 + ["utf-16", "latin-1"])), "replace")


@st.composite
def edited_values(draw: st.DrawFn) -> bytes:
    """The parameters with a few values replaced, removed or renamed."""
    raw = YAML(typ="safe").load(TEXT)
    for _ in range(draw(st.integers(1, 2))):
        container, key = draw(st.sampled_from(list(places(raw))))
        action = draw(st.sampled_from(["replace", "replace", "replace", "remove", "rename"]))
        value = container.pop(key) if action != "replace" else None
        if action == "replace":
            container[key] = draw(VALUES)
        elif action == "rename" and isinstance(container, dict):
            container[draw(SCALARS)] = value
    text = io.StringIO()
    YAML(typ="safe", pure=True).dump(raw, text)
    return text.getvalue().encode("utf-8", "surrogatepass")


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> Paths:
    folder = tmp_path_factory.mktemp("project")
    (folder / "data").mkdir()
    (folder / "data" / "catalog.yaml").write_text(CATALOG, encoding="utf-8")
    return Paths(folder)


def same(one: Any, other: Any) -> bool:
    """Equality of values of YAML, with NaN equal to itself and True unlike 1."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other or (isinstance(one, float) and math.isnan(one) and math.isnan(other))


def assert_refused_or_read_as_by_dvc(paths: Paths, content: bytes) -> None:
    paths.params.write_bytes(content)
    try:
        params = config.load(paths)
    except ConfigError:
        return
    read = load_yaml(str(paths.params))
    assert same(read, yaml_file.read(paths.params))
    context = Context(read)
    assert list(context["models"]) == list(params.models)
    assert context["data"]["dataset"].value == params.data.dataset
    assert context.value == read
    assert_usable(params, paths)


def assert_usable(params: Params, paths: Paths) -> None:
    entry = config.load_catalog(paths)[params.data.dataset]
    names = [name.lower() for name in (*params.models, TUNED)]
    assert len(set(names)) == len(names)
    for network in params.models.values():
        assert isinstance(network, NetworkConfig)
        layers = architecture.trace(network, entry.image, len(entry.classes))
        assert sum(layer.parameters for layer in layers) <= architecture.MOST_PARAMETERS
    assert params.dimensions


@FEW
@given(edited_text())
def test_edited_text_is_refused_or_read_as_by_dvc(paths: Paths, content: bytes):
    assert_refused_or_read_as_by_dvc(paths, content)


@FEW
@given(edited_values())
def test_edited_values_are_refused_or_read_as_by_dvc(paths: Paths, content: bytes):
    assert_refused_or_read_as_by_dvc(paths, content)


def test_the_unchanged_file_is_read_as_by_dvc(paths: Paths):
    assert_refused_or_read_as_by_dvc(paths, Path(ROOT / "params.yaml").read_bytes())
    assert config.load(paths).models
