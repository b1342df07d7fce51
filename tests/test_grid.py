"""The grid of params.yaml: its networks, its stages in DVC, and what is refused; `tune: null`."""

import pytest

from pipeline.core import config, records
from pipeline.core.config import TUNED, Params
from pipeline.core.errors import ConfigError
from pipeline.core.summary import summary

from .conftest import Project


def grid(project: Project, pooling: list, dropout: list, base: str = "model_2") -> Params:
    project.change(grid={"base": base, "pooling": pooling, "dropout": dropout})
    return config.load(project.paths)


def test_networks_of_the_grid(project: Project):
    blocks = [{"filters": [8]}, {"filters": [8], "pooling": {"kind": "none"}, "dropout": 0.1}]
    project.change(models={"own": {"blocks": blocks, "fit": {"epochs": 3}}})
    params = grid(project, ["lp", "base"], [0, 0.5], "own")
    found = {name: summary(network) for name, network in params.networks.items() if name not in params.models}
    assert found == {
        "own-lp-0": "pooling lp·none → flatten | dropout 0·0·0",
        "own-lp-0.5": "pooling lp·none → flatten | dropout 0·0.5·0",
        "own-base-0": "pooling max·none → flatten | dropout 0·0·0",
        "own-base-0.5": "pooling max·none → flatten | dropout 0·0.5·0",
    }
    assert params.trained == ["model_1", "model_2", "own", *found, TUNED]
    assert [params.base_of(name) for name in ("own", "own-lp-0", TUNED)] == [None, "own", "model_2"]
    assert params.networks["own-lp-0"].fit.epochs == 3


def test_rate_goes_to_every_block_of_a_base_without_dropout(project: Project):
    networks = grid(project, ["base"], ["base", 0.5], "model_1").networks
    assert networks["model_1-base-base"] == networks["model_1"]
    assert summary(networks["model_1-base-0.5"]) == "pooling max·max → flatten | dropout 0.5·0.5·0"


def test_stages_of_dvc_are_the_networks(project: Project):
    params = grid(project, ["max", "fractional_max", "base"], [0, 0.0625, 0.5, "base"])
    project.run("git", "init", "--quiet")
    names = project.run("dvc", "stage", "list", "--name-only").stdout.split()
    found = [name for name in names if name.startswith(("train@", "grid@"))]
    expected = [f"train@{name}" for name in params.models]
    expected += [f"grid@{name.removeprefix('model_2-')}" for name in params.networks if name not in params.models]
    assert found == expected


@pytest.mark.parametrize(
    ("pooling", "dropout", "base", "error"),
    [
        (["max"], [], "model_2", "grid: dropout is empty and pooling is not; list [base] to keep"),
        (["max", "median"], [0.5], "model_2", 'grid.pooling.1: found "median"'),
        (["max"], [1.5], "model_2", "grid.dropout.0: found 1.5"),
        (["max"], [0.5, 0.5], "model_2", "grid.dropout: a value is listed twice"),
        (["max"], [0.5], "model_3", 'grid.base: found "model_3"'),
        (["max"], [0.5], "deep", "grid: deep-max-0.5: "),
        (["blur"], [0], "deep", "grid: a network of `models` is named Deep-Blur-0; rename it"),
    ],
)
def test_errors_name_the_key(project: Project, pooling: list, dropout: list, base: str, error: str):
    shrinking = {"filters": [4], "pooling": {"kind": "fractional_max", "ratio": 1.1}}  # less than max pooling
    project.change(models={"deep": {"blocks": [shrinking] * 6}, "Deep-Blur-0": {"blocks": []}})
    with pytest.raises(ConfigError) as raised:
        grid(project, pooling, dropout, base)
    assert f"params.yaml: {error}" in str(raised.value)


def test_no_search(copy_of_validated: Project):
    project = copy_of_validated
    project.change(tune=None)
    params = config.load(project.paths)
    assert params.trained == ["model_1", "model_2"]
    for stage in ("config", "tune"):
        project.stage(stage)
    assert records.load_search(project.paths) is None
    with pytest.raises(ConfigError, match="tune: found null, so there is no search"):
        _ = params.search
