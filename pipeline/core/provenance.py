"""Provenance of results: digests of code and parameters, Git commit, DVC stage and experiment, package versions."""

import hashlib
import json
import os
import subprocess
import sys
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from models.spec import Spec

SHARED = ("models", "pipeline/core", "pipeline/runtime", "pipeline/train")
# The code that the result of a fit or of a search follows from, as under `deps` of their stages in dvc.yaml.
CODE = {"train": SHARED, "tune": (*SHARED, "pipeline/tune")}
# What a result follows from.
SOURCES = ("models", "own_networks", "pipeline", "data/catalog.yaml", "dvc.yaml", "params.yaml")
PACKAGES = ("tensorflow", "keras", "numpy", "scipy", "pydantic", "mlflow")


class Origin(Spec):
    """Which stage ran, from which commit. `changed`: whether code or parameters differed from the commit.

    `commit` and `changed` are None outside of Git; `experiment` and `baseline` are those of `dvc exp run`.
    """

    stage: str
    experiment: str | None
    baseline: str | None
    commit: str | None
    changed: bool | None

    def tags(self) -> dict[str, str]:
        """The known values under the names of their MLflow tags."""
        values = {
            "git.commit": self.commit,
            "git.changed": None if self.changed is None else "yes" if self.changed else "no",
            "dvc.stage": self.stage,
            "dvc.experiment": self.experiment,
            "dvc.baseline": self.baseline,
        }
        return {name: value for name, value in values.items() if value is not None}


def digest(*values: Any) -> str:
    """32 hexadecimal digits of anything that JSON can hold."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def code_digest(stage: str) -> str:
    """Digest of the code of a stage and of the versions of the packages that compute."""
    root = Path(__file__).parents[2]
    sources = sorted(path for folder in CODE[stage] for path in (root / folder).rglob("*.py"))
    content = {path.relative_to(root).as_posix(): path.read_text(encoding="utf-8") for path in sources}
    return digest(content, requirements())


def requirements() -> list[str]:
    """Pinned requirements for loading a trained network."""
    return [f"{package}=={version(package)}" for package in PACKAGES]


def origin(root: Path, stage: str) -> Origin:
    """The Git commit that is checked out, and the DVC stage and experiment.

    `stage` is the name to use where DVC did not start the process.
    """
    commit = _git(root, "rev-parse", "HEAD")
    changes = _git(root, "status", "--porcelain", "--", *SOURCES) if commit else None
    return Origin(
        stage=os.environ.get("DVC_STAGE") or stage,
        experiment=os.environ.get("DVC_EXP_NAME") or None,
        baseline=os.environ.get("DVC_EXP_BASELINE_REV") or None,
        commit=commit,
        changed=None if changes is None else bool(changes),
    )


def file_at(root: Path, revision: str, path: Path) -> str | None:
    """The content of a file below `root` in a commit; None if Git does not have it."""
    return _git(root, "show", f"{revision}:./{path.as_posix()}")


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True)
    except OSError:
        return None
    except subprocess.CalledProcessError as error:
        if "dubious ownership" in error.stderr:
            _warn_of_owner(root)
        return None
    return done.stdout.strip()


@cache
def _warn_of_owner(root: Path) -> None:
    """Say once that the commit stays unknown. It is not forced: Git runs commands of the configuration."""
    print(
        f"warning: {root}: the Git commit is not recorded, since the repository belongs to another user; "
        f"allow it with `git config --global --add safe.directory {root}`",
        file=sys.stderr,
        flush=True,
    )
