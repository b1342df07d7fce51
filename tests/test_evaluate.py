"""Evaluation: errors where something is missing, and the tables of all networks."""

import hashlib
import json

import pandas as pd
import pytest

from pipeline.core import config, records
from pipeline.core.command import Stopwatch
from pipeline.core.errors import DataError
from pipeline.core.records import write_no_search
from pipeline.engine import engine
from pipeline.evaluate import tables
from pipeline.evaluate.evaluate import evaluate
from pipeline.runtime import saved_model
from pipeline.train.train import Trainer, train_network

from .conftest import Here, Project, write_records, yaml

DAMAGED = b"PK\x03\x04 and no more"


def test_error_for_an_untrained_network_names_the_command_to_run(project: Project):
    with pytest.raises(DataError, match=r"model_1/record\.json: not found; run `dvc repro` first"):
        records.load_training(project.paths, "model_1")
    with pytest.raises(DataError, match=r"tuned/record\.json: not found"):
        records.load_training(project.paths, "tuned")
    with pytest.raises(DataError, match=r"net/43/record\.json: not found; run `dvc repro` first"):
        records.load_replicates(project.paths, "net", range(43, 44))


def test_damaged_record_is_refused(copy_of_validated: Project):
    write_records(copy_of_validated, sha256=hashlib.sha256(DAMAGED).hexdigest())
    path = copy_of_validated.paths.training("model_1") / "record.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"sha256"', '"sha1"'), encoding="utf-8")
    with pytest.raises(DataError, match=r"record\.json: damaged or of another version \(sha256\)"):
        records.load_training(copy_of_validated.paths, "model_1")


def test_networks_of_other_data_are_not_compared(copy_of_validated: Project):
    write_records(copy_of_validated, data_digest="another")
    done = copy_of_validated.stage("evaluate", check=False)
    assert done.returncode == 1
    assert "error: model_1: trained on other data than data/validated holds; run `dvc repro`" in done.stderr
    assert not copy_of_validated.paths.evaluation.exists()


def test_damaged_network_is_refused(copy_of_validated: Project):
    write_records(copy_of_validated, sha256=hashlib.sha256(DAMAGED).hexdigest())
    copy_of_validated.paths.model("model_1").write_bytes(DAMAGED)
    done = copy_of_validated.stage("evaluate", check=False)
    assert done.returncode == 1
    assert "model_1/model.keras: not a readable network" in done.stderr
    assert "Traceback" not in done.stderr


def test_equal_networks_are_measured_once(copy_of_validated: Project, no_store: None, monkeypatch: pytest.MonkeyPatch):
    project, fit = copy_of_validated, {"epochs": 1}
    tiny = {"blocks": [{"filters": [2]}]}
    networks = {"one": tiny, "other": {"blocks": [{"filters": [3]}]}, "two": tiny}
    params = {**project.params(), "models": {name: block | {"fit": fit} for name, block in networks.items()}}
    yaml.dump(params | {"tune": None, "grid": params["grid"] | {"base": "one"}}, project.paths.params)
    params = config.load(project.paths)
    here, stopwatch = Here(params.runtime), Stopwatch()
    trainer = Trainer.create("train", params, project.paths, here, stopwatch)
    for name in networks:
        engine.complete(train_network(name, params.network(name), trainer))
    write_no_search(project.paths)
    loaded, load = [], saved_model.load
    monkeypatch.setattr(saved_model, "load", lambda *arguments: loaded.append(arguments) or load(*arguments))
    evaluate(params, project.paths, here.device, stopwatch)
    assert len(loaded) == 2
    found = json.loads((project.paths.evaluation / "metrics.json").read_text(encoding="utf-8"))
    own = ("summary", "run_id")
    one, other, two = ({key: value for key, value in found[name].items() if key not in own} for name in networks)
    assert one == two != other
    for table in ("corruption", "shift", "out_of_distribution", "per_class"):
        rows = pd.read_csv(project.paths.evaluation / f"{table}.csv")
        first, second = (rows[rows["model"] == name].drop(columns="model") for name in ("one", "two"))
        assert first.to_csv(index=False) == second.to_csv(index=False) != ""


def test_tables_of_networks_are_stacked_in_order():
    stacked = tables.stacked({"b": pd.DataFrame({"x": [1, 2]}), "a": pd.DataFrame({"x": [3]})})
    assert stacked.to_dict("list") == {"model": ["b", "b", "a"], "x": [1, 2, 3]}


def test_accuracy_over_seeds():
    scores = pd.DataFrame(
        {"model": ["net"] * 3 + ["other"] * 3, "seed": [1, 2, 3] * 2, "accuracy": [0.9, 0.92, 0.94, 0.8, 0.8, 0.83]}
    )
    summary = tables.over_seeds(scores)
    assert summary["model"].tolist() == ["net", "other"]
    assert summary["seeds"].tolist() == [3, 3]
    assert (summary["mean"][0], summary["std"][0]) == (pytest.approx(0.92), pytest.approx(0.02))


def test_metrics_of_a_network_begin_with_its_summary(copy_of_validated: Project):
    write_records(copy_of_validated, run_id="1")
    record = records.load_training(copy_of_validated.paths, "model_1")
    [found] = tables.complete({"model_1": {"accuracy": 0.5}}, {"model_1": record}).values()
    assert [*found.items()][:2] == [("summary", "pooling max·max → flatten | dropout 0·0·0"), ("accuracy", 0.5)]
    assert (found["parameters"], found["run_id"]) == (1, "1")


def test_confusion_has_a_row_for_each_pair_of_classes():
    pairs = tables.confusion_pairs(pd.DataFrame({"actual": ["a", "b"], "a": [3, 1], "b": [0, 2]}))
    assert pairs.to_numpy().tolist() == [["a", "a", 3], ["a", "b", 0], ["b", "a", 1], ["b", "b", 2]]
    assert list(pairs.columns) == ["actual", "predicted", "count"]


def test_metrics_of_the_tables_of_all_networks():
    found = {
        "corruption_summary": pd.DataFrame({"model": ["a", "b"], "mean_error": [0.2, 0.3], "mce": [1.0, float("nan")]}),
        "shift": pd.DataFrame({"model": ["a", "b"], "shift": [1, 1], "consistency": [0.5, 0.75]}),
        "out_of_distribution": pd.DataFrame({"model": ["a", "b"], "against": ["blank"] * 2, "auroc": [0.875, 1.0]}),
    }
    assert tables.table_metrics(found, "b") == {"corruption_error": 0.3, "consistency_1px": 0.75, "auroc_blank": 1.0}
    found["replicates"] = pd.DataFrame({"model": ["a", "b"], "seeds": [2, 2], "mean": [0.9, 0.8], "std": [0.01, 0.02]})
    expected = {"corruption_error": 0.2, "corruption_mce": 1.0, "consistency_1px": 0.5, "auroc_blank": 0.875}
    assert tables.table_metrics(found, "a") == expected | {"accuracy_mean": 0.9, "accuracy_std": 0.01}
