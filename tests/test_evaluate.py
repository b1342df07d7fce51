"""Evaluation: what it says when something is missing, and the table that it writes."""

import hashlib
import json

import pytest

from pipeline import comparison, evaluate
from pipeline.dataset import Card
from pipeline.errors import DataError

from .conftest import Project

DAMAGED = b"PK\x03\x04 and no more"


def test_a_network_that_was_not_trained_is_named_with_the_way_to_train_it(project: Project):
    with pytest.raises(DataError, match=r"model_1/run\.json: not found; train it first: dvc repro train@model_1"):
        evaluate.trained_run("model_1", project.paths)
    with pytest.raises(DataError, match="dvc repro tune"):
        evaluate.trained_run("tuned", project.paths)


def test_networks_of_other_data_are_not_compared(copy_of_validated: Project):
    project = copy_of_validated
    for name in ("model_1", "model_2", "tuned"):
        project.paths.training(name).mkdir(parents=True)
        (project.paths.training(name) / "run.json").write_text(
            json.dumps({"data": "of another run", "sha256": ""}), encoding="utf-8"
        )
    done = project.stage("evaluate", check=False)
    assert done.returncode == 1
    assert "model_1: trained on other data than data/validated holds; run dvc repro" in done.stderr
    assert not project.paths.metrics.exists()


def test_a_damaged_network_is_named(copy_of_validated: Project):
    project = copy_of_validated
    digest = json.loads((project.paths.validated / "dataset.json").read_text(encoding="utf-8"))["digest"]
    for name in ("model_1", "model_2", "tuned"):
        project.paths.training(name).mkdir(parents=True)
        about = {"data": digest, "sha256": hashlib.sha256(DAMAGED).hexdigest()}
        (project.paths.training(name) / "run.json").write_text(json.dumps(about), encoding="utf-8")
    project.paths.model("model_1").parent.mkdir(parents=True)
    project.paths.model("model_1").write_bytes(DAMAGED)
    done = project.stage("evaluate", check=False)
    assert done.returncode == 1
    assert "model_1.keras: not a readable network" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_table_has_a_row_for_each_network_and_says_what_it_was_measured_on():
    row = {"parameters": 1234, "validation_accuracy": 0.9, "accuracy": 0.8765, "loss": 0.5, "f1": 0.87}
    about = {"name": "some processor, 2 cores", "precision": "float32"}
    card = Card("mnist", (28, 28, 1), ("0", "1"), {"train": 54000, "test": 10000}, "0" * 32)
    table = comparison.results_table({"net": row}, {"net": about}, card)
    assert "| net | 1,234 | 90.00% | 87.65% | 0.5000 | 0.8700 |" in table
    assert "mnist (54,000 train, 10,000 test images); one seed; some processor, 2 cores, float32." in table
