"""Replicates: the same networks trained with other seeds, each only once."""

from argparse import Namespace
from contextlib import nullcontext
from typing import Any

import pytest

from pipeline.core import records
from pipeline.core.config import TUNED
from pipeline.core.errors import DataError
from pipeline.engine import placement
from pipeline.replicate import __main__ as stage

from .conftest import Here, Project, write_records


@pytest.fixture
def trained(copy_of_validated: Project, no_store: None, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Three networks that look trained: the record of each, which replicates follow. The stage runs in this process."""
    project = copy_of_validated
    monkeypatch.chdir(project.root)
    monkeypatch.setattr(placement, "start", lambda runtime, fits: nullcontext(Here(runtime)))
    tiny = {"blocks": [{"filters": [2]}], "head": {"dense": []}, "fit": {"epochs": 1}}
    project.change(models={"model_1": tiny, "model_2": tiny}, tune={"space": {"blocks": {"dropout": [0.0, 0.1]}}})
    write_records(project)
    return project


def change_record(project: Project, name: str, **values: Any) -> None:
    record = records.load_training(project.paths, name)
    record.model_copy(update=values).write(project.paths.training(name))


def replicates(project: Project) -> set[str]:
    return {f"{path.parent.parent.name} {path.parent.name}" for path in project.paths.replicates.glob("*/*/*.keras")}


def test_one_seed_needs_no_replicates(trained: Project):
    trained.stage("replicate")  # in a process of its own
    assert [path.name for path in trained.paths.replicates.iterdir()] == ["seeds.json"]


def test_replicates_are_trained_once_and_follow_the_parameters(trained: Project, capsys: pytest.CaptureFixture[str]):
    trained.change(evaluate={"seeds": 2})
    stage.run(Namespace())
    output = capsys.readouterr().out
    assert "model_1 seed 43 epoch 1/1" in output
    assert "tuned seed 43: the same fit as model_2, whose result is used" in output
    assert replicates(trained) == {"model_1 43", "model_2 43", "tuned 43"}
    same = [trained.paths.replicate(name, 43) / "model.keras" for name in ("model_2", TUNED)]
    assert same[0].read_bytes() == same[1].read_bytes()

    trained.change(evaluate={"seeds": 3})
    network = records.load_training(trained.paths, "model_2").network
    fit = network.fit.model_copy(update={"learning_rate": 0.01})
    change_record(trained, "model_2", network=network.model_copy(update={"fit": fit}))
    stage.run(Namespace())
    output = capsys.readouterr().out
    assert "model_1 seed 43: already trained" in output
    assert "model_2 seed 43 epoch 1/1" in output
    assert len(replicates(trained)) == 6
    first, second = (trained.paths.replicate("model_1", seed) / "model.keras" for seed in (43, 44))
    assert first.read_bytes() != second.read_bytes()
    loaded = records.load_replicates(trained.paths, "model_1", range(43, 45))
    assert [record.seed for record in loaded.values()] == [43, 44]

    trained.change(evaluate={"seeds": 1})
    stage.run(Namespace())
    assert replicates(trained) == set()


def test_networks_of_other_data_are_refused(trained: Project):
    trained.change(evaluate={"seeds": 2})
    change_record(trained, "model_1", data_digest="other")
    with pytest.raises(DataError, match="model_1: trained on other data than data/validated holds; run `dvc repro`"):
        stage.run(Namespace())
