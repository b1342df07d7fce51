"""Where a result comes from: digests of code and parameters, the commit, the DVC stage and experiment, versions."""

import hashlib
import json
import os
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

CODE = ("models", "pipeline")
SOURCES = (*CODE, "data/catalog.yaml", "dvc.yaml", "params.yaml")  # what a result follows from
PACKAGES = ("tensorflow", "keras", "numpy", "scipy", "pydantic", "mlflow")


def digest(*values: Any) -> str:
    """32 hexadecimal digits of anything that JSON can hold."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def code_digest() -> str:
    """Of the project's own modules and of the versions of what computes."""
    root = Path(__file__).parent.parent
    sources = sorted(path for folder in CODE for path in (root / folder).rglob("*.py"))
    content = {str(path.relative_to(root)): path.read_text(encoding="utf-8") for path in sources}
    return digest(content, requirements())


def requirements() -> list[str]:
    """What a trained network needs to be loaded, as pinned requirements."""
    return [f"{package}=={version(package)}" for package in PACKAGES]


def commit(root: Path) -> dict[str, str]:
    """The Git commit that is checked out, and whether code or parameters differ from it; empty outside of Git."""
    head = _git(root, "rev-parse", "HEAD")
    if head is None:
        return {}
    changed = _git(root, "status", "--porcelain", "--", *SOURCES)
    return {"commit": head, "changed": "yes" if changed else "no"}


def dvc(stage: str) -> dict[str, str]:
    """The DVC stage and experiment; the stage has the given name where DVC did not start it."""
    names = {"experiment": "DVC_EXP_NAME", "baseline": "DVC_EXP_BASELINE_REV"}
    known = {key: os.environ[variable] for key, variable in names.items() if os.environ.get(variable)}
    return {"stage": os.environ.get("DVC_STAGE") or stage, **known}


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
