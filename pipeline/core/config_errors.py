"""Validation errors of pydantic as one line per key of the file: where, what was found, what is allowed."""

import difflib
import json
import re
import typing
from typing import Any, TypeVar

from pydantic import BaseModel, Tag, TypeAdapter, ValidationError

from pipeline.core.errors import ConfigError

T = TypeVar("T")
# Names in other libraries and in publications, whose spelling is far from the names here.
ALIASES = {
    "swish": "silu",
    "avg": "average",
    "mean": "average",
    "gap": "global_average",
    "gmp": "global_max",
    "bn": "batch",
    "pointwise": "standard",
    "kaiming_normal": "he_normal",
    "kaiming_uniform": "he_uniform",
    "xavier_normal": "glorot_normal",
    "xavier_uniform": "glorot_uniform",
    "pool_size": "window",
    "units": "dense",
    "skip": "residual",
    "shortcut": "residual",
}
Key = tuple[Any, ...]  # the path in a file: names of keys and numbers of items


def validated(kind: type[T], value: Any, written: Any, file: str) -> T:
    """Convert `value` to `kind`. `written` is the content of the file that `value` was derived from.

    Raises:
        ConfigError: one line for each invalid key.
    """
    try:
        text = json.dumps(value)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"{file}: holds what is neither text, number, true, false, null, list nor map: {error}"
        ) from None
    try:
        return TypeAdapter(kind).validate_json(text)
    except ValidationError as error:
        raise ConfigError("\n".join(f"{file}: {line}" for line in _lines(error, kind, value, written))) from None


def _lines(error: ValidationError, kind: Any, value: Any, written: Any) -> list[str]:
    """One line per key. A union reports an error for each of its members; these are joined."""
    lines: dict[str, list[str]] = {}
    for problem in error.errors():
        path = _path_in(problem["loc"], value)
        # A value filled in from another place in the file is reported there.
        if _contains(written, path[:-1] if problem["type"] == "missing" else path):
            lines.setdefault(".".join(map(str, path)), []).append(_message(problem, kind, path))
    # A list with a wrong item is also reported as no single value, where both are allowed.
    deepest = {key: found for key, found in lines.items() if not any(other.startswith(f"{key}.") for other in lines)}
    return [": ".join(filter(None, (key, _joined(found)))) for key, found in deepest.items()]


def described(error: ValidationError, kind: Any) -> str:
    """All errors of one value in one line."""
    return _joined([_message(problem, kind, ()) for problem in error.errors()])


def _joined(messages: list[str]) -> str:
    first, *others = dict.fromkeys(messages)
    return " or ".join([first, *(other.partition("; allowed: ")[2] or other for other in others)])


def _path_in(location: Key, value: Any) -> Key:
    """The path in the file: pydantic's location without the names of a union's members."""
    path: list[Any] = []
    for index, part in enumerate(location):
        known = (isinstance(value, dict) and part in value) or (isinstance(value, list) and isinstance(part, int))
        if known:
            value = value[part]
            path.append(part)
        elif index == len(location) - 1 and isinstance(value, dict) and part != "[key]":
            path.append(part)  # a missing key
    return tuple(path)


def _contains(value: Any, path: Key) -> bool:
    for part in path:
        if not isinstance(value, dict | list) or (isinstance(value, dict) and part not in value):
            return False
        value = value[part]
    return True


def _message(problem: Any, kind: Any, path: Key) -> str:
    if problem["type"] == "missing":
        return "is missing"
    if problem["type"] == "extra_forbidden":
        return f"unknown key{listing(str(path[-1]), _keys(kind, problem['loc'][:-1]))}"
    message = problem["msg"]
    for words in ("Value error, ", "String ", "Input ", "should ", "be "):
        message = message.removeprefix(words)
    if problem["type"] == "literal_error" and isinstance(problem["input"], str):
        expected = problem["ctx"]["expected"]
        message = listing(problem["input"], re.findall("'([^']+)'", expected)).partition("; allowed: ")[0]
        return f"found {json.dumps(problem['input'])}{message}; allowed: {expected}"
    found = json.dumps(problem["input"])
    shown = found if len(found) <= 60 else f"{found[:57]}..."
    return f"found {shown}; allowed: {message}" if problem["type"] != "value_error" else f"{message}: {shown}"


def _keys(kind: Any, location: Key) -> list[str]:
    """The keys that the types allow at pydantic's location."""
    for part in location:
        kind = _below(kind, part)
    for candidate in [kind, *typing.get_args(kind)]:
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return [field.alias or name for name, field in candidate.model_fields.items()]
    return []


def _below(kind: Any, part: int | str) -> Any:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return next((f.annotation for n, f in kind.model_fields.items() if part in (n, f.alias)), None)
    arguments = typing.get_args(kind)
    if typing.get_origin(kind) is typing.Annotated:  # a union with tags
        members = map(typing.get_args, typing.get_args(arguments[0]))
        return next((member for member, tag in members if tag == Tag(str(part))), None)
    return arguments[-1] if typing.get_origin(kind) is dict else arguments[0] if arguments else None


def listing(word: str, allowed: typing.Iterable[str]) -> str:
    """The allowed words in place of an unknown one: "; did you mean ...?; allowed: ..."."""
    names = list(allowed)
    alias = ALIASES.get(word.lower(), word.lower())
    close = [alias] if alias in names else difflib.get_close_matches(word, names, n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    return f"{hint}; allowed: {', '.join(names)}" if names else hint
