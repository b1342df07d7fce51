"""The layout as promised: imports run one way, importing does nothing, and DVC, MLflow and the code agree."""

import ast
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from pipeline import config, readme
from pipeline.paths import Paths

from .conftest import ROOT, Project

STAGES = ("download", "validate", "train", "tune", "replicate", "evaluate")
LIGHT = ("config", "paths", "schema", "download", "validate", "space", "catalog", "stage")
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).replace("tracking.__init__", "tracking"): path
    for folder in ("models", "pipeline")
    for path in (ROOT / folder).rglob("*.py")
}
yaml = YAML(typ="safe", pure=True)
DVC = yaml.load(ROOT / "dvc.yaml")
PROJECT = yaml.load(ROOT / "MLproject")


@cache
def imported(module: str) -> frozenset[str]:
    """The modules of any kind that a module of the project names in an import, wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inside = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (inside & set(MODULES)) or {node.module}
    return frozenset(found)


def needed(module: str) -> set[str]:
    """The project's modules that one needs, itself among them."""
    reached, waiting = set(), [module]
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting.extend(imported(name) & set(MODULES))
    return reached


def stage_definitions() -> dict[str, Any]:
    """The stages of dvc.yaml, `train` as it is for each network."""
    return {name: stage.get("do", stage) for name, stage in DVC["stages"].items()}


def names(entries: list[Any]) -> set[str]:
    return {next(iter(entry)) if isinstance(entry, dict) else entry for entry in entries}


def test_the_stages_are_the_promised_ones():
    assert tuple(DVC["stages"]) == STAGES
    assert set(PROJECT["entry_points"]) == {"main", "variant", *STAGES}


def test_models_never_import_the_pipeline():
    for module in MODULES:
        if module.startswith("models."):
            assert not any(name.startswith("pipeline") for name in imported(module)), module


def test_a_stage_never_imports_a_stage():
    for stage in STAGES:
        others = {f"pipeline.{other}" for other in STAGES if other != stage}
        assert not needed(f"pipeline.{stage}") & others, stage


def test_nothing_imports_in_a_circle():
    for module in MODULES:
        for other in imported(module) & set(MODULES):
            assert module not in needed(other), f"{module} and {other} need each other"


def test_only_tracking_imports_mlflow():
    users = {module for module in MODULES if any(name.split(".")[0] == "mlflow" for name in imported(module))}
    assert {".".join(module.split(".")[:2]) for module in users} == {"pipeline.tracking"}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_every_file_that_it_imports(stage: str):
    listed = {name for name in names(stage_definitions()[stage]["deps"]) if name.endswith(".py")}
    used = {
        str(MODULES[module].relative_to(ROOT)) for module in needed(f"pipeline.{stage}") if "__init__" not in module
    }
    assert listed == used


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_runs_its_own_module(stage: str):
    command = f"python -m pipeline.{stage}" + (" ${key}" if stage == "train" else "")
    assert stage_definitions()[stage]["cmd"] == command
    entry = PROJECT["entry_points"][stage]["command"]
    assert entry == f"dvc repro --single-item --force {stage}" + ("@{model}" if stage == "train" else "")


def test_stages_read_and_write_where_the_code_does():
    paths = Paths(Path())
    outs = {
        stage: names([*definition.get("outs", []), *definition.get("metrics", [])])
        for stage, definition in stage_definitions().items()
    }
    expected = {
        "download": {paths.raw("${data.dataset}")},
        "validate": {paths.validated, paths.validation},
        "train": {paths.model("${key}"), paths.training("${key}")},
        "tune": {paths.model(config.TUNED), paths.training(config.TUNED), paths.search},
        "replicate": {paths.replicates},
        "evaluate": {paths.metrics, paths.evaluation, paths.report, paths.page},
    }
    assert outs == {stage: set(map(str, places)) for stage, places in expected.items()}
    deps = {stage: names(definition["deps"]) for stage, definition in stage_definitions().items()}
    assert str(paths.raw("${data.dataset}")) in deps["validate"]
    for stage in ("train", "tune", "replicate"):
        assert {str(paths.split("train")), str(paths.split("validation"))} <= deps[stage]
        assert str(paths.split("test")) not in deps[stage], "the test images are for evaluation alone"
    assert {str(paths.split("test")), "artifacts/models", "results/train"} <= deps["evaluate"]
    assert str(paths.replicates) in deps["evaluate"]
    assert all(str(paths.catalog.relative_to(paths.root)) in needs for needs in deps.values())


def test_outputs_outlive_a_stage_that_fails():
    for definition in stage_definitions().values():
        for entry in [*definition.get("outs", []), *definition.get("metrics", [])]:
            [options] = entry.values()
            assert options["persist"] is True


def test_results_are_kept_by_git_and_the_rest_by_dvc():
    for definition in stage_definitions().values():
        for entry in [*definition.get("outs", []), *definition.get("metrics", [])]:
            [(name, options)] = entry.items()
            assert name.startswith("results/") == (options.get("cache") is False), name


def test_parameters_that_stages_depend_on_exist():
    params = yaml.load(ROOT / "params.yaml")
    for stage, definition in stage_definitions().items():
        for key in definition["params"]:
            place = params
            for part in key.replace("${key}", "model_1").replace("${tune.base}", params["tune"]["base"]).split("."):
                assert part in place, f"{stage}: {key}"
                place = place[part]


def test_every_section_of_the_parameters_has_a_stage():
    used = {key.split(".")[0] for definition in stage_definitions().values() for key in definition["params"]}
    assert used == set(yaml.load(ROOT / "params.yaml"))


def test_light_modules_leave_tensorflow_unloaded():
    code = (
        f"import {', '.join(f'pipeline.{name}' for name in LIGHT)}, models.spec, models.layers, sys\n"
        "print([name for name in ('tensorflow', 'keras', 'mlflow', 'keras_tuner') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_importing_changes_nothing(tmp_path: Path):
    """Imported a second time, so that what other libraries do when they are first imported does not count."""
    code = (
        "import importlib, random, sys\n"
        "import mlflow, numpy\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        f"ours = {sorted(module for module in MODULES if '__init__' not in module)}\n"
        "for name in ours: importlib.import_module(name)\n"
        "random.random(), numpy.random.random()\n"
        "before = random.getstate(), numpy.random.get_state()[1].tolist(), mlflow.get_tracking_uri()\n"
        "for name in ours: del sys.modules[name]\n"
        "for name in ours: importlib.import_module(name)\n"
        "after = random.getstate(), numpy.random.get_state()[1].tolist(), mlflow.get_tracking_uri()\n"
        "assert after == before\n"
        "assert mlflow.active_run() is None"
    )
    done = subprocess.run([sys.executable, "-B", "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("stage", STAGES)
def test_help_says_what_a_stage_does(stage: str):
    command = [sys.executable, "-m", f"pipeline.{stage}", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert f"python -m pipeline.{stage}" in done.stdout
    assert done.stdout.startswith("usage: ")


def test_the_readme_shows_the_results_of_the_committed_run(tmp_path: Path):
    project = Project(tmp_path)
    project.paths.report.parent.mkdir(parents=True)
    for file in ("README.md", "results/report.md"):
        shutil.copy(ROOT / file, tmp_path / file)
    readme.write(project.paths)
    written, committed = ((root / "README.md").read_text(encoding="utf-8") for root in (tmp_path, ROOT))
    assert written == committed, "run `make readme`"


def test_the_committed_results_are_those_of_the_committed_parameters():
    lock = yaml.load(ROOT / "dvc.lock")["stages"]
    params = yaml.load(ROOT / "params.yaml")
    assert set(lock) == {
        "download",
        "validate",
        "tune",
        "replicate",
        "evaluate",
        *(f"train@{name}" for name in params["models"]),
    }
    assert lock["tune"]["params"]["params.yaml"]["tune"] == params["tune"]
    assert lock["evaluate"]["params"]["params.yaml"]["models"] == params["models"]
    assert lock["train@model_1"]["params"]["params.yaml"]["fit"] == params["fit"]


def test_what_the_readme_names_exists():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    linked = re.findall(r"\]\(((?!http)[^)#]+)\)", readme) + re.findall(r'src="((?!http)[^"]+)"', readme)
    assert linked
    for target in linked:
        assert (ROOT / target).exists(), target
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"\bmake ([a-z]+)\b", readme)):
        assert f"\n{target}:" in makefile, target
    for module in set(re.findall(r"python -m ((?:pipeline|models)\.\w+)", readme)):
        assert module in MODULES, module


def test_no_commit_of_data_and_no_host_of_a_package_registry():
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert not [name for name in files if name.startswith(("data/raw", "data/validated", "artifacts", "mlflow.db"))]
    for name in ("requirements.txt", "requirements-dev.txt", "requirements-gpu.txt", "requirements-bench.txt"):
        text = (ROOT / name).read_text(encoding="utf-8")
        assert "://" not in text
        assert "--hash=sha256:" in text
