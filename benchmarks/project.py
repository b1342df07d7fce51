"""Folders and clones to run the pipeline in, with the project's own parameters and catalog in part replaced."""

import argparse
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from models.own_code import FOLDER
from pipeline.core.paths import Paths

ROOT = Path(__file__).parent.parent
yaml = YAML(typ="safe", pure=True)
yaml.default_flow_style = False  # DVC refuses some values within brackets


def create(folder: Path, changes: Mapping[str, Any], datasets: Mapping[str, Any] | None = None) -> Paths:
    """Write params.yaml, with the sections in `changes` merged into it, and a catalog with further `datasets`.

    The code of own networks is copied.
    """
    params, catalog = yaml.load(ROOT / "params.yaml"), yaml.load(ROOT / "data" / "catalog.yaml")
    for section, values in changes.items():
        params[section] = params[section] | values if isinstance(values, dict) else values
    paths = Paths(folder)
    paths.catalog.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(ROOT / FOLDER, paths.own_networks, dirs_exist_ok=True)
    yaml.dump(params, paths.params)
    yaml.dump(catalog | dict(datasets or {}), paths.catalog)
    return paths


def clone(folder: Path) -> None:
    """Clone the last commit, without the outputs that DVC caches."""
    subprocess.run(["git", "clone", "--quiet", "--shared", str(ROOT), str(folder)], check=True)


def mirror() -> str | None:
    """DATASET_MIRROR; a folder as an absolute path, since commands run in other folders."""
    value = os.environ.get("DATASET_MIRROR") or None
    return value if value is None or "://" in value else str(Path(value).resolve())


def parser(doc: str | None) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
