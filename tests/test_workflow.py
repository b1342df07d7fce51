"""The workflow on GitHub: what it runs is fixed by commit, and it may only read. The development container."""

import json
import re

from ruamel.yaml import YAML

from .conftest import ROOT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
CONTAINER = ROOT / ".devcontainer" / "devcontainer.json"


def test_actions_are_pinned_by_commit_and_may_only_read():
    assert WORKFLOWS
    for file in WORKFLOWS:
        workflow = YAML(typ="safe", pure=True).load(file)
        assert workflow["permissions"] == {"contents": "read"}
        used = [step["uses"] for job in workflow["jobs"].values() for step in job["steps"] if "uses" in step]
        assert all(re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", action) for action in used), used


def test_targets_of_workflows_and_of_the_container_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for file in (*WORKFLOWS, CONTAINER):
        targets = re.findall(r"\bmake ([a-z]+)", file.read_text(encoding="utf-8"))
        assert targets
        assert all(f"\n{target}:" in makefile for target in targets), targets
    container = json.loads(CONTAINER.read_text(encoding="utf-8"))
    ports = {int(port) for port in re.findall(r"or \$\(PORT\),(\d+)", makefile)}
    assert ports == set(container["forwardPorts"])
    assert set(map(str, ports)) == set(container["portsAttributes"])


def test_no_script_contains_what_a_pull_request_chooses():
    for file in WORKFLOWS:
        jobs = YAML(typ="safe", pure=True).load(file)["jobs"].values()
        assert not [step["run"] for job in jobs for step in job["steps"] if "${{" in step.get("run", "")]
