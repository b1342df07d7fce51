"""Experiments of DVC leave params.yaml as it is; their comparison fits a terminal. Only `config` is a real stage."""

import re
from typing import Any

import pytest

from pipeline import compare

from .conftest import Project, copy_project, overlaid, yaml

REPORT = """
import json, sys
from pathlib import Path
kind = sys.argv[1]
Path("results").mkdir(exist_ok=True)
Path("results/ranking.json").write_text(json.dumps({
    "network": "model_1", "summary": f"pooling {kind}·max → flatten | dropout 0·0·0",
    "accuracy": 0.98 if kind == "average" else 0.97, "accuracy_low": 0.969, "accuracy_high": 0.991,
    "seeds": 1, "within_noise": "model_2", "worse": ""}))
"""
POOLING = "models.model_1.blocks.0.pooling.kind"


@pytest.fixture(scope="module")
def experiments(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with a commit, in which report only names a best network."""
    project = copy_project(tmp_path_factory.mktemp("experiments"))
    stages = yaml.load(project.root / "dvc.yaml")["stages"]
    kind = "${models.model_1.blocks[0].pooling.kind}"
    report = {
        "cmd": f"python report.py {kind}",
        "deps": ["artifacts/params-checked.txt"],
        "params": ["models"],
        "metrics": [{compare.RANKING: {"cache": False}}],
    }
    yaml.dump({"stages": {"config": stages["config"], "report": report}}, project.root / "dvc.yaml")
    (project.root / "report.py").write_text(REPORT)
    project.run("git", "init", "--quiet", "--initial-branch", "main")
    project.run("git", "config", "user.name", "a test")
    project.run("git", "config", "user.email", "test@example.com")
    project.run("dvc", "repro")
    project.commit("first")
    project.run("dvc", "exp", "run", "--temp", "--name", "by-average", "-S", f"{POOLING}=average")
    return project


def test_experiments_leave_params_as_they_are(experiments: Project):
    refused = experiments.run("dvc", "exp", "run", "--temp", "-S", f"{POOLING}=median", check=False)
    assert refused.returncode
    assert f"error: params.yaml: {POOLING}: found" in refused.stderr
    assert experiments.run("git", "status", "--short").stdout == ""


def test_comparison_of_experiments(experiments: Project):
    wide, narrow = (
        experiments.run("python", "-m", "pipeline.compare", COLUMNS=columns).stdout.splitlines()
        for columns in ("300", "80")
    )
    assert max(map(len, narrow)) <= 80
    title, *rows = (re.split("  +", line.strip()) for line in wide)
    assert title == ["experiment", "changed", "best network", "accuracy", "within noise"]
    assert rows[:3] == [
        ["by-average", f"{POOLING}=average", "model_1", "98.00%", "model_2"],
        ["pooling average·max → flatten", "96.90 to 99.10"],
        ["dropout 0·0·0"],
    ]
    assert [row[:2] for row in rows[3::3]] == [["workspace", "model_1"], ["main", "model_1"]], "nothing changed"


def test_experiments_without_results():
    params = {"params": {"params.yaml": {"data": {"seed": 1}}}}
    failed = {"executor": {"state": "failed"}, "name": "other", "revs": [{"rev": "0" * 40, "data": None}]}
    commit = {"rev": "f" * 40, "name": None, "data": params, "experiments": [failed]}
    table = compare.table([{"data": params}, commit])
    cells = [[str(cell) for cell in column.cells] for column in table.columns]
    assert cells[0] == ["workspace", "fffffff", "other"]
    assert cells[2] == ["", "", "failed"]


@pytest.mark.parametrize(
    ("change", "written"),
    [
        ({"fit": {"epochs": 3}}, "fit.epochs=3"),
        ({"grid": {"pooling": ["lp"]}}, "grid.pooling=[lp]"),
        ({"tune": None}, "tune=null"),
        ({"models": {"own": {"blocks": []}}}, "+models.own={blocks: []}"),
        ({"data": {"dataset": "mnist"}}, "data.dataset=mnist"),
    ],
)
def test_a_change_is_written_as_it_is_typed(project: Project, change: Any, written: str):
    params = project.params()
    assert list(compare.changes(overlaid(params, change), params)) == [written]
    assert next(compare.changes({}, {"limit": 1})) == "~limit"
