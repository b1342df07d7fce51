"""Shipping the project's code to the workers of a cluster, which need the environment alone."""

import io
import tempfile
import zipfile
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

from distributed.diagnostics.plugin import UploadFile

from pipeline.core.errors import ClusterError
from pipeline.core.provenance import PACKAGES

PREFIX = "convpipe-code-"


def ship(client: Any, name: str) -> str:
    """Send the code to all workers, also to those that join later. Workers that have loaded other code are restarted.

    Returns:
        The name of the code, as `loaded` gives it on a worker.

    Raises:
        ClusterError: a worker has other versions of the packages that compute.
    """
    content = _archive()
    file = f"{PREFIX}{sha256(content).hexdigest()[:16]}.zip"
    packages = {package: version(package) for package in PACKAGES if package != "mlflow"}  # not imported there
    for worker, found in client.run(_versions, list(packages)).items():
        if different := [package for package, own in packages.items() if found.get(package) != own]:
            versions = ", ".join(f"{key} {found.get(key)} instead of {packages[key]}" for key in different)
            raise ClusterError(f"{name}: the worker {worker} has {versions}; install requirements.txt there")
    stale = [worker for worker, loaded in client.run(_loaded, PREFIX).items() if loaded not in (None, file)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / file
        path.write_bytes(content)
        client.register_plugin(UploadFile(str(path)), name=PREFIX)
    if stale:
        client.restart_workers(stale)
    return file


def loaded() -> str | None:
    """The name of the code that this worker has loaded; None if it was not shipped."""
    return _loaded(PREFIX)


def _archive() -> bytes:
    """The modules of `models` and `pipeline` as a zip file, equal for equal code."""
    root, content = Path(__file__).parents[2], io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(path for package in ("models", "pipeline") for path in (root / package).rglob("*.py")):
            archive.writestr(zipfile.ZipInfo(path.relative_to(root).as_posix()), path.read_bytes())
    return content.getvalue()


# Pickled by value: the workers do not have this module yet.
_versions = lambda packages: {  # noqa: E731
    found.metadata["Name"].lower(): found.version
    for found in __import__("importlib.metadata").metadata.distributions()
    if found.metadata["Name"].lower() in packages
}
_loaded = lambda prefix: next(  # noqa: E731
    (
        path.rpartition("/")[2]
        for path in __import__("sys").path
        if prefix in path and "pipeline" in __import__("sys").modules
    ),
    None,
)
