"""The layout: packages, wiring of DVC and MLflow, light commands, and documents that match the code.

Which package may import which is a contract of import-linter in pyproject.toml.
"""

import json
import re
import runpy
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import grimp
import pytest
from ruamel.yaml import YAML

from pipeline.core import config, provenance
from pipeline.core.dataset import SPLITS
from pipeline.core.paths import TUNED, Paths
from pipeline.report import readme

from .conftest import ROOT, Project

STAGES = ("config", "download", "validate", "train", "tune", "replicate", "evaluate", "report")
COMMANDS = (
    *(f"pipeline.{stage}" for stage in STAGES),
    "pipeline.compare",
    "pipeline.predict",
    "pipeline.repro",
    "pipeline.serve",
    "pipeline.export",
)
TYPES_ONLY = {"download", "validate", "report"}  # stages that use `models` for the types of the configuration alone
yaml = YAML(typ="safe", pure=True)
DVC = yaml.load(ROOT / "dvc.yaml")
PROJECT = yaml.load(ROOT / "MLproject")


@cache
def imports() -> grimp.ImportGraph:
    return grimp.build_graph("models", "pipeline", cache_dir=None)


def packages_used_by(stage: str) -> set[str]:
    """The folders that a stage reaches by imports, as dvc.yaml names them."""
    modules = {f"pipeline.{stage}"} | imports().find_descendants(f"pipeline.{stage}")
    for module in list(modules):
        modules |= imports().find_upstream_modules(module)
    return {"/".join(module.split(".")[:2]) if module.startswith("pipeline.") else "models" for module in modules} - {
        "pipeline"
    }


def stage_definitions() -> dict[str, Any]:
    """The stages of dvc.yaml; `train` as it is for each network."""
    return {name: stage.get("do", stage) for name, stage in DVC["stages"].items()}


def names(entries: list[Any]) -> set[str]:
    return {next(iter(entry)) if isinstance(entry, dict) else entry for entry in entries}


def committed(file: str) -> str:
    """A file of the last commit: a run of the pipeline may have replaced that of the working tree."""
    done = subprocess.run(["git", "show", f"HEAD:{file}"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("not in a Git repository")
    return done.stdout


def test_stages_of_dvc_and_mlflow_are_the_same():
    assert tuple(DVC["stages"]) == (*STAGES[:4], "grid", *STAGES[4:])
    assert set(PROJECT["entry_points"]) == {"main", "variant", *STAGES}


def test_import_contracts_hold():
    command = ["lint-imports", "--no-cache", "--config", str(ROOT / "pyproject.toml")]
    done = Project(ROOT).run(*command, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_imports_have_no_cycles():
    modules = [module for module in imports().modules if not imports().find_children(module)]
    cyclic = [
        (module, other)
        for module in modules
        for other in imports().find_modules_directly_imported_by(module)
        if module in imports().find_upstream_modules(other)
    ]
    assert cyclic == []


@pytest.mark.parametrize("stage", STAGES)
def test_stage_depends_on_every_package_that_it_uses(stage: str):
    listed = {name for name in names(stage_definitions()[stage]["deps"]) if name.startswith(("pipeline/", "models"))}
    # MLflow observes, and the engine decides where a fit runs: neither changes an output.
    used = packages_used_by(stage) - {"pipeline/tracking", "pipeline/engine"}
    assert listed == used - ({"models"} if stage in TYPES_ONLY else set())


@pytest.mark.parametrize("stage", provenance.CODE)
def test_digest_of_the_code_covers_the_dependencies_of_the_stage(stage: str):
    listed = {name for name in names(stage_definitions()[stage]["deps"]) if name.startswith(("pipeline/", "models"))}
    assert set(provenance.CODE[stage]) == listed


@pytest.mark.parametrize("stage", STAGES)
def test_stage_runs_its_own_package(stage: str):
    command = f"python -m pipeline.{stage}" + (" ${key}" if stage == "train" else "")
    assert stage_definitions()[stage]["cmd"] == command
    entry = PROJECT["entry_points"][stage]["command"]
    assert entry == f"python -m pipeline.tracking; dvc repro --single-item --force {stage}" + (
        "@{model}" if stage == "train" else ""
    )


def test_grid_is_trained_as_the_networks_of_models_are():
    grid, train = DVC["stages"]["grid"], DVC["stages"]["train"]["do"]
    name = "${grid.base}-${key}"
    assert grid["cmd"] == f"python -m pipeline.train {name}"
    assert grid["outs"] == [str(Paths(Path()).training(name))]
    assert grid["deps"] == [name.replace("${key}", "${grid.base}") for name in train["deps"]]
    assert grid["params"] == [key.replace("${key}", "${grid.base}") for key in train["params"]]


def test_stages_read_and_write_where_the_code_does():
    paths = Paths(Path())
    outs = {
        stage: names([*definition.get("outs", []), *definition.get("metrics", [])])
        for stage, definition in stage_definitions().items()
        if stage in STAGES
    }
    expected = {
        "config": {paths.checked, paths.search_base, paths.network_files},
        "download": {paths.raw("${data.dataset}")},
        "validate": {paths.validated, paths.validation},
        "train": {paths.training("${key}")},
        "tune": {paths.search},
        "replicate": {paths.replicates},
        "evaluate": {paths.evaluation},
    }
    written = outs.pop("report")
    assert outs == {stage: set(map(str, places)) for stage, places in expected.items()}
    assert {Path(name).parent for name in written} == {paths.results}
    deps = {stage: names(definition["deps"]) for stage, definition in stage_definitions().items()}
    assert str(paths.own_networks) in deps["config"]
    assert str(paths.network_files / "${key}") in deps["train"]
    assert str(paths.checked) in deps["download"]  # so wrong parameters are refused before any other stage runs
    assert str(paths.raw("${data.dataset}")) in deps["validate"]
    for stage in ("train", "tune", "replicate"):
        read = {split for split in SPLITS if str(paths.split(split)) in deps[stage]}
        assert read == {"train", "validation"}, "the test images are for evaluation alone"
    trained = {str(paths.trainings), str(paths.search)}
    assert paths.training(TUNED).is_relative_to(paths.search)
    assert str(paths.search_base) in deps["tune"]
    assert {str(paths.split("test")), *trained, str(paths.replicates)} <= deps["evaluate"]
    assert {str(paths.evaluation), *trained} <= deps["report"]


def test_all_stages_but_report_have_cached_outputs_alone():
    for stage, definition in stage_definitions().items():
        for entry in [*definition.get("outs", []), *definition.get("metrics", [])]:
            options = next(iter(entry.values())) if isinstance(entry, dict) else {}
            assert "persist" not in options
            assert options.get("cache", True) or stage == "report"


def test_git_keeps_at_most_a_dozen_small_text_files_of_results():
    kept = [entry for entry in stage_definitions()["report"]["outs"] if isinstance(entry, dict)]
    assert len(kept) + 2 <= 12
    tracked = subprocess.run(["git", "ls-files", "results"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    assert set(tracked) <= names(kept) | {"results/metrics.json", "results/ranking.json"}


def test_parameters_that_stages_depend_on_exist():
    params, catalog = yaml.load(ROOT / "params.yaml"), yaml.load(ROOT / "data" / "catalog.yaml")
    for stage, definition in stage_definitions().items():
        for key in definition.get("params", []):
            if isinstance(key, dict):
                assert key == {"data/catalog.yaml": ["${data.dataset}"]}
                assert params["data"]["dataset"] in catalog
                continue
            value = params
            for part in key.replace("${key}", "model_1").replace("${grid.base}", params["grid"]["base"]).split("."):
                assert part in value, f"{stage}: {key}"
                value = value[part]


def test_every_section_of_the_parameters_has_a_stage():
    keys = [key for definition in stage_definitions().values() for key in definition.get("params", [])]
    assert {key.split(".")[0] for key in keys if isinstance(key, str)} == set(yaml.load(ROOT / "params.yaml"))


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_light_and_describes_the_command(command: str):
    code = (
        f"import runpy, sys; sys.argv = ['it', '--help']; sys.modules.pop('pipeline', None)\n"
        f"try: runpy.run_module({command!r}, run_name='__main__')\n"
        "except SystemExit: pass\n"
        "heavy = {'tensorflow', 'keras', 'mlflow', 'keras_tuner', 'matplotlib', 'scipy.stats', 'sklearn'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert f"python -m {command}" in done.stdout
    assert done.stdout.startswith("usage: ")
    assert done.stdout.splitlines()[-1] == "[]"


def test_importing_changes_nothing(tmp_path: Path):
    """Imported a second time, so that the effects of other libraries' first import do not count."""
    ours = sorted(module for module in imports().modules if not module.endswith("__main__"))
    code = (
        "import importlib, random, sys\n"
        "import mlflow, numpy\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        f"ours = {ours}\n"
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


def test_modules_have_at_most_350_lines():
    sizes = {
        path.relative_to(ROOT).as_posix(): len(path.read_text(encoding="utf-8").splitlines())
        for folder in ("models", "pipeline")
        for path in (ROOT / folder).rglob("*.py")
    }
    assert {name: size for name, size in sizes.items() if size > 350} == {}


def test_readme_shows_the_committed_results(tmp_path: Path):
    project = Project(tmp_path)
    project.paths.results.mkdir()
    for file in ("README.md", "results/report.md"):
        (tmp_path / file).write_text(committed(file), encoding="utf-8")
    readme.write(project.paths)
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == committed("README.md"), "run `make readme`"


def test_pictures_are_of_the_committed_results():
    sources = runpy.run_path(str(ROOT / "docs" / "figures" / "sources.py"))
    recorded = json.loads(committed("docs/images/sources.json"))
    pictures = {path.name for path in (ROOT / "docs" / "images").glob("*.png")}
    assert pictures == set(recorded) == set(sources["SOURCES"])
    for picture in pictures:
        assert recorded[picture] == sources["digests"](picture, committed), f"draw {picture} again"


def test_quoted_search_is_the_committed_one():
    quoted = committed("docs/search_analysis.md").partition("(`results/search.md`):\n")[2].strip().partition("\n\n")[0]
    rows = [line for line in quoted.splitlines() if line.startswith("| `")]
    assert len(rows) > 2
    assert set(rows) <= set(committed("results/search.md").splitlines())


def test_committed_results_are_those_of_the_committed_parameters():
    lock, params = yaml.load(committed("dvc.lock"))["stages"], yaml.load(committed("params.yaml"))
    networks = [f"train@{name}" for name in params["models"]]
    assert set(lock) == {*(stage for stage in STAGES if stage != "train"), *networks}
    assert lock["tune"]["params"]["params.yaml"]["tune"] == params["tune"]
    assert lock["evaluate"]["params"]["params.yaml"]["models"] == params["models"]
    assert lock["train@model_1"]["params"]["params.yaml"]["fit"] == params["fit"]
    assert list(json.loads(committed("results/metrics.json"))) == [*params["models"], config.TUNED]


def test_links_commands_and_targets_of_the_readme_exist():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    linked = re.findall(r"\]\(((?!http)[^)#]+)\)", text) + re.findall(r'src="((?!http)[^"]+)"', text)
    assert linked
    for target in linked:
        assert (ROOT / target).exists(), target
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"\bmake ([a-z]+)\b", text)):
        assert f"\n{target}:" in makefile, target
    for module in set(re.findall(r"python -m ((?:pipeline|models)\.[\w.]+)", text)):
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), module


def test_no_data_and_no_host_of_a_package_registry_is_committed():
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert not [name for name in files if name.startswith(("data/raw", "data/validated", "artifacts", "mlflow.db"))]
    for name in ("requirements.txt", "requirements-dev.txt", "requirements-gpu.txt", "requirements-bench.txt"):
        text = (ROOT / name).read_text(encoding="utf-8")
        assert "://" not in text
        assert "--hash=sha256:" in text
