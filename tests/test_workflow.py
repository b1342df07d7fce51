"""The workflow on GitHub: what it runs is fixed by commit, and it may only read."""

import re
from pathlib import Path

from ruamel.yaml import YAML

WORKFLOWS = sorted((Path(__file__).parents[1] / ".github" / "workflows").glob("*.yml"))


def test_actions_are_pinned_by_commit_and_may_only_read():
    assert WORKFLOWS
    for file in WORKFLOWS:
        workflow = YAML(typ="safe", pure=True).load(file)
        assert workflow["permissions"] == {"contents": "read"}
        used = [step["uses"] for job in workflow["jobs"].values() for step in job["steps"] if "uses" in step]
        assert all(re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", action) for action in used), used
