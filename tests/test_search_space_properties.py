"""Random search spaces: every level is reachable, the base is reproduced, and sampled networks are what they claim."""

from decimal import Decimal
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from models.spec import POOLING_KEYS
from pipeline.core import config, search_space
from pipeline.core.search_space import Range
from pipeline.core.sections import Augmentation, Fit
from pipeline.tune.oracles import hyperparameters, sample

FIT = Fit(
    epochs=3,
    batch_size=8,
    optimizer="adam",
    learning_rate=0.001,
    schedule="constant",
    early_stopping=None,
    ema=None,
    label_smoothing=0.0,
    augmentation=Augmentation(),
).model_dump(mode="json")
MANY = settings(max_examples=300, derandomize=True, deadline=None)


@st.composite
def steps(draw: st.DrawFn) -> tuple[float, float, float, int]:
    """Minimum, maximum and step as one writes them, and the number of steps."""
    digits, count = draw(st.integers(0, 6)), draw(st.integers(1, 200))
    low, step = (Decimal(draw(st.integers(least, 5000))).scaleb(-digits) for least in (0, 1))
    number = int if digits == 0 and draw(st.booleans()) else float
    return number(low), number(low + count * step), number(step), count


@MANY
@given(steps(), st.data())
def test_every_level_of_a_range_is_reached_and_no_other_value(given_steps: tuple, data: st.DataObject):
    low, high, step, count = given_steps
    default = float(Decimal(repr(low)) + data.draw(st.integers(0, count)) * Decimal(repr(step)))
    base = block({"fit": FIT | {"learning_rate": default}})
    [dimension] = search_space.dimensions({"fit": {"learning_rate": {"min": low, "max": high, "step": step}}}, base)
    assert isinstance(dimension, Range)
    [parameter] = hyperparameters([dimension]).space
    levels = [dimension.level(index) for index in range(count + 1)]
    assert (levels[0], levels[-1]) == (low, high)
    assert levels == sorted(set(levels))
    assert [dimension.index(level) for level in levels] == list(range(count + 1))
    assert {parameter.prob_to_value((index + 0.5) / (count + 1)) for index in range(count + 1)} == set(range(count + 1))
    assert sorted(parameter.values) == list(range(count + 1))
    assert dimension.level(parameter.default) == default


def block(changes: dict[str, Any]) -> dict[str, Any]:
    """A complete block of a network; whether its values are in bounds is another matter."""
    plain: dict[str, Any] = {"blocks": [{"filters": [4]}, {"filters": [4], "dropout": 0.2}], "fit": FIT}
    return config.network_from(plain).model_dump(mode="json") | changes


KINDS = st.lists(st.sampled_from(sorted(POOLING_KEYS)), unique=True, max_size=4)
LEAVES: dict[str, dict[str, st.SearchStrategy]] = {
    "block": {
        "dropout": st.sampled_from([{"min": 0.0, "max": 0.5, "step": 0.1}, {"min": 0, "max": 0.5}, [0.2, 0.0, 0.3]]),
        "dropout_kind": st.just(["plain", "spatial"]),
        "filters": st.just([[4], [], [4, 8]]),
        "kernel_size": st.sampled_from([[3, 5], [3, [5, 1]], {"min": 1, "max": 5, "step": 2}, {"min": 1, "max": 4}]),
        "batch_norm": st.just([False, True]),
        "activation": st.just(["relu", "gelu"]),
        "stride": st.just([1, 2, [2, 1]]),
        "residual": st.just([False, True]),
        "squeeze_excitation": st.just([None, 4]),
        "use_bias": st.just([None, False]),
        "normalization": st.just({"kind": ["none", "batch", "group"], "groups": [None, 2]}),
    },
    "pooling": {
        "kind": KINDS.map(lambda kinds: ["max", *(kind for kind in kinds if kind != "max")]),
        "window": st.sampled_from([[2, 3], {"min": 1, "max": 3, "step": 1}]),
        "stride": st.just([None, 1, 2]),
        "p": st.sampled_from(
            [[1.0, 2.0, 4.0], {"min": 1.0, "max": 4.0, "step": 0.1}, {"min": 1, "max": 16, "log": True}]
        ),
        "ratio": st.sampled_from([[1.5, 2.0], {"min": 1.1, "max": 1.9, "step": 0.2}]),
    },
    "head": {
        "pooling": st.just(["flatten", "gem", "global_max"]),
        "p": st.sampled_from([[2.0, 3.0], {"min": 1.0, "max": 16.0, "log": True}]),
        "dense": st.just([[], [8], [8, 8]]),
        "dropout": st.just({"min": 0.0, "max": 0.3, "step": 0.05}),
    },
}


def some(leaves: dict[str, st.SearchStrategy]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=leaves)


@st.composite
def spaces(draw: st.DrawFn) -> dict[str, Any]:
    one = some(LEAVES["block"] | {"pooling": some(LEAVES["pooling"])})
    space: dict[str, Any] = {"blocks": draw(st.one_of(one, st.lists(one, min_size=2, max_size=2)))}
    space["head"] = draw(some(LEAVES["head"]))
    space["fit"] = {"learning_rate": {"min": 1e-4, "max": 1e-2, "log": True}}
    return space


@MANY
@given(spaces(), st.integers(0, 2**31 - 1))
def test_sampled_networks_are_valid_and_have_one_identity(space: dict[str, Any], seed: int):
    base = block({})
    dimensions = search_space.dimensions(space, base)
    hp = hyperparameters(dimensions)
    first = search_space.apply(base, sample(hp.values, dimensions, base))
    assert search_space.identity(first) == search_space.identity(search_space.apply(base, {}))
    drawn = {parameter.name: parameter.random_sample(seed + number) for number, parameter in enumerate(hp.space)}
    values = sample(drawn, dimensions, base)
    network = search_space.apply(base, values)
    assert search_space.apply(base, values) == network
    assert search_space.apply(network, values) == network
    config.network_from(network)
    assert base == block({})  # unchanged
    for dimension in dimensions:
        if dimension.name not in values:  # inactive: whatever was drawn, it is the same network
            others = values | {dimension.name: dimension.extremes[-1]}
            assert search_space.identity(search_space.apply(base, others)) == search_space.identity(network)
        elif isinstance(dimension, Range):
            low, high = dimension.extremes
            value: Any = values[dimension.name]
            assert low <= value <= high  # type: ignore[operator]
