"""Evaluation: what it says when something is missing, and the table that it writes."""

import hashlib
import json

import pandas as pd
import pytest

from pipeline import comparison, trained
from pipeline.dataset import Card
from pipeline.errors import DataError

from .conftest import Project

DAMAGED = b"PK\x03\x04 and no more"


def test_a_network_that_was_not_trained_is_named_with_the_way_to_train_it(project: Project):
    with pytest.raises(DataError, match=r"model_1/run\.json: not found; train it first: dvc repro train@model_1"):
        trained.load(project.paths, "model_1")
    with pytest.raises(DataError, match="dvc repro tune"):
        trained.load(project.paths, "tuned")


def test_networks_of_other_data_are_not_compared(copy_of_validated: Project):
    project = copy_of_validated
    for name in ("model_1", "model_2", "tuned"):
        project.paths.training(name).mkdir(parents=True)
        (project.paths.training(name) / "run.json").write_text(
            json.dumps({"model": name, "data": "of another run", "sha256": ""}), encoding="utf-8"
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
        about = {"model": name, "data": digest, "sha256": hashlib.sha256(DAMAGED).hexdigest()}
        (project.paths.training(name) / "run.json").write_text(json.dumps(about), encoding="utf-8")
    project.paths.model("model_1").parent.mkdir(parents=True)
    project.paths.model("model_1").write_bytes(DAMAGED)
    done = project.stage("evaluate", check=False)
    assert done.returncode == 1
    assert "model_1.keras: not a readable network" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_report_has_a_row_for_each_network_a_sentence_for_each_pair_and_what_it_was_measured_on():
    row = {"parameters": 1234, "validation_accuracy": 0.9, "accuracy": 0.8765, "loss": 0.5, "f1": 0.87}
    row |= {"accuracy_low": 0.8699, "accuracy_high": 0.8828, "ece": 0.0123}
    about = {"name": "some processor, 2 cores", "precision": "float32"}
    card = Card("mnist", (28, 28, 1), ("0", "1"), {"train": 54000, "test": 10000}, "0" * 32)
    sentences = pd.DataFrame({"sentence": ["net is better than other"]})
    text = comparison.report({"net": row}, sentences, {"net": about}, card)
    assert "| net | 1,234 | 90.00% | 87.65% (86.99 to 88.28) | 0.5000 | 0.8700 | 1.23% |" in text
    assert "mnist (54,000 train, 10,000 test images); one seed; some processor, 2 cores, float32." in text
    assert "- net is better than other.\n" in text


def test_tables_of_networks_are_stacked_in_order():
    tables = {"b": pd.DataFrame({"x": [1, 2]}), "a": pd.DataFrame({"x": [3]})}
    assert comparison.stacked(tables).to_dict("list") == {"model": ["b", "b", "a"], "x": [1, 2, 3]}


def test_several_seeds_are_summed_up():
    scores = pd.DataFrame(
        {"model": ["net"] * 3 + ["other"] * 3, "seed": [1, 2, 3] * 2, "accuracy": [0.9, 0.92, 0.94, 0.8, 0.8, 0.83]}
    )
    summary = comparison.over_seeds(scores)
    assert summary["model"].tolist() == ["net", "other"]
    assert summary["seeds"].tolist() == [3, 3]
    assert (summary["mean"][0], summary["deviation"][0]) == (pytest.approx(0.92), pytest.approx(0.02))
    text = comparison.seeds_section(summary, pd.DataFrame({"sentence": ["net is better"]}))
    assert "| net | 3 | 92.00% | 2.00 |\n" in text
    assert text.endswith("- net is better.\n")


def test_a_replicate_that_is_missing_is_named_with_the_way_to_train_it(project: Project):
    with pytest.raises(DataError, match=r"net/43/run\.json: not found; train it first: dvc repro replicate"):
        trained.load_replicates(project.paths, "net", range(43, 44))
