"""A network in one line."""

from typing import Any

import pytest

from models.spec import Pooling
from pipeline.core import config, search_space
from pipeline.core.config import NetworkConfig
from pipeline.core.paths import Paths
from pipeline.core.summary import differences, factors, summary

from .conftest import ROOT

PARAMS = config.load(Paths(ROOT))
MODEL_2: Any = PARAMS.network("model_2")


def test_the_summary_has_pooling_and_dropout_of_every_place():
    assert summary(PARAMS.network("model_1")) == "pooling max·max → flatten | dropout 0·0·0"
    assert summary(MODEL_2) == "pooling max·max·max → flatten | dropout 0·0.3·0.4·0.25"
    assert summary(NetworkConfig(fit=PARAMS.fit)) == "pooling flatten | dropout 0"
    other = MODEL_2.model_copy(
        update={
            "blocks": tuple(
                block.model_copy(update={"pooling": pooling})
                for block, pooling in zip(
                    MODEL_2.blocks,
                    [Pooling(kind="lp", p=4.0), Pooling(kind="average", window=3, stride=2), Pooling(kind="none")],
                    strict=True,
                )
            )
        }
    )
    assert summary(other) == "pooling lp p 4·average 3 stride 2·none → flatten | dropout 0·0.3·0.4·0.25"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, ""),
        ({"blocks.1.dropout": 0.5}, "dropout 0.5 in block 2"),
        ({"blocks.1.dropout": 0.2, "blocks.2.dropout": 0.2, "head.dropout": 0.2}, "dropout 0.2"),
        ({"blocks.1.dropout": 0.1, "blocks.2.dropout": 0.2}, "dropout 0·0.1·0.2·0.25"),
        ({f"blocks.{number}.pooling.kind": "gem" for number in range(3)}, "pooling gem"),
        ({"blocks.0.pooling.window": 3}, "window 3 in block 1"),
        ({"fit.epochs": 3, "fit.ema": 0.99}, "epochs 3, ema 0.99"),
        ({"fit.augmentation.rotation": 10.0}, "augmentation rotation 10"),
        ({"blocks.0.kernel_size": [3, 5]}, "kernel size 3x5 in block 1"),
        (
            {"blocks.0.normalization": {"kind": "group", "groups": 8, "place": "convolution"}},
            "normalization group 8 per convolution",
        ),
        ({"head.dense.0": 64, "head.batch_norm": False}, "head batch normalization no, dense 64"),
    ],
)
def test_differences_name_the_factors_and_the_new_levels(change: dict[str, Any], expected: str):
    network = config.network_from(search_space.apply(MODEL_2.model_dump(mode="json"), change))
    assert differences(network, MODEL_2) == expected


def test_networks_with_other_numbers_of_blocks_are_compared_by_factor():
    found = differences(PARAMS.network("model_1"), MODEL_2)
    assert found.startswith("dropout 0, filters 32·64, activation linear·relu")
    assert "pooling" not in found


def test_factors_have_one_level_where_the_blocks_agree():
    found = factors(MODEL_2)
    assert list(found)[:4] == ["pooling", "window", "dropout", "head"]
    assert (found["pooling"], found["filters"], found["batch normalization"]) == ("max", "32·64·128+128", "no·yes·no")
    assert found["p"] == found["pooling stride"] == ""
