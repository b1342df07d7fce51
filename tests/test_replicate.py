"""Replicates: other seeds of the same networks, trained once."""

import json

import pytest

from pipeline import config, dataset, replicate
from pipeline.config import TUNED

from .conftest import Project


@pytest.fixture
def trained(copy_of_validated: Project) -> Project:
    """Three networks that look trained: the run.json of each, which is what replicates go by."""
    project = copy_of_validated
    tiny = {"blocks": [{"filters": [2]}], "head": {"dense": []}, "fit": {"epochs": 1}}
    project.change(models={"model_1": tiny, "model_2": tiny}, tune={"space": {"blocks": {"dropout": [0.0, 0.1]}}})
    params = config.load(project.paths)
    about = {"run_id": None, "data": dataset.load_card(project.paths).digest, "sha256": ""}
    for name in ("model_1", "model_2", TUNED):
        folder = project.paths.training(name)
        folder.mkdir(parents=True)
        network = params.models.get(name, params.base).model_dump(mode="json")
        (folder / "run.json").write_text(json.dumps(about | {"model": name, "network": network}), encoding="utf-8")
    return project


def seeds(project: Project) -> set[str]:
    return {f"{path.parent.parent.name} {path.parent.name}" for path in project.paths.replicates.glob("*/*/*.keras")}


def test_one_seed_needs_no_replicates(trained: Project):
    replicate.replicate(trained.paths)
    assert list(trained.paths.replicates.iterdir()) == []


def test_replicates_are_trained_once_and_follow_the_parameters(trained: Project):
    trained.change(evaluate={"seeds": 2})
    said = trained.stage("replicate").stdout
    assert "model_1 seed 43 epoch 1/1" in said
    assert seeds(trained) == {"model_1 43", "model_2 43", "tuned 43"}
    same = [trained.paths.replicate(name, 43) / "model.keras" for name in ("model_2", TUNED)]
    assert same[0].read_bytes() == same[1].read_bytes()

    trained.change(evaluate={"seeds": 3})
    about = json.loads((trained.paths.training("model_2") / "run.json").read_text(encoding="utf-8"))
    about["network"]["fit"]["learning_rate"] = 0.01
    (trained.paths.training("model_2") / "run.json").write_text(json.dumps(about), encoding="utf-8")
    said = trained.stage("replicate").stdout
    assert "model_1 seed 43: trained already" in said
    assert "model_2 seed 43 epoch 1/1" in said
    assert len(seeds(trained)) == 6
    first, second = (trained.paths.replicate("model_1", seed) / "model.keras" for seed in (43, 44))
    assert first.read_bytes() != second.read_bytes()

    trained.change(evaluate={"seeds": 1})
    replicate.replicate(trained.paths)
    assert list(trained.paths.replicates.iterdir()) == []


def test_networks_of_other_data_get_no_replicates(trained: Project):
    trained.change(evaluate={"seeds": 2})
    path = trained.paths.training("model_1") / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | {"data": "other"}), encoding="utf-8")
    done = trained.stage("replicate", check=False)
    assert done.returncode == 1
    assert "model_1: trained on other data than data/validated holds; run dvc repro" in done.stderr
