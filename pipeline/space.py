"""The search space: a network's block of configuration with lists and ranges in place of values. TensorFlow-free.

`tune.space` has the shape of a network: `blocks` (one mapping for every block of the base, or a list with one mapping
for each), `head` and `fit`. Every leaf becomes a dimension, named by its path: `blocks.1.pooling.kind`.

A dimension is inactive in a network that does not take its key: `p` where the pooling is `max`, `dropout_kind` where
there is no dropout. So values for one kind of pooling stand beside those for another, without further syntax.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from math import isclose
from typing import Any

from models.spec import DEFAULT_P, DEFAULT_RATIO, POOLING_KEYS, Block, Head, Pooling

Value = str | int | float | bool | None | list | dict
RANGE_KEYS = {"min", "max", "step", "log"}
BLOCK = Block(filters=()).model_dump(mode="json")  # the defaults of every key
HEAD = Head().model_dump(mode="json")


class SpaceError(ValueError):
    """A space that cannot be searched. `key` is the place below tune.space, `found` what stands there."""

    def __init__(self, key: str, found: object, message: str) -> None:
        super().__init__(message)
        self.key = key
        self.found = found


@dataclass(frozen=True)
class Choice:
    """A dimension with listed values; `default` is the base network's own, or the first where that has none."""

    name: str
    key: str
    default: Value
    values: tuple[Value, ...]

    @property
    def extremes(self) -> tuple[Value, ...]:
        return self.values


@dataclass(frozen=True)
class Range:
    """A dimension from `low` to `high`, both included; `step` None is continuous, then `log` samples the exponent.

    `default` is the base network's own value, or `low` where that has none.
    """

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
    found = [_dimension(path, key, leaf, base) for path, key, leaf in _leaves(space, (), (), base)]
    if not found:
        raise SpaceError("", dict(space), "allowed: at least one list or range to search")
    return found


def inactive(block: Mapping[str, Any]) -> dict[str, Value]:
    """The keys that a network does not take, by dotted name, each with its default."""
    found: dict[str, Value] = {}
    for index, part in enumerate(block["blocks"]):
        name, pooling = f"blocks.{index}", part["pooling"]["kind"]
        unused = [key for key in Pooling.model_fields if key not in ("kind", *POOLING_KEYS[pooling])]
        found |= {f"{name}.pooling.{key}": BLOCK["pooling"][key] for key in unused}
        keys = [] if part["dropout"] else ["dropout_kind"]
        if not part["filters"]:
            keys += ["kernel_size", "padding"]
            # Strided pooling is a convolution like the others of its block.
            keys += [] if pooling == "strided" else ["convolution", "activation", "kernel_initializer"]
        found |= {f"{name}.{key}": BLOCK[key] for key in keys}
    head = block["head"]
    keys = ([] if head["pooling"] == "gem" else ["p"]) + ([] if head["dense"] else ["activation"])
    return found | {f"head.{key}": HEAD[key] for key in keys}


def apply(base: Mapping[str, Any], values: Mapping[str, Value]) -> dict[str, Any]:
    """The base's block with the values of some dimensions (by name) put in; what it does not take has its default."""
    block = deepcopy(dict(base))
    for name, value in values.items():
        _put(block, name, value)
    for name, value in inactive(block).items():
        _put(block, name, value)
    return block


def identity(block: Mapping[str, Any]) -> str:
    """The same text for all ways to write the same network: an implied value, and the value given in its place."""
    plain = deepcopy(dict(block))
    for index, part in enumerate(plain["blocks"]):
        for key in POOLING_KEYS[part["pooling"]["kind"]]:
            place = ("blocks", index, "pooling", key)
            part["pooling"][key] = _number(_value(place, plain))
    plain["head"]["p"] = _number(_value(("head", "p"), plain))
    return json.dumps(plain, sort_keys=True)


def check(
    found: Sequence[Dimension], base: Mapping[str, Any], validate: Callable[[dict[str, Any]], str | None]
) -> None:
    """Try the extremes of every dimension around the base, where that does not take it beside what makes it active.

    `validate` says what is wrong with a network's block, or None.

    Raises:
        SpaceError: a value that no network may have, or a dimension that no network takes.
    """
    for dimension in found:
        contexts = [c for c in _contexts(found, dimension) if dimension.name not in inactive(apply(base, c))]
        if not contexts:
            values = [*dimension.extremes]
            raise SpaceError(
                dimension.key, values, "no network of this space takes it; remove it, or search more kinds"
            )
        for context in contexts[:1] if contexts[0] == {} else contexts:
            for value in dimension.extremes:
                complaint = validate(apply(base, {**context, dimension.name: value}))
                if complaint:
                    raise SpaceError(dimension.key, value, complaint)


def _contexts(found: Sequence[Dimension], dimension: Dimension) -> Iterator[dict[str, Value]]:
    """The base, then the base with one other dimension at one of its extremes."""
    yield {}
    for other in found:
        if other is not dimension:
            yield from ({other.name: value} for value in other.extremes)


def _put(block: Any, name: str, value: Value) -> None:
    *parents, last = (int(part) if part.isdigit() else part for part in name.split("."))
    for part in parents:
        block = block[part]
    block[last] = value


def _number(value: Value) -> Value:
    return float(value) if isinstance(value, int) else value


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


def _value(path: Path, block: Any) -> Any:
    """A network's value, or the one which takes its place where that is None."""
    place = block
    for part in path[:-1]:
        place = place[part]
    value = place[path[-1]]
    if value is not None:
        return value
    if path == ("head", "p"):
        return DEFAULT_P.get(place["pooling"])
    if path[2:3] != ("pooling",):
        return None
    return {"p": DEFAULT_P.get(place["kind"]), "ratio": DEFAULT_RATIO, "stride": place["window"]}.get(path[-1])


def _dimension(path: Path, key: Path, leaf: Any, base: Any) -> Dimension:
    name, where = _dotted(path), _dotted(key)
    default = _value_at(path, key, base, leaf)
    if name == "fit.epochs":
        raise SpaceError(where, leaf, "the epochs of a trial are tune.epochs; remove it")
    taken = name not in inactive(base)
    if isinstance(leaf, list):
        if not leaf or any(leaf.count(value) > 1 for value in leaf):
            raise SpaceError(where, leaf, "allowed: a list of different values")
        own = [value for value in (default, _value(path, base)) if any(_same(v, value) for v in leaf)]
        if taken and not own:
            raise SpaceError(where, leaf, f"does not hold {default}, the value of tune.base at {name}; add it")
        return Choice(name, where, own[0] if own else leaf[0], tuple(leaf))
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
    default = _value(path, base)
    held = isinstance(default, int | float) and _holds(low, high, step, default)
    if taken and not held:
        raise SpaceError(where, leaf, f"does not hold {default}, the value of tune.base at {name}; widen it")
    return Range(name, where, default if held else low, low, high, step, log)


def _holds(low: float, high: float, step: float | None, value: float) -> bool:
    if not low <= value <= high:
        return False
    return step is None or isclose((value - low) / step, round((value - low) / step), abs_tol=1e-9)


def _same(value: Any, default: Any) -> bool:
    return value == default and isinstance(value, bool) == isinstance(default, bool)


def _dotted(path: Path) -> str:
    return ".".join(str(part) for part in path)
