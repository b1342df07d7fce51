"""Files that cannot be written: outputs stop a training before the fit, checkpoints do not stop it at all."""

import errno
import tempfile
from pathlib import Path

import pytest

from pipeline.core import atomic, config
from pipeline.core.command import Stopwatch
from pipeline.core.errors import DataError
from pipeline.engine import engine
from pipeline.train import callbacks
from pipeline.train import fit as fitting
from pipeline.train.train import Trainer, train_network

from .conftest import Here, Project
from .test_fit import fitted


def refuse(monkeypatch: pytest.MonkeyPatch, folder: Path, number: int = errno.EACCES) -> None:
    """Let nothing be written below a folder. Permissions would not stop a test that runs as root."""
    make = tempfile.mkdtemp

    def mkdtemp(*args, **options):
        if Path(options["dir"]).is_relative_to(folder):
            raise OSError(number, "refused")
        return make(*args, **options)

    monkeypatch.setattr(tempfile, "mkdtemp", mkdtemp)


def test_an_output_that_cannot_be_written_is_named_before_the_fit(
    copy_of_validated: Project, no_store: None, monkeypatch: pytest.MonkeyPatch
):
    project = copy_of_validated
    params = config.load(project.paths)
    trainer = Trainer.create("train", params, project.paths, Here(params.runtime), Stopwatch())
    refuse(monkeypatch, project.paths.trainings)
    monkeypatch.setattr(fitting, "fit", lambda *_: pytest.fail("the fit began"))
    with pytest.raises(DataError, match=r"artifacts/train/.*: cannot be written: Permission denied"):
        engine.complete(train_network("model_1", params.network("model_1"), trainer))
    assert not (project.root / "mlflow.db").exists(), "no run was opened"


def test_probing_leaves_nothing_behind(tmp_path: Path):
    (tmp_path / "model.keras").write_bytes(b"old")
    atomic.require_writable(tmp_path / "model.keras", tmp_path / "train" / "record.json")
    assert {path.name for path in tmp_path.rglob("*")} == {"model.keras", "train"}
    assert (tmp_path / "model.keras").read_bytes() == b"old"


def test_a_checkpoint_that_cannot_be_written_is_one_warning(
    validated: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(callbacks, "CHECKPOINT_INTERVAL", 0.0)
    expected = fitted(validated)
    refuse(monkeypatch, tmp_path, errno.ENOSPC)
    found = fitted(validated, checkpoint=tmp_path / "state.npz")
    assert found.history == expected.history
    output = capsys.readouterr().err
    assert output.count("warning: ") == 1
    assert f"{tmp_path / 'state.npz'}: cannot be written: No space left on device" in output
