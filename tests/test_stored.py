"""The result of a fit is used again where the same fit is asked for twice."""

from pathlib import Path

import pytest

from pipeline.core import config, records
from pipeline.core.command import Stopwatch
from pipeline.engine import engine
from pipeline.train import fit as fitting
from pipeline.train.train import Trainer, train_network

from .conftest import Here, Project
from .test_tracking import stored


def files(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in ("model.keras", "history.csv")}


def test_the_same_fit_runs_once(
    copy_of_validated: Project, no_store: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    project = copy_of_validated
    tiny = {"blocks": [{"filters": [2]}], "fit": {"epochs": 2}}
    project.change(models={"one": tiny, "two": tiny, "other": tiny | {"fit": {"epochs": 1}}})
    params = config.load(project.paths)
    fits, run = [], fitting.run
    monkeypatch.setattr(fitting, "run", lambda task, *rest: fits.append(task) or run(task, *rest))

    def train(name: str) -> dict[str, bytes]:
        trainer = Trainer.create("train", params, project.paths, Here(params.runtime), Stopwatch())
        engine.complete(train_network(name, params.network(name), trainer))
        return files(project.paths.training(name))

    first = train("one")
    assert train("two") == first
    assert len(fits) == 1
    assert "two: the same fit as one, whose result is used" in capsys.readouterr().out
    one, two = (records.load_training(project.paths, name) for name in ("one", "two"))
    assert two == one.model_copy(update={"name": "two", "run_id": two.run_id, "model_uri": two.model_uri})
    assert one.model_uri != two.model_uri
    runs = {run.info.run_id: run.data for run in stored(project.root)}
    assert runs[two.run_id or ""].tags["same.fit"] == one.run_id
    assert runs[two.run_id or ""].metrics == runs[one.run_id or ""].metrics

    assert train("other") != first
    assert len(fits) == 2
    (project.paths.training("one") / "model.keras").write_bytes(b"damaged")
    (project.paths.training("other") / "record.json").write_text("{}")
    assert train("two") == first
    assert len(fits) == 3
