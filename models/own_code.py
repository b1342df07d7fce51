"""Networks of the user's own code: their configuration, and the Python file that builds them.

`builder: example:make` is the function `make(image, classes, **arguments)` of own_networks/example.py. The file is
checked as text, without TensorFlow and without being run. It is run only with the SHA-256 that is asked for, from the
bytes that were verified.
"""

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from models.spec import Spec

FOLDER = "own_networks"  # at the top of the project
POSITIONAL = 2  # parameters that every builder has: image and classes


class CodeError(ValueError):
    """A builder that cannot be used; `key` is the place in the network's configuration, `found` the value there."""

    def __init__(self, key: str, found: object, message: str) -> None:
        super().__init__(message)
        self.key = key
        self.found = found


def _reference(value: str) -> str:
    module, _, function = value.partition(":")
    if not (module.isidentifier() and function.isidentifier()):
        raise ValueError(f"not of the form MODULE:FUNCTION; allowed: for example example:make, in {FOLDER}/example.py")
    return value


class OwnNetwork(Spec):
    """A network that a function of the user's own code builds.

    Args:
        builder: MODULE:FUNCTION, a function of own_networks/MODULE.py.
        arguments: of the function, beside image and classes.
        output: `softmax`: the network returns probabilities, by softmax or otherwise; `logits`.
    """

    builder: Annotated[str, AfterValidator(_reference)]
    arguments: dict[str, Any] = Field(default_factory=dict)
    output: Literal["softmax", "logits"] = "softmax"

    @property
    def file(self) -> str:
        """Name of the builder's file."""
        return f"{self.builder.partition(':')[0]}.py"

    @property
    def function(self) -> str:
        return self.builder.partition(":")[2]


@dataclass(frozen=True)
class Parameters:
    """The parameters of a builder beside image and classes; `more`: it takes any others as well."""

    required: tuple[str, ...]
    optional: tuple[str, ...]
    more: bool


def check(network: OwnNetwork, folder: Path) -> None:
    """Check that the builder exists and takes the arguments, without running its file.

    Raises:
        CodeError: it does not.
    """
    functions = _functions(network, folder)
    if network.function not in functions:
        listed = f"functions there: {', '.join(functions)}" if functions else "it has no functions"
        raise CodeError("builder", network.builder, f"{FOLDER}/{network.file} has no such function; {listed}")
    known = _parameters(functions[network.function], network)
    if missing := [name for name in known.required if name not in network.arguments]:
        raise CodeError("arguments", network.arguments, f"{network.builder} also needs {', '.join(missing)}")
    allowed = (*known.required, *known.optional)
    for name, value in network.arguments.items():
        if name not in allowed and not known.more:
            listed = ", ".join(allowed) or "none"
            raise CodeError(f"arguments.{name}", value, f"{network.builder} has no such argument; allowed: {listed}")


def _functions(network: OwnNetwork, folder: Path) -> dict[str, ast.FunctionDef]:
    path = folder / network.file
    try:
        tree = ast.parse(path.read_bytes())
    except FileNotFoundError:
        names = ", ".join(sorted(file.stem for file in folder.glob("*.py")))
        there = f"; modules there: {names}" if names else ""
        raise CodeError("builder", network.builder, f"{FOLDER}/{network.file} does not exist{there}") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise CodeError("builder", network.builder, f"{FOLDER}/{network.file} is not valid Python: {error}") from None
    others = {file.stem for file in folder.glob("*.py")}
    if imported := [name for name in _imports(tree) if name == FOLDER or (name in others and not find_spec(name))]:
        message = f"{FOLDER}/{network.file} imports {imported[0]}; a builder and its layers must be in one file"
        raise CodeError("builder", network.builder, message)
    return {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}


def _imports(tree: ast.Module) -> Iterator[str]:
    """Top-level names of the imported modules; those of relative imports count as the folder."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield FOLDER if node.level else str(node.module).partition(".")[0]


def _parameters(function: ast.FunctionDef, network: OwnNetwork) -> Parameters:
    given = function.args
    names = [each.arg for each in (*given.posonlyargs, *given.args)]
    if len(names) < POSITIONAL and given.vararg is None:
        raise CodeError("builder", network.builder, "its function must take image and classes first")
    with_default = names[len(names) - len(given.defaults) :] if given.defaults else []
    by_name = [each.arg for each in given.args if each.arg in names[POSITIONAL:]]
    keywords = list(zip(given.kwonlyargs, given.kw_defaults, strict=True))
    required = [name for name in by_name if name not in with_default]
    required += [each.arg for each, default in keywords if default is None]
    optional = [name for name in by_name if name in with_default]
    optional += [each.arg for each, default in keywords if default is not None]
    return Parameters(tuple(required), tuple(optional), given.kwarg is not None)


def digest(content: bytes) -> str:
    """The SHA-256 of a file."""
    return sha256(content).hexdigest()


@dataclass(frozen=True)
class OwnCode:
    """A builder's file: its name, and its content, which may be run."""

    name: str
    content: bytes

    def load(self) -> ModuleType:
        """Run the file, unless it has been run. Keras knows its layers from then on."""
        name = f"{FOLDER}.{Path(self.name).stem}"
        loaded = sys.modules.get(name)
        if loaded is not None and vars(loaded).get("__digest__") == digest(self.content):
            return loaded
        module = ModuleType(name)
        vars(module)["__digest__"] = digest(self.content)
        sys.modules[name] = module  # where dataclasses look for it
        try:
            exec(compile(self.content, f"{FOLDER}/{self.name}", "exec"), vars(module))
        except BaseException:
            del sys.modules[name]
            raise
        return module


@dataclass(frozen=True)
class LayerRow:
    """A layer of a built network; `output` is its shape without the batch. Multiply-adds are not known."""

    name: str
    kind: str
    output: tuple[int, ...]
    parameters: int
    non_trainable: int
    multiply_adds: None = None
