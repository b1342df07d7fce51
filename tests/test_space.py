"""Search spaces: which dimensions a space has around a base, and how values are put in."""

from typing import Any

import pytest

from pipeline import config, space
from pipeline.space import Choice, Range, SpaceError

from .conftest import Project


@pytest.fixture
def base(project: Project) -> dict[str, Any]:
    return config.load(project.paths).base.model_dump(mode="json")


def test_a_mapping_under_blocks_is_a_dimension_of_every_block(base):
    found = space.dimensions({"blocks": {"dropout": {"min": 0.0, "max": 0.5, "step": 0.1}}}, base)
    assert found == [
        Range(f"blocks.{block}.dropout", "blocks.dropout", default, 0.0, 0.5, 0.1, log=False)
        for block, default in enumerate([0.0, 0.3, 0.4])
    ]


def test_a_list_under_blocks_has_one_mapping_for_each(base):
    found = space.dimensions({"blocks": [{}, {"dropout": [0.0, 0.3]}, {"pooling": {"window": [2, 3]}}]}, base)
    assert found == [
        Choice("blocks.1.dropout", "blocks.1.dropout", 0.3, (0.0, 0.3)),
        Choice("blocks.2.pooling.window", "blocks.2.pooling.window", 2, (2, 3)),
    ]


def test_training_settings_can_be_searched_too(base):
    found = space.dimensions({"fit": {"learning_rate": {"min": 1e-4, "max": 1e-2, "log": True}}}, base)
    assert found == [Range("fit.learning_rate", "fit.learning_rate", 0.001, 1e-4, 1e-2, None, log=True)]


def test_apply_puts_values_in_and_leaves_the_base_alone(base):
    changed = space.apply(base, {"blocks.1.dropout": 0.1, "head.pooling": "global_max"})
    assert (changed["blocks"][1]["dropout"], changed["head"]["pooling"]) == (0.1, "global_max")
    assert (base["blocks"][1]["dropout"], base["head"]["pooling"]) == (0.3, "flatten")
    assert space.apply(base, {}) == base


@pytest.mark.parametrize(
    ("leaf", "message"),
    [
        ([], "a list of different values"),
        ([0.25, 0.25], "a list of different values"),
        ([0.1, 0.2], "does not hold 0.25"),
        (0.25, "a list of values"),
        ({"min": 0.0}, "a list of values"),
        ({"min": 0.3, "max": 0.5}, "does not hold 0.25"),
        ({"min": 0.0, "max": 0.5, "step": 0.1}, "does not hold 0.25"),
        ({"min": 0.5, "max": 0.1}, "min below max"),
        ({"min": 0.0, "max": 0.5, "step": 0}, "a step above 0"),
        ({"min": 0.0, "max": 0.5, "log": True}, "min above 0"),
        ({"min": 0.1, "max": 0.5, "step": 0.05, "log": True}, "without a step"),
        ({"min": "0", "max": 0.5}, "numbers as min"),
        ({"min": True, "max": 2}, "numbers as min"),
    ],
)
def test_a_leaf_that_cannot_be_searched_is_refused(base, leaf, message):
    with pytest.raises(SpaceError, match=message) as error:
        space.dimensions({"head": {"dropout": leaf}}, base)
    assert error.value.key == "head.dropout"


def test_paths_that_the_base_does_not_have_are_refused(base):
    with pytest.raises(SpaceError, match="unknown key; allowed: activation, batch_norm, dense"):
        space.dimensions({"head": {"droput": [1]}}, base)
    with pytest.raises(SpaceError, match="one mapping, or a list with one for each of 3 blocks"):
        space.dimensions({"blocks": [{}, {}]}, base)
    with pytest.raises(SpaceError, match="a mapping with some of"):
        space.dimensions({"head": [1, 2]}, base)
    with pytest.raises(SpaceError, match="at least one list or range"):
        space.dimensions({}, base)


def test_true_is_not_one(base):
    with pytest.raises(SpaceError, match="does not hold"):
        space.dimensions({"head": {"batch_norm": [1, 0]}}, base)
