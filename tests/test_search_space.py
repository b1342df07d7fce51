"""Search spaces: the dimensions around a base network, and networks with values set."""

from typing import Any

import pytest

from models.spec import POOLING_KEYS
from pipeline.core import config, search_space
from pipeline.core.search_space import Choice, Range, SpaceError

from .conftest import Project


@pytest.fixture
def base(project: Project) -> dict[str, Any]:
    return config.load(project.paths).base.model_dump(mode="json")


def test_a_mapping_under_blocks_is_a_dimension_of_every_block(base):
    found = search_space.dimensions({"blocks": {"dropout": {"min": 0.0, "max": 0.5, "step": 0.1}}}, base)
    assert found == [
        Range(f"blocks.{block}.dropout", "blocks.dropout", default, 0.0, 0.5, 0.1, log=False)
        for block, default in enumerate([0.0, 0.3, 0.4])
    ]


def test_a_list_under_blocks_has_one_mapping_per_block(base):
    found = search_space.dimensions({"blocks": [{}, {"dropout": [0.0, 0.3]}, {"pooling": {"window": [2, 3]}}]}, base)
    assert found == [
        Choice("blocks.1.dropout", "blocks.1.dropout", 0.3, (0.0, 0.3)),
        Choice("blocks.2.pooling.window", "blocks.2.pooling.window", 2, (2, 3)),
    ]


def test_training_settings_can_be_searched(base):
    found = search_space.dimensions({"fit": {"learning_rate": {"min": 1e-4, "max": 1e-2, "log": True}}}, base)
    assert found == [Range("fit.learning_rate", "fit.learning_rate", 0.001, 1e-4, 1e-2, None, log=True)]


def test_keys_of_a_schedule_and_of_a_loss_are_inactive_with_others(base):
    fit = {"schedule": ["cosine", "step"], "step_factor": [0.1, 0.5], "warmup_epochs": [0, 1]}
    fit |= {"loss": ["cross_entropy", "focal"], "focal_gamma": [1.0, 2.0], "augmentation": {"mixup": [0.0, 0.2]}}
    found = search_space.dimensions({"fit": fit}, base)
    search_space.check(found, base, lambda block: config.network_from(block) and None)
    values = {dimension.name: dimension.extremes[-1] for dimension in found}
    changed = search_space.apply(base, values | {"fit.schedule": "cosine", "fit.loss": "cross_entropy"})["fit"]
    assert (changed["step_factor"], changed["focal_gamma"]) == (0.1, 2.0)
    assert (changed["warmup_epochs"], changed["augmentation"]["mixup"]) == (1, 0.2)
    changed = search_space.apply(base, values | {"fit.focal_gamma": 1.0})["fit"]
    assert (changed["step_factor"], changed["focal_gamma"]) == (0.5, 1.0)


def test_apply_sets_values_and_leaves_the_base_unchanged(base):
    changed = search_space.apply(base, {"blocks.1.dropout": 0.1, "head.pooling": "global_max"})
    assert (changed["blocks"][1]["dropout"], changed["head"]["pooling"]) == (0.1, "global_max")
    assert (base["blocks"][1]["dropout"], base["head"]["pooling"]) == (0.3, "flatten")
    assert search_space.apply(base, {}) == base


EVERY_KIND = {
    "kind": ["max", "average", "lp", "stochastic", "fractional_max", "gem", "blur", "strided", "none"],
    "window": [2, 3],
    "p": [1.0, 2.0, 4.0],
    "ratio": {"min": 1.2, "max": 2.0},
}


def test_values_for_several_kinds_of_pooling_can_be_listed_side_by_side(base):
    found = search_space.dimensions({"blocks": [{"pooling": EVERY_KIND}, {}, {}]}, base)
    assert [dimension.default for dimension in found] == ["max", 2, 1.0, 2**0.5]
    for kind in EVERY_KIND["kind"]:
        tried = {"kind": kind, "window": 3, "p": 4.0, "ratio": 2.0}
        block = search_space.apply(base, {f"blocks.0.pooling.{key}": value for key, value in tried.items()})
        taken = {key for key, value in tried.items() if value == block["blocks"][0]["pooling"][key]}
        assert taken - {"kind"} == set(POOLING_KEYS[kind]) & set(tried)
        config.network_from(block)


def test_a_window_that_the_new_kind_does_not_use_is_reset(base):
    base["blocks"][0]["pooling"]["window"] = 3
    network: Any = config.network_from(search_space.apply(base, {"blocks.0.pooling.kind": "fractional_max"}))
    assert network.blocks[0].pooling.window == 2
    assert search_space.apply(base, {"blocks.0.pooling.kind": "average"})["blocks"][0]["pooling"]["window"] == 3


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
def test_unused_keys_are_inactive(base, values, key):
    assert key in search_space.inactive(search_space.apply(base, values))


def test_strided_pooling_uses_the_activation_of_its_block(base):
    block = search_space.apply(base, {"blocks.0.filters": [], "blocks.0.pooling.kind": "strided"})
    assert "blocks.0.activation" not in search_space.inactive(block)


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
def test_two_notations_of_one_network_have_the_same_identity(base, one, other):
    first, second = (
        search_space.identity(
            search_space.apply(base, {f"blocks.1.pooling.{key}": value for key, value in pooling.items()})
        )
        for pooling in (one, other)
    )
    assert first == second
    assert first != search_space.identity(base)


def test_an_implied_value_of_the_base_counts_as_its_value(base):
    base["blocks"][0]["pooling"]["kind"] = "lp"
    [found] = search_space.dimensions({"blocks": [{"pooling": {"p": [1.0, 2.0]}}, {}, {}]}, base)
    assert found.default == 2.0
    with pytest.raises(SpaceError, match="does not include"):
        search_space.dimensions({"blocks": [{"pooling": {"p": [1.0, 4.0]}}, {}, {}]}, base)


def test_a_dimension_that_no_network_uses_is_refused(base):
    found = search_space.dimensions({"blocks": {"pooling": {"kind": ["max", "average"], "p": [2.0, 4.0]}}}, base)
    with pytest.raises(SpaceError, match="no network of this space uses this key") as error:
        search_space.check(found, base, lambda block: None)
    assert error.value.key == "blocks.pooling.p"


def test_values_are_validated_in_networks_that_use_them(base):
    found = search_space.dimensions({"blocks": [{"pooling": {"kind": ["max", "lp"], "p": [2.0, 99.0]}}, {}, {}]}, base)
    tried = []

    def record(block: dict[str, Any]) -> None:
        tried.append((block["blocks"][0]["pooling"]["kind"], block["blocks"][0]["pooling"]["p"]))

    search_space.check(found, base, record)
    assert ("lp", 99.0) in tried


def test_epochs_cannot_be_searched(base):
    with pytest.raises(SpaceError, match=r"tune\.epochs"):
        search_space.dimensions({"fit": {"epochs": [5, 15]}}, base)


@pytest.mark.parametrize(
    ("leaf", "message"),
    [
        ([], "a list of different values"),
        ([0.25, 0.25], "a list of different values"),
        ([0.1, 0.2], "does not include 0.25"),
        (0.25, "a list of values"),
        ({"min": 0.0}, "a list of values"),
        ({"min": 0.3, "max": 0.5}, "does not include 0.25"),
        ({"min": 0.0, "max": 0.5, "step": 0.1}, "does not include 0.25"),
        ({"min": 0.5, "max": 0.1}, "min below max"),
        ({"min": 0.0, "max": 0.5, "step": 0}, "a step above 0"),
        ({"min": 0.0, "max": 0.5, "log": True}, "min above 0"),
        ({"min": 0.1, "max": 0.5, "step": 0.05, "log": True}, "without a step"),
        ({"min": 0.0, "max": 0.6, "step": 0.25}, "max is no whole number of steps from min; allowed: 0.5 or 0.75"),
        ({"min": 0.0, "max": 0.5, "step": 1e-300}, "a step that makes at most 1000000 values"),
        ({"min": 0.0, "max": float("inf")}, "finite numbers"),
        ({"min": float("nan"), "max": 1.0}, "finite numbers"),
        ({"min": "0", "max": 0.5}, "numbers as min"),
        ({"min": True, "max": 2}, "numbers as min"),
    ],
)
def test_an_invalid_leaf_is_refused(base, leaf, message):
    with pytest.raises(SpaceError, match=message) as error:
        search_space.dimensions({"head": {"dropout": leaf}}, base)
    assert error.value.key == "head.dropout"


def test_paths_that_the_base_lacks_are_refused(base):
    with pytest.raises(SpaceError, match="unknown key; allowed: activation, batch_norm, dense"):
        search_space.dimensions({"head": {"droput": [1]}}, base)
    with pytest.raises(SpaceError, match="one mapping, or a list with one for each of 3 blocks"):
        search_space.dimensions({"blocks": [{}, {}]}, base)
    with pytest.raises(SpaceError, match="a mapping with some of"):
        search_space.dimensions({"head": [1, 2]}, base)
    with pytest.raises(SpaceError, match="at least one list or range"):
        search_space.dimensions({}, base)


def test_true_is_not_equal_to_one(base):
    with pytest.raises(SpaceError, match="does not include"):
        search_space.dimensions({"head": {"batch_norm": [1, 0]}}, base)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"kernel_size": [3, 3], "stride": [1, 1]}, {}),
        ({"batch_norm": True}, {"normalization": {"kind": "batch", "groups": None, "place": "block"}}),
        ({"use_bias": True}, {}),
        ({"pooling": {"window": [2, 2], "stride": [2, 2]}}, {"pooling": {"window": 2}}),
    ],
)
def test_a_network_written_in_two_ways_has_one_identity(base, one, other):
    def identity(keys):
        blocks = [{"filters": [4]} | keys]
        return search_space.identity(config.network_from(base | {"blocks": blocks}).model_dump(mode="json"))

    assert identity(one) == identity(other) != identity({"use_bias": False})


def test_alternatives_of_pairs_are_lists_in_a_list(base):
    [sides, strides] = search_space.dimensions(
        {"blocks": [{"kernel_size": [3, [1, 5]], "stride": [1, 2]}, {}, {}]}, base
    )
    assert [dimension.extremes for dimension in (sides, strides)] == [(3, [1, 5]), (1, 2)]
    network = config.network_from(search_space.apply(base, {sides.name: [1, 5], strides.name: 2}))
    assert network.model_dump()["blocks"][0]["kernel_size"] == (1, 5)
