"""The command pipeline.describe: table, warnings, speed and errors."""

import json
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from ruamel.yaml import YAML

from models import architecture
from models.spec import Network
from pipeline.core import config
from pipeline.core.errors import ConfigError
from pipeline.core.paths import Paths
from pipeline.describe import describe, drawing

ROOT = Path(__file__).parents[1]
YAML_READER = YAML(typ="safe", pure=True)


def network(**settings: object) -> Network:
    return Network.model_validate_json(json.dumps(settings))


def warnings(image: tuple[int, int, int] = (28, 28, 1), **settings: object) -> list[str]:
    described = network(**settings)
    return list(describe.warnings(described, architecture.trace(described, image, 10), image, 10))


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pipeline.describe", *arguments], cwd=ROOT, capture_output=True, text=True
    )


def test_table_of_the_tiny_cnn() -> None:
    done = run("tiny_cnn", "--image", "32x32x3")
    assert done.returncode == 0, done.stderr
    rows = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert rows[:-1] == [
        "layer output parameters share multiply-adds share receptive field",
        "image 32x32x3",
        "block1_conv1 32x32x16 448 0.2% 442,368 23.5% 3x3",
        "block1_pool 16x16x16 0 0 4x4",
        "block2_conv1 16x16x32 4,640 1.7% 1,179,648 62.6% 8x8",
        "block2_pool 8x8x32 0 0 10x10",
        "head_flatten 2048 0 0 10x10",
        "head_dense1 128 262,272 97.6% 262,144 13.9% 32x32",
        "output 10 1,290 0.5% 1,280 0.1% 32x32",
        "total 268,650 1,885,440",
    ]
    assert rows[-1].startswith("warning: dense layers hold 98% of the parameters")


def test_image_size_and_classes_default_to_those_of_the_dataset() -> None:
    assert "image 28x28x1" in " ".join(run("model_2").stdout.split())
    assert "total (2,432 not trainable) 840,586 15,271,424" in " ".join(run("model_2").stdout.split())
    assert "output 100" in " ".join(run("model_2", "--classes", "100").stdout.split())


def test_takes_less_than_a_second_without_tensorflow() -> None:
    code = (
        "import sys; sys.argv[1:] = ['model_2']; from pipeline.describe.__main__ import main; main(); "
        "print({'tensorflow', 'keras'} & set(sys.modules))"
    )
    best = float("inf")
    for _ in range(3):  # best of three: the machine may be busy
        began = sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
        best = min(best, sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2]) - began)
        assert done.stdout.endswith("set()\n")
    assert best < 1  # of processor time


def test_empty_output_is_an_error_with_its_key_below_the_previous_layers() -> None:
    done = run("model_2", "--image", "7x7x1")
    assert done.returncode == 1
    assert "block3_conv2" in done.stdout
    assert "total up to here" in done.stdout
    assert done.stderr == (
        "error: params.yaml: models.model_2.blocks.2.pooling.window: found 2; too large for 1x1 feature maps; "
        "allowed: a window of at most 1, padding: same, or kind: none\n"
    )


def test_unknown_network_is_an_error_that_lists_the_known_ones() -> None:
    done = run("model_3")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(
        "error: models.model_3: there is no such network; did you mean model_2?; allowed: dense_baseline, converted_cnn"
    )


MISTAKES = [
    ({"blocks": [{"filters": [0]}]}, "blocks.0.filters.0: found 0; allowed: greater than or equal to 1"),
    ({"blocks": [{"filters": [4], "activation": "swish"}]}, "found \"swish\"; did you mean silu?; allowed: 'linear'"),
    ({"blocks": [{"filters": [4], "kernel": 3}]}, "blocks.0.kernel: unknown key; did you mean kernel_size?"),
    ({"blocks": [{"filters": [4], "pooling": {"kind": "avg"}}]}, 'kind: found "avg"; did you mean average?'),
    ({"blocks": [{"filters": [4], "kernel_size": [3, 3, 3]}]}, "kernel_size: found [3, 3, 3]; allowed: 1 to 64, or a"),
    ({"blocks": [{"filters": [4, 4], "activation": ["relu", "Elu"]}]}, 'activation.1: found "Elu"; did you mean elu?'),
    ({"blocks": [{"filters": [4], "padding": [1]}]}, "padding: found [1]; allowed: same, valid, 0 to 64 zeros on each"),
    ({"blocks": [{"filters": [4], "normalization": {"kind": "grup"}}]}, "did you mean group?"),
    ({"blocks": [{"filters": [4], "groups": 3}]}, "blocks.0.groups: found 3; allowed: divisors of the 1 channels"),
    ({"fit": {"epoch": 3}}, "fit.epoch: unknown key; did you mean epochs?"),
    ({"fit": {"batch_size": 0}}, "fit.batch_size: found 0; allowed: greater than or equal to 1"),
]


@pytest.mark.parametrize(("block", "message"), MISTAKES)
def test_describe_refuses_what_the_configuration_refuses_in_the_same_words(
    block: dict, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = YAML_READER.load(ROOT / "params.yaml")
    raw["models"] |= {"mine": block, "con": {"blocks": 1}}  # the errors of other networks are left out
    (tmp_path / "data").mkdir()
    shutil.copy(ROOT / "data" / "catalog.yaml", tmp_path / "data")
    (tmp_path / "params.yaml").write_text(json.dumps(raw))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as described:
        describe.describe("mine", None, None)
    assert str(described.value).startswith("params.yaml: models.mine.")
    assert message in str(described.value)
    del raw["models"]["con"]
    (tmp_path / "params.yaml").write_text(json.dumps(raw))
    with pytest.raises(ConfigError) as configured:
        config.load(Paths(tmp_path))
    assert str(described.value) == str(configured.value)


def test_a_name_that_the_configuration_refuses_is_refused() -> None:
    params = describe.alone("con", {}, YAML_READER.load(ROOT / "params.yaml"))
    with pytest.raises(ConfigError, match=r"models\.con: Windows allows no file of this name"):
        config.check(params, config.load_catalog(Paths(ROOT)), None)


def test_drawing_in_the_documentation_is_that_of_the_command() -> None:
    drawn = run("model_2", "--draw").stdout
    assert f"```mermaid\n{drawn}```" in (ROOT / "docs" / "networks.md").read_text()


def test_drawing_of_a_residual_network() -> None:
    block = {"filters": [4], "stride": 2, "residual": True, "squeeze_excitation": 2, "pooling": {"kind": "none"}}
    lines = drawing.mermaid(architecture.trace(network(blocks=[block]), (8, 8, 3), 10), (8, 8, 3)).splitlines()
    assert '    block1_conv1["3x3 convolution, 4, stride 2<br>4x4x4"]' in lines
    assert '    block1_add1["sum<br>relu<br>4x4x4"]' in lines
    assert {"    block1_gate1 --> block1_add1", "    block1_shortcut1 --> block1_add1"} <= set(lines)
    assert {"    image --> block1_shortcut1", "    block1_add1 --> head_flatten"} <= set(lines)


def test_override_is_a_value_for_dvc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    gallery = YAML_READER.load(ROOT / "models" / "gallery.yaml")
    parser = OverridesParser.create()
    for name, block in gallery.items():
        assert parser.parse_override(f"+models.{name}={describe.override(name)}").value() == block


def test_warning_of_dense_layers_with_nearly_all_parameters() -> None:
    head = {"dense": [128]}
    assert warnings(blocks=[{"filters": [8]}], head=head) == [
        "dense layers hold 100% of the parameters; "
        "with head.pooling: global_average the network would have 2,522 instead of 202,202"
    ]
    assert not warnings(blocks=[{"filters": [8]}], head=head | {"pooling": "global_average"})
    assert not warnings(head=head)  # nothing to pool


def test_warning_of_a_separable_convolution_of_one_channel() -> None:
    settings = {"blocks": [{"filters": [8, 8], "convolution": "separable"}], "head": {"pooling": "global_average"}}
    (found,) = warnings(**settings)
    assert found.startswith("block1_conv1: a separable convolution of one channel has one kernel")
    assert not warnings((28, 28, 3), **settings)


@pytest.mark.parametrize(
    ("image", "pooling", "expected"),
    [
        ((8, 8, 1), {}, []),
        ((9, 8, 1), {}, ["block1_pool: input 9x8: the last 1 rows and 0 columns are in no window"]),
        ((9, 8, 1), {"padding": "same"}, []),
        ((9, 8, 1), {"stride": 1}, []),
        ((9, 9, 1), {"window": 3, "stride": 2}, []),
        ((9, 9, 1), {"kind": "strided"}, ["block1_pool: input 9x9: the last 1 rows and 1 columns are in no window"]),
        (
            (9, 9, 1),
            {"window": 1, "stride": 2, "padding": "same"},
            ["block1_pool: input 9x9: 1 of every 2 rows and columns lie between windows"],
        ),
        (
            (1, 1, 1),
            {"padding": "same"},
            [
                "block1_conv1: input 1x1: a window of 3 sees a single value",
                "block1_pool: input 1x1: a window of 2 sees a single value",
            ],
        ),
    ],
)
def test_warning_of_positions_outside_windows(image: tuple[int, int, int], pooling: dict, expected: list[str]) -> None:
    settings = {"blocks": [{"filters": [2], "pooling": pooling}], "head": {"pooling": "global_average"}}
    assert warnings(image, **settings) == expected
