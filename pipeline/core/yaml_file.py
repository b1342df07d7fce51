"""Reading YAML files as DVC does, so that every file means the same to both, and refusing what neither can use."""

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import CollectionEndEvent, CollectionStartEvent

from pipeline.core.errors import ConfigError

DEEPEST = 50  # lists and maps within one another
MOST_VALUES = 100_000  # an alias counts as all that it stands for


def read(path: Path) -> Any:
    """The content of a YAML file: UTF-8 text of YAML 1.2, in which 1e-3 is a number, and "on" a word.

    Raises:
        ConfigError: the file is missing or unreadable, too large when aliases are expanded, or has keys that are not
            text: DVC makes no stages of these.
    """
    try:
        text = path.read_text(encoding="utf-8")
        _check_depth(text, path.name)
        value = YAML(typ="safe").load(text)  # the call that DVC makes
    except FileNotFoundError:
        raise ConfigError(f"{path.name}: not found in {path.parent}; run from the project's folder") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path.name}: not UTF-8 ({error}); save it with this encoding") from None
    except (OSError, YAMLError, ValueError, LookupError) as error:  # the last two: malformed dates, numbers, booleans
        raise ConfigError(f"{path.name}: not readable as YAML: {error}") from None
    _check_values(value, path.name)
    return value


def _check_depth(text: str, file: str) -> None:
    """Refuse deep nesting before it is loaded: YAML's loader in C would crash."""
    depth = 0
    for event in YAML(typ="safe").parse(text):
        depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
        if depth > DEEPEST:
            raise ConfigError(f"{file}: nested too deeply; allowed: {DEEPEST} lists and maps within one another")


def _check_values(value: Any, file: str) -> None:
    count, level = 0, [value]
    while level:
        if (count := count + len(level)) > MOST_VALUES:
            raise ConfigError(f"{file}: too many values, aliases expanded; allowed: {MOST_VALUES:,}")
        below = []
        for node in level:
            if isinstance(node, dict):
                for key in node:
                    if not isinstance(key, str):
                        raise ConfigError(f"{file}: the key {key!r} is not text; give it another name")
                below += node.values()
            elif isinstance(node, list):
                below += node
        level = below
