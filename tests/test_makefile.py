"""Make: the installation of packages, which shows its progress and fails if pip does."""

import os
import pty
import shutil
import subprocess
from pathlib import Path

import pytest

from .conftest import ROOT

# In place of the environment's Python: pip with one package, which is downloaded and then installed.
PIP = """#!/bin/sh
echo "Collecting one==1.0"
tries=0
while [ ! -f go ] && [ $tries -lt 60 ]; do sleep 1; tries=$((tries + 1)); done
[ -f refused ] && echo "ERROR: a hash differs" >&2 && exit 3
mkdir .venv/lib/python3.11/site-packages/one-1.0.dist-info
"""
MARKER = ".venv/.installed-requirements"
# Without the variables of the `make test` that may run these tests: make would speak as its child.
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / ".venv/lib/python3.11/site-packages").mkdir(parents=True)
    (tmp_path / ".venv/bin").mkdir()
    python = tmp_path / ".venv/bin/python"
    python.write_text(PIP)
    python.chmod(0o755)
    (tmp_path / "requirements.txt").write_text("one==1.0\n")
    return tmp_path


def test_installation_counts_packages_in_a_terminal(folder: Path):
    main, terminal = pty.openpty()
    make = subprocess.Popen(["make", "setup"], cwd=folder, env=ENVIRONMENT, stdout=terminal, stderr=subprocess.STDOUT)
    os.close(terminal)
    shown = ""
    while "\rpackages: 1 downloaded, 0 installed" not in shown:
        shown += os.read(main, 1000).decode()
    (folder / "go").touch()
    assert make.wait(60) == 0
    assert os.read(main, 10_000).decode().endswith("\rpackages: 1 downloaded, 1 installed\r\n")
    os.close(main)
    assert (folder / MARKER).exists()


def test_installation_that_fails(folder: Path):
    for file in ("go", "refused"):
        (folder / file).touch()
    done = subprocess.run(["make", "setup"], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert "ERROR: a hash differs" in done.stderr
    assert "Error 3" in done.stderr
    assert done.stdout == "installing the packages of requirements.txt in .venv\npackages: 1 downloaded, 0 installed\n"
    assert not (folder / MARKER).exists()
