"""Search spaces: which dimensions a space has around a base, and how values are put in."""

from typing import Any

import pytest

from models.spec import POOLING_KEYS
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


EVERY_KIND = {
    "kind": ["max", "average", "lp", "stochastic", "fractional_max", "gem", "blur", "strided", "none"],
    "window": [2, 3],
    "p": [1.0, 2.0, 4.0],
    "ratio": {"min": 1.2, "max": 2.0},
}


def test_values_for_some_kinds_of_pooling_stand_beside_those_for_others(base):
    found = space.dimensions({"blocks": [{"pooling": EVERY_KIND}, {}, {}]}, base)
    assert [dimension.default for dimension in found] == ["max", 2, 1.0, 2**0.5]
    for kind in EVERY_KIND["kind"]:
        tried = {"kind": kind, "window": 3, "p": 4.0, "ratio": 2.0}
        block = space.apply(base, {f"blocks.0.pooling.{key}": value for key, value in tried.items()})
        taken = {key for key, value in tried.items() if value == block["blocks"][0]["pooling"][key]}
        assert taken - {"kind"} == set(POOLING_KEYS[kind]) & set(tried)
        config.model_from(block)


def test_a_base_that_cannot_keep_its_own_window_gives_it_up(base):
    base["blocks"][0]["pooling"]["window"] = 3
    assert (
        config.model_from(space.apply(base, {"blocks.0.pooling.kind": "fractional_max"})).blocks[0].pooling.window == 2
    )
    assert space.apply(base, {"blocks.0.pooling.kind": "average"})["blocks"][0]["pooling"]["window"] == 3


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"blocks.0.dropout": 0.0}, "blocks.0.dropout_kind"),
        ({"blocks.0.filters": []}, "blocks.0.kernel_size"),
        ({"blocks.0.filters": []}, "blocks.0.activation"),
        ({"head.dense": []}, "head.activation"),
        ({"head.pooling": "flatten"}, "head.p"),
    ],
)
def test_keys_that_make_no_difference_are_inactive(base, values, key):
    assert key in space.inactive(space.apply(base, values))


def test_strided_pooling_is_a_convolution_like_those_of_its_block(base):
    block = space.apply(base, {"blocks.0.filters": [], "blocks.0.pooling.kind": "strided"})
    assert "blocks.0.activation" not in space.inactive(block)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"kind": "lp"}, {"kind": "lp", "p": 2.0}),
        ({"kind": "lp", "p": 2}, {"kind": "lp", "p": 2.0}),
        ({"kind": "gem"}, {"kind": "gem", "p": 3.0}),
        ({"kind": "max", "window": 3}, {"kind": "max", "window": 3, "stride": 3}),
        ({"kind": "none"}, {"kind": "none", "window": 3}),
        ({"kind": "fractional_max"}, {"kind": "fractional_max", "ratio": 2**0.5, "p": 4.0}),
    ],
)
def test_a_network_written_in_two_ways_is_one(base, one, other):
    first, second = (
        space.identity(space.apply(base, {f"blocks.1.pooling.{key}": value for key, value in pooling.items()}))
        for pooling in (one, other)
    )
    assert first == second
    assert first != space.identity(base)


def test_a_value_that_the_base_implies_is_its_own(base):
    base["blocks"][0]["pooling"]["kind"] = "lp"
    [found] = space.dimensions({"blocks": [{"pooling": {"p": [1.0, 2.0]}}, {}, {}]}, base)
    assert found.default == 2.0
    with pytest.raises(SpaceError, match="does not hold"):
        space.dimensions({"blocks": [{"pooling": {"p": [1.0, 4.0]}}, {}, {}]}, base)


def test_a_dimension_that_no_network_takes_is_refused(base):
    found = space.dimensions({"blocks": {"pooling": {"kind": ["max", "average"], "p": [2.0, 4.0]}}}, base)
    with pytest.raises(SpaceError, match="no network of this space takes it") as error:
        space.check(found, base, lambda block: None)
    assert error.value.key == "blocks.pooling.p"


def test_values_are_tried_where_they_are_active(base):
    found = space.dimensions({"blocks": [{"pooling": {"kind": ["max", "lp"], "p": [2.0, 99.0]}}, {}, {}]}, base)
    tried = []

    def complaint(block: dict[str, Any]) -> None:
        tried.append((block["blocks"][0]["pooling"]["kind"], block["blocks"][0]["pooling"]["p"]))

    space.check(found, base, complaint)
    assert ("lp", 99.0) in tried


def test_the_epochs_of_a_trial_are_no_dimension(base):
    with pytest.raises(SpaceError, match=r"tune\.epochs"):
        space.dimensions({"fit": {"epochs": [5, 15]}}, base)


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
