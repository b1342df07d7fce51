"""Atomic writes: what a killed process leaves is cleared up, and the old content restored."""

from pathlib import Path

import pytest

from pipeline.core import atomic


def test_a_kill_between_the_two_renames_loses_nothing(tmp_path: Path):
    """The old folder was moved away, and the new one is not in place: the next write restores the old one."""
    target, scratch = tmp_path / "validated", tmp_path / ".validated-killed__"
    (scratch / "old").mkdir(parents=True)
    (scratch / "old" / "images.npy").write_bytes(b"old")
    with pytest.raises(RuntimeError), atomic.folder(target):
        raise RuntimeError
    assert (target / "images.npy").read_bytes() == b"old"
    assert not scratch.exists()


def test_the_scratch_folder_of_another_target_is_kept(tmp_path: Path):
    """The name of one target may begin with that of another."""
    other = tmp_path / ".model-big-killed__" / "old"
    other.mkdir(parents=True)
    with pytest.raises(RuntimeError), atomic.folder(tmp_path / "model"):
        raise RuntimeError
    assert other.is_dir()
    assert not (tmp_path / "model").exists()
