"""Provenance: the Git commit, and why it may be unknown."""

from pathlib import Path

import pytest

from pipeline.core import provenance

from .conftest import Project


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    project = Project(tmp_path)
    (tmp_path / "params.yaml").write_text("seed: 0\n")
    project.run("git", "init", "--quiet")
    project.run("git", "config", "user.name", "Test")
    project.run("git", "config", "user.email", "test@example.org")
    project.commit("First")
    return tmp_path


def test_commit_and_changes(repository: Path):
    found = provenance.origin(repository, "train")
    assert found.commit
    assert len(found.commit) == 40
    assert found.changed is False
    (repository / "params.yaml").write_text("seed: 1\n")
    assert provenance.origin(repository, "train").changed is True


def test_repository_of_another_user_is_named_once(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    origins = [provenance.origin(repository, "train") for _ in range(2)]
    assert [origin.commit for origin in origins] == [None, None]
    output = capsys.readouterr().err
    assert output.count("the Git commit is not recorded") == 1
    assert f"git config --global --add safe.directory {repository}" in output


def test_no_repository_is_no_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert provenance.origin(tmp_path, "train").commit is None
    assert not capsys.readouterr().err
