"""Team services: the compose file, which only Docker can run, and what the start script refuses."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from .conftest import ROOT

SERVICES = ROOT / "services"
SECRETS = {"POSTGRES_PASSWORD", "S3_ACCESS_KEY", "S3_SECRET_KEY"}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return YAML(typ="safe").load(SERVICES / "compose.yaml")


def test_containers_are_local_pinned_and_watched(compose: dict[str, Any]):
    for name, service in compose["services"].items():
        image = service.get("image") or service["build"]["dockerfile_inline"].splitlines()[0]
        assert re.search(r":\d+\.\d+", image), name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ())), name
        assert service["healthcheck"]["test"], name


def test_there_are_no_default_passwords():
    text = (SERVICES / "compose.yaml").read_text()
    used = re.findall(r"\$\{(\w+)(:[?-])", text)
    example = dict(re.findall(r"^(\w+)=(.*)$", (SERVICES / ".env.example").read_text(), re.MULTILINE))
    assert {name for name, value in example.items() if not value} == SECRETS
    assert {name for name, default in used if default == ":?"} == SECRETS
    assert {name for name, _ in used} <= example.keys()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (None, ".env: not found; copy .env.example and fill in the passwords"),
        ((SERVICES / ".env.example").read_text(), "POSTGRES_PASSWORD: must be letters and digits"),
        ("POSTGRES_PASSWORD=a\nS3_ACCESS_KEY=b\nS3_SECRET_KEY='c\"d'\n", "S3_SECRET_KEY: must be letters and digits"),
    ],
)
def test_services_do_not_start_without_passwords(tmp_path: Path, settings: str | None, message: str):
    shutil.copy(SERVICES / "start", tmp_path)
    if settings:
        (tmp_path / ".env").write_text(settings)
    done = subprocess.run([tmp_path / "start"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert message in done.stderr
    assert not (tmp_path / "data").exists()
