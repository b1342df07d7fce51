"""Files in own_networks/ that a network follows from: the code of its builder, its starting weights."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from models.own_code import FOLDER, CodeError, OwnCode, OwnNetwork, check, digest
from pipeline.core.errors import DataError

Files = Mapping[str, bytes]  # content by name


class Network(Protocol):
    """A network of params.yaml."""

    @property
    def weights(self) -> str | None: ...


def names(network: Network) -> list[str]:
    """The names of a network's files; none for most networks."""
    own = [network.file] if isinstance(network, OwnNetwork) else []
    return [*own, *([network.weights] if network.weights else [])]


def require(network: Network, folder: Path) -> None:
    """Check that the files exist, and that the builder takes the network's arguments, without running it.

    Raises:
        CodeError: they do not.
    """
    if isinstance(network, OwnNetwork):
        check(network, folder)
    if network.weights and not (folder / network.weights).is_file():
        there = [file.name for file in sorted(folder.glob("*")) if file.suffix in (".keras", ".h5")]
        listed = f"files there: {', '.join(there)}" if there else "put the file there"
        raise CodeError("weights", network.weights, f"{FOLDER}/{network.weights} does not exist; {listed}")


def read(name: str, folder: Path) -> bytes:
    """Read one of the files.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return (folder / name).read_bytes()
    except OSError as error:
        raise DataError(f"{FOLDER}/{name}: cannot be read: {error.strerror}") from None


def recorded(folder: Path) -> dict[str, str]:
    """The SHA-256 of each file in own_networks/ as the stage `config` found it; empty before it has run."""
    found: dict[str, str] = {}
    for file in folder.glob("*"):
        found |= json.loads(file.read_text(encoding="utf-8"))
    return found


def digests(network: Network, folder: Path) -> dict[str, str]:
    """The SHA-256 of each file of a network.

    Raises:
        DataError: a file cannot be read.
    """
    return {name: digest(read(name, folder)) for name in names(network)}


def read_code(name: str, sha256: str, folder: Path) -> OwnCode:
    """Read the builder's file of a trained network; it may be run.

    Raises:
        DataError: it is missing, or was changed since the network was trained.
    """
    if name != Path(name).name:  # from a registry
        raise DataError(f"{name}: not the name of a file in {FOLDER}/; register the network again")
    content = read(name, folder)
    if digest(content) != sha256:
        raise DataError(
            f"{FOLDER}/{name}: changed since the network was trained: SHA-256 is {digest(content)} instead of "
            f"{sha256}; restore the file, or train with it: `dvc repro`"
        )
    return OwnCode(name, content)
