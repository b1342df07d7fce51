"""The search space: a network's block of configuration with lists and ranges in place of values. TensorFlow-free.

`tune.space` has the shape of a network: `blocks` (one mapping for every block of the base, or a list with one mapping
for each), `head` and `fit`. Every leaf becomes a dimension, named by its path: `blocks.1.pooling.kind`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from math import isclose
from typing import Any

Value = str | int | float | bool | None | list | dict
RANGE_KEYS = {"min", "max", "step", "log"}


class SpaceError(ValueError):
    """A space that cannot be searched. `key` is the place below tune.space, `found` what stands there."""

    def __init__(self, key: str, found: object, message: str) -> None:
        super().__init__(message)
        self.key = key
        self.found = found


@dataclass(frozen=True)
class Choice:
    """A dimension with listed values; `default` is the base network's own."""

    name: str
    key: str
    default: Value
    values: tuple[Value, ...]

    @property
    def extremes(self) -> tuple[Value, ...]:
        return self.values


@dataclass(frozen=True)
class Range:
    """A dimension from `low` to `high`, both included; `step` None is continuous, then `log` samples the exponent."""

    name: str
    key: str
    default: float
    low: float
    high: float
    step: float | None
    log: bool

    @property
    def integer(self) -> bool:
        return all(isinstance(value, int) for value in (self.low, self.high, self.default, self.step or 1))

    @property
    def extremes(self) -> tuple[Value, ...]:
        return self.low, self.high


Dimension = Choice | Range


def dimensions(space: Mapping[str, Any], base: Mapping[str, Any]) -> list[Dimension]:
    """The dimensions of a space around a base network (its complete block, defaults included).

    Raises:
        SpaceError: a path that the base does not have, a malformed leaf, or one that does not hold the base's value.
    """
    found = [
        _dimension(path, key, leaf, _value_at(path, key, base, leaf))
        for path, key, leaf in _leaves(space, (), (), base)
    ]
    if not found:
        raise SpaceError("", dict(space), "allowed: at least one list or range to search")
    return found


def apply(base: Mapping[str, Any], values: Mapping[str, Value]) -> dict[str, Any]:
    """The base's block with the values of some dimensions (by name) put in."""
    block = deepcopy(dict(base))
    for name, value in values.items():
        *parents, last = (int(part) if part.isdigit() else part for part in name.split("."))
        place: Any = block
        for part in parents:
            place = place[part]
        place[last] = value
    return block


def check(
    found: Sequence[Dimension], base: Mapping[str, Any], validate: Callable[[dict[str, Any]], str | None]
) -> None:
    """Try the extremes of every dimension, one at a time around the base.

    `validate` says what is wrong with a network's block, or None.

    Raises:
        SpaceError: a value that no network may have.
    """
    for dimension in found:
        for value in dimension.extremes:
            complaint = validate(apply(base, {dimension.name: value}))
            if complaint:
                raise SpaceError(dimension.key, value, complaint)


Path = tuple[Any, ...]  # names of keys, and numbers of items


def _leaves(node: Any, path: Path, key: Path, base: Any) -> Iterator[tuple[Path, Path, Any]]:
    """(path in the network, path in the space, leaf): a mapping under `blocks` stands for every block of the base."""
    if path == ("blocks",):
        count = len(base["blocks"])
        if isinstance(node, dict):
            for index in range(count):
                yield from _leaves(node, (*path, index), key, base)
            return
        if not isinstance(node, list) or len(node) != count:
            raise SpaceError(_dotted(key), node, f"allowed: one mapping, or a list with one for each of {count} blocks")
        for index, block in enumerate(node):
            yield from _leaves(block, (*path, index), (*key, index), base)
    elif isinstance(node, dict) and not (node and set(node) <= RANGE_KEYS):
        for name, child in node.items():
            yield from _leaves(child, (*path, name), (*key, name), base)
    else:
        yield path, key, node


def _value_at(path: Path, key: Path, base: Any, leaf: Any) -> Any:
    place = base
    for part in path:
        allowed = sorted(place) if isinstance(place, dict) else []
        if not isinstance(place, list) and part not in allowed:
            listed = f"unknown key; allowed: {', '.join(allowed)}" if allowed else "this has no keys of its own"
            raise SpaceError(_dotted(key), leaf, listed)
        place = place[part]
    if isinstance(place, dict):
        raise SpaceError(_dotted(key), leaf, f"allowed: a mapping with some of {', '.join(sorted(place))}")
    return place


def _dimension(path: Path, key: Path, leaf: Any, default: Any) -> Dimension:
    name, where = _dotted(path), _dotted(key)
    if isinstance(leaf, list):
        if not leaf or any(leaf.count(value) > 1 for value in leaf):
            raise SpaceError(where, leaf, "allowed: a list of different values")
        if not any(_same(value, default) for value in leaf):
            raise SpaceError(where, leaf, f"does not hold {default}, the value of tune.base at {name}; add it")
        return Choice(name, where, default, tuple(leaf))
    if not isinstance(leaf, dict) or not {"min", "max"} <= set(leaf):
        raise SpaceError(where, leaf, "allowed: a list of values, {min, max, step} or {min, max, log: true}")
    low, high, step, log = leaf["min"], leaf["max"], leaf.get("step"), leaf.get("log", False)
    numbers = [low, high] if step is None else [low, high, step]
    if not all(isinstance(number, int | float) and not isinstance(number, bool) for number in numbers):
        raise SpaceError(where, leaf, "allowed: numbers as min, max and step")
    if not isinstance(log, bool) or (log and (step is not None or low <= 0)):
        raise SpaceError(where, leaf, "allowed: log: true without a step and with min above 0, or log: false")
    if low >= high or (step is not None and step <= 0):
        raise SpaceError(where, leaf, "allowed: min below max, and a step above 0")
    if not isinstance(default, int | float) or not _holds(low, high, step, default):
        raise SpaceError(where, leaf, f"does not hold {default}, the value of tune.base at {name}; widen it")
    return Range(name, where, default, low, high, step, log)


def _holds(low: float, high: float, step: float | None, value: float) -> bool:
    if not low <= value <= high:
        return False
    return step is None or isclose((value - low) / step, round((value - low) / step), abs_tol=1e-9)


def _same(value: Any, default: Any) -> bool:
    return value == default and isinstance(value, bool) == isinstance(default, bool)


def _dotted(path: Path) -> str:
    return ".".join(str(part) for part in path)
