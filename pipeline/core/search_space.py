"""The search space: a network's block of configuration with lists and ranges in place of values.

`tune.space` has the shape of a network: `blocks` (one mapping for all blocks of the base network, or a list with one
mapping per block), `head` and `fit`. Each leaf becomes a dimension, named by its path: `blocks.1.pooling.kind`.

A dimension is inactive in a network that does not use its key: `p` with max pooling, `dropout_kind` without dropout. So
values for several kinds of pooling can be listed side by side, without further syntax.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from decimal import Decimal
from math import isfinite
from typing import Any

from models.spec import DEFAULT_GROUPS, DEFAULT_P, DEFAULT_RATIO, OF_CONVOLUTIONS, POOLING_KEYS, Block, Head, Pooling
from pipeline.core.sections import LOSS_KEYS, SCHEDULE_KEYS, Fit, unused_keys

Value = str | int | float | bool | None | list | dict
RANGE_KEYS = {"min", "max", "step", "log"}
MOST_LEVELS = 1_000_000  # of a range with a step
BLOCK = Block(filters=()).model_dump(mode="json")  # the defaults of every key
HEAD = Head().model_dump(mode="json")


class SpaceError(ValueError):
    """An invalid search space. `key` is the path below tune.space, `found` the value there."""

    def __init__(self, key: str, found: object, message: str) -> None:
        super().__init__(message)
        self.key = key
        self.found = found


@dataclass(frozen=True)
class Choice:
    """A dimension with listed values; `default` is the base network's value, or the first if the base has none."""

    name: str
    key: str
    default: Value
    values: tuple[Value, ...]

    @property
    def extremes(self) -> tuple[Value, ...]:
        return self.values


@dataclass(frozen=True)
class Range:
    """A dimension from `low` to `high`, both included.

    With a `step` it has levels, numbered from 0. Without one it is continuous; `log` then samples the exponent.
    `default` is the base network's value, or `low` if the base has none.
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

    def level(self, index: int) -> float:
        """The value of a level: a decimal number as one would write it, 0.3 rather than 0.30000000000000004."""
        assert self.step is not None
        value = _decimal(self.low) + index * _decimal(self.step)
        return int(value) if self.integer else float(value)

    def index(self, value: float) -> int:
        """The number of the level with a value."""
        assert self.step is not None
        return int(_steps(self.low, value, self.step))


Dimension = Choice | Range


def dimensions(space: Mapping[str, Any], base: Mapping[str, Any]) -> list[Dimension]:
    """The dimensions of a space around a base network (its complete block, defaults included).

    Raises:
        SpaceError: a path does not exist in the base, or a leaf is malformed or lacks the base's value.
    """
    result = [_dimension(path, key, leaf, base) for path, key, leaf in _leaves(space, (), (), base)]
    if not result:
        raise SpaceError("", dict(space), "allowed: at least one list or range to search")
    return result


def inactive(block: Mapping[str, Any]) -> dict[str, Value]:
    """The keys that a network does not use, by dotted name, with their defaults."""
    fit = block["fit"]
    of_fit = [*unused_keys(SCHEDULE_KEYS, fit["schedule"]), *unused_keys(LOSS_KEYS, fit["loss"])]
    of_blocks = _inactive_of_blocks(block) if "blocks" in block else {}  # the user's own code has none
    return of_blocks | {f"fit.{key}": Fit.model_fields[key].default for key in of_fit}


def _inactive_of_blocks(block: Mapping[str, Any]) -> dict[str, Value]:
    defaults: dict[str, Value] = {}
    for index, part in enumerate(block["blocks"]):
        name, pooling = f"blocks.{index}", part["pooling"]["kind"]
        own = POOLING_KEYS.get(pooling, ()) if isinstance(pooling, str) else ()  # `check` refuses other kinds
        unused = [key for key in Pooling.model_fields if key not in ("kind", *own)]
        defaults |= {f"{name}.pooling.{key}": BLOCK["pooling"][key] for key in unused}
        keys = [] if part["dropout"] else ["dropout_kind"]
        if not part["filters"]:
            keys += ["kernel_size", "padding", *OF_CONVOLUTIONS]
            # Strided pooling is a convolution with the settings of its block.
            others = ["convolution", "activation", "kernel_initializer", "groups", "use_bias"]
            keys += [] if pooling == "strided" else others
        keys += [] if part["convolution"] == "standard" else ["groups"]
        defaults |= {f"{name}.{key}": BLOCK[key] for key in keys}
        kind = "none" if part["batch_norm"] else part["normalization"]["kind"]
        keys = (["kind"] if part["batch_norm"] else []) + (["place"] if kind == "none" else [])
        keys += [] if kind == "group" else ["groups"]
        defaults |= {f"{name}.normalization.{key}": BLOCK["normalization"][key] for key in keys}
    head = block["head"]
    keys = ([] if head["pooling"] == "gem" else ["p"]) + ([] if head["dense"] else ["activation"])
    return defaults | {f"head.{key}": HEAD[key] for key in keys}


def apply(base: Mapping[str, Any], values: Mapping[str, Value]) -> dict[str, Any]:
    """The base's block with the values of some dimensions (by name) set, and unused keys at their defaults."""
    block = deepcopy(dict(base))
    for name, value in values.items():
        _put(block, name, value)
    for name, value in inactive(block).items():
        _put(block, name, value)
    return block


def identity(block: Mapping[str, Any]) -> str:
    """A text that is equal for equal networks: an implied value counts as the explicit one."""
    plain = deepcopy(dict(block))
    if "blocks" not in plain:
        return json.dumps(plain, sort_keys=True)
    for index, part in enumerate(plain["blocks"]):
        for key in POOLING_KEYS[part["pooling"]["kind"]]:
            place = ("blocks", index, "pooling", key)
            part["pooling"][key] = _number(_value(place, plain))
        for key in ("kernel_size", "stride", "dilation", "padding"):
            part[key] = _number(part[key])
        if part.pop("batch_norm"):
            part["normalization"] = BLOCK["normalization"] | {"kind": "batch"}
        if part["normalization"]["kind"] == "group":
            part["normalization"]["groups"] = part["normalization"]["groups"] or DEFAULT_GROUPS
        if part["use_bias"] is None:
            norm = part["normalization"]
            part["use_bias"] = norm["kind"] == "none" or norm["place"] == "block"
    plain["head"]["p"] = _number(_value(("head", "p"), plain))
    return json.dumps(plain, sort_keys=True)


def check(
    searched: Sequence[Dimension], base: Mapping[str, Any], validate: Callable[[dict[str, Any]], str | None]
) -> None:
    """Validate the base network with the extremes of each dimension.

    If the base does not use a dimension, it is combined with the values of other dimensions that make it active.

    Args:
        validate: returns the error in a network's block, or None.

    Raises:
        SpaceError: a value is invalid, or no network uses a dimension.
    """
    for dimension in searched:
        contexts = [c for c in _contexts(searched, dimension) if dimension.name not in inactive(apply(base, c))]
        if not contexts:
            message = "no network of this space uses this key; remove it, or search more kinds"
            raise SpaceError(dimension.key, [*dimension.extremes], message)
        for context in contexts[:1] if contexts[0] == {} else contexts:
            for value in dimension.extremes:
                error = validate(apply(base, {**context, dimension.name: value}))
                if error:
                    raise SpaceError(dimension.key, value, error)


def _contexts(searched: Sequence[Dimension], dimension: Dimension) -> Iterator[dict[str, Value]]:
    """No changes of the base, then one other dimension at one of its extremes."""
    yield {}
    for other in searched:
        if other is not dimension:
            yield from ({other.name: value} for value in other.extremes)


def _put(block: Any, name: str, value: Value) -> None:
    *parents, last = (int(part) if part.isdigit() else part for part in name.split("."))
    for part in parents:
        block = block[part]
    block[last] = value


def _number(value: Value) -> Value:
    """A number as a float; a pair of equal numbers as one of them."""
    if isinstance(value, list) and len(value) == 2 and value[0] == value[1]:
        value = value[0]
    return float(value) if isinstance(value, int) else value


Path = tuple[Any, ...]  # keys of mappings and indices of lists


def _leaves(node: Any, path: Path, key: Path, base: Any) -> Iterator[tuple[Path, Path, Any]]:
    """(path in the network, path in the space, leaf) of all leaves; a mapping under `blocks` applies to every block."""
    if path == ("blocks",) and "blocks" in base:
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
            message = f"allowed: {', '.join(allowed)}" if allowed else "its parent is a single value"
            message = "set it under `arguments` of tune.base first" if path[:1] == ("arguments",) else message
            raise SpaceError(_dotted(key), leaf, f"unknown key; {message}")
        place = place[part]
    if isinstance(place, dict):
        raise SpaceError(_dotted(key), leaf, f"allowed: a mapping with some of {', '.join(sorted(place))}")
    return place


def _value(path: Path, block: Any) -> Any:
    """The value at a path of a network; the implied one if that is None."""
    place = block
    for part in path[:-1]:
        place = place[part]
    value = place[path[-1]]
    if value is not None:
        return value
    if path == ("head", "p"):
        return DEFAULT_P.get(place["pooling"])
    if path[2:] == ("normalization", "groups"):
        return DEFAULT_GROUPS
    if path[2:3] != ("pooling",):
        return None
    return {"p": DEFAULT_P.get(place["kind"]), "ratio": DEFAULT_RATIO, "stride": place["window"]}.get(path[-1])


def _dimension(path: Path, key: Path, leaf: Any, base: Any) -> Dimension:
    name, where = _dotted(path), _dotted(key)
    default = _value_at(path, key, base, leaf)
    if name == "fit.epochs":
        raise SpaceError(where, leaf, "tune.epochs sets the epochs of all trials; remove this key")
    if name in ("builder", "weights"):
        raise SpaceError(where, leaf, "not searched; compare networks of `models` instead")
    used = name not in inactive(base)
    if isinstance(leaf, list):
        if not leaf or any(leaf.count(value) > 1 for value in leaf):
            raise SpaceError(where, leaf, "allowed: a list of different values")
        own = [value for value in (default, _value(path, base)) if any(_same(v, value) for v in leaf)]
        if used and not own:
            raise SpaceError(where, leaf, f"does not include {default}, the value of tune.base at {name}; add it")
        return Choice(name, where, own[0] if own else leaf[0], tuple(leaf))
    if not isinstance(leaf, dict) or not {"min", "max"} <= set(leaf):
        raise SpaceError(where, leaf, "allowed: a list of values, {min, max, step} or {min, max, log: true}")
    low, high, step, log = _bounds(leaf, where)
    default = _value(path, base)
    included = isinstance(default, int | float) and _includes(low, high, step, default)
    if used and not included:
        raise SpaceError(where, leaf, f"does not include {default}, the value of tune.base at {name}; widen it")
    return Range(name, where, default if included else low, low, high, step, log)


def _bounds(leaf: dict[str, Any], where: str) -> tuple[float, float, float | None, bool]:
    low, high, step, log = leaf["min"], leaf["max"], leaf.get("step"), leaf.get("log", False)
    numbers = [low, high] if step is None else [low, high, step]
    if not all(isinstance(number, int | float) and not isinstance(number, bool) for number in numbers):
        raise SpaceError(where, leaf, "allowed: numbers as min, max and step")
    if not all(isinstance(number, int) or isfinite(number) for number in numbers):
        raise SpaceError(where, leaf, "allowed: finite numbers")
    if not isinstance(log, bool) or (log and (step is not None or low <= 0)):
        raise SpaceError(where, leaf, "allowed: log: true without a step and with min above 0, or log: false")
    if low >= high or (step is not None and step <= 0):
        raise SpaceError(where, leaf, "allowed: min below max, and a step above 0")
    if step is not None:
        steps = _steps(low, high, step)
        if steps >= MOST_LEVELS:
            raise SpaceError(where, leaf, f"allowed: a step that makes at most {MOST_LEVELS} values")
        if steps != int(steps):
            ends = [float(_decimal(low) + (int(steps) + more) * _decimal(step)) for more in (0, 1)]
            raise SpaceError(where, leaf, f"max is no whole number of steps from min; allowed: {ends[0]} or {ends[1]}")
    return low, high, step, log


def _includes(low: float, high: float, step: float | None, value: float) -> bool:
    return low <= value <= high and (step is None or _steps(low, value, step) % 1 == 0)


def _steps(low: float, value: float, step: float) -> Decimal:
    """Number of steps from `low` to a value, without the rounding errors of binary fractions."""
    return (_decimal(value) - _decimal(low)) / _decimal(step)


def _decimal(number: float) -> Decimal:
    return Decimal(repr(number))


def _same(value: Any, default: Any) -> bool:
    return value == default and isinstance(value, bool) == isinstance(default, bool)


def _dotted(path: Path) -> str:
    return ".".join(str(part) for part in path)
