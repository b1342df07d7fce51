"""Networks of the user's own code, starting weights and frozen layers."""

import hashlib
import json
import pickle
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
import requests

from models import inference
from pipeline.config.__main__ import check
from pipeline.core import config, dataset, records
from pipeline.core.command import Stopwatch
from pipeline.core.errors import ConfigError, DataError, TrainingError
from pipeline.core.records import Counts
from pipeline.describe import describe
from pipeline.engine import engine
from pipeline.runtime import saved_model
from pipeline.train.fit import Fitted, fit
from pipeline.train.monitor import Monitor
from pipeline.train.networks import counts, layers
from pipeline.train.task import FitSpec
from pipeline.train.train import Trainer, train_network
from pipeline.tune.tune import tune

from .conftest import ROOT, Here, Project, without_stores, yaml
from .test_serving import serving

EXAMPLE = (ROOT / "own_networks" / "example.py").read_bytes()
MINE = {"builder": "example:make", "arguments": {"width": 4, "dropout": 0.3}}


def spec(project: Project, block: Mapping[str, Any], seed: int = 7, precision: str = "float32", **more: Any) -> FitSpec:
    """A fit of a network of three epochs; its files need not be in the project."""
    files = {"example.py": EXAMPLE} | more.pop("files", {})
    fit = project.params()["fit"] | {"epochs": 3} | block.get("fit", {})
    network = config.network_from({**block, "fit": fit})
    return FitSpec(network, seed, precision, files=files, **more)


def fitted(project: Project, spec: FitSpec, monitor: Monitor | None = None, checkpoint: Path | None = None) -> Fitted:
    return fit(spec, dataset.load_training(project.paths), monitor, checkpoint)


def digest(found: Fitted) -> str:
    return hashlib.sha256(saved_model.content(found.model)).hexdigest()


REFUSED = [
    ({"builder": "example"}, "models.mine.builder: not of the form MODULE:FUNCTION"),
    ({"builder": "exampl:make"}, "own_networks/exampl.py does not exist; modules there: example, multi_column, other"),
    ({"builder": "example:build"}, "own_networks/example.py has no such function; functions there: make"),
    ({"builder": "example:make", "arguments": {"wide": 3}}, "models.mine.arguments.wide: found 3; example:make has no"),
    ({"builder": "example:make", "argument": {}}, "models.mine.argument: unknown key; did you mean arguments?"),
    ({"builder": "other:make"}, "models.mine.builder: found other:make; own_networks/other.py imports example; a"),
    ({"weights": "start.keras"}, "own_networks/start.keras does not exist; put the file there"),
    ({"weights": "../start.keras"}, "models.mine.weights: not the name of a .keras, .weights.h5 or .h5 file"),
    ({"freeze": ["block1*"]}, 'models.mine.freeze.0: found "block1*"; matches no layer with weights; layers: output'),
    ({"freeze": ["*"]}, 'models.mine.freeze: found ["*"]; nothing is left to train'),
]


@pytest.mark.parametrize(("block", "message"), REFUSED)
def test_a_network_that_cannot_be_built_is_refused_by_the_configuration(project: Project, block: dict, message: str):
    (project.paths.own_networks / "other.py").write_text("import example\n\ndef make(image, classes): ...")
    project.change(models={"mine": block})
    with pytest.raises(ConfigError) as error:
        config.load(project.paths)
    assert message in str(error.value)


def test_code_is_not_run_by_the_configuration_and_searched_arguments_are_checked(project: Project):
    code = "raise SystemExit\ndef make(image, classes, /, width, *, depth=1): ..."
    (project.paths.own_networks / "mine.py").write_text(code)
    mine = {"builder": "mine:make", "arguments": {"width": 8}}
    tune = {"base": "mine", "space": {"arguments": {"width": [8, 16]}}}
    project.change(models={"mine": mine}, tune=tune | {"space": None})
    params = project.params()
    for space, message in {
        "width": "",
        "depth": "tune.space.arguments.depth: found [8, 16]; unknown key; set it under `arguments` of tune.base first",
    }.items():
        params["tune"]["space"] = {"arguments": {space: [8, 16]}}
        (project.paths.params).write_text(json.dumps(params))
        if not message:
            assert [each.name for each in config.load(project.paths).dimensions] == ["arguments.width"]
            continue
        with pytest.raises(ConfigError) as error:
            config.load(project.paths)
        assert message in str(error.value)


def test_a_changed_file_changes_what_its_own_network_depends_on(project: Project):
    def contents() -> dict[str, str]:
        check(project.paths)
        files = [*project.paths.network_files.iterdir(), project.paths.search_base]
        return {file.name: file.read_text() for file in files}

    (project.paths.own_networks / "start.keras").write_bytes(b"1")
    project.change(models={"mine": MINE, "theirs": MINE | {"weights": "start.keras"}})
    before = contents()
    assert json.loads(before["model_1"]) == {}
    assert json.loads(before["mine"]) == {"example.py": hashlib.sha256(EXAMPLE).hexdigest()}
    (project.paths.own_networks / "start.keras").write_bytes(b"2")
    after = contents()
    assert [name for name in after if after[name] != before[name]] == ["theirs"]
    params = project.params()
    params["tune"] |= {"base": "theirs", "space": {"fit": {"batch_size": [64, 32]}}}
    yaml.dump(params, project.paths.params)
    before = contents()
    (project.paths.own_networks / "example.py").write_bytes(EXAMPLE + b"#")
    after = contents()
    assert sorted(name for name in after if after[name] != before[name]) == ["mine", "search-base.json", "theirs"]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_own_network_is_trained_from_its_specification_alone(validated: Project, precision: str):
    given = pickle.loads(pickle.dumps(spec(validated, MINE, precision=precision)))  # as on a worker
    first, again = fitted(validated, given), fitted(validated, given)
    assert first.history == again.history
    assert digest(first) == digest(again)
    rows = layers(first.model, given.network)
    assert rows
    assert {row.name: (row.kind, row.output, row.parameters) for row in rows}["scale"] == ("Scale", (14, 14, 4), 4)
    assert sum(row.non_trainable for row in rows) == 8
    policies = {layer.dtype_policy.name for layer in first.model.layers[1:]}
    assert policies == {"float32"} | ({"mixed_bfloat16"} if precision == "bfloat16" else set())


RUN = """
import os, sys
from pathlib import Path
from pipeline.train import callbacks
from tests.conftest import Project
from tests.test_own_networks import MINE, digest, fitted, spec
from tests.test_fit import OnEpoch

callbacks.CHECKPOINT_INTERVAL = 0.0
project, checkpoint = Project(Path(sys.argv[1])), Path(sys.argv[2])
kill = OnEpoch(lambda epoch: epoch == 1 and os.kill(os.getpid(), 9))
resumed = fitted(project, spec(project, MINE), None if checkpoint.exists() else kill, checkpoint)
print(digest(resumed), digest(fitted(project, spec(project, MINE))))
"""


def test_killed_training_of_an_own_network_resumes_and_gives_the_same_bytes(validated: Project, tmp_path: Path):
    command = [sys.executable, "-c", RUN, str(validated.root), str(tmp_path / "state.npz")]
    assert subprocess.run(command, cwd=ROOT, capture_output=True).returncode == -9
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "resuming interrupted training after epoch 1" in again.stdout
    resumed, whole = again.stdout.splitlines()[-1].split()
    assert resumed == whole


HEAD = "import keras\nfrom keras import layers\n"
BROKEN = [
    ("def make(image, classes): return 1/0", "mine:make failed: ZeroDivisionError"),
    ("def make(image, classes): return layers.Dense(3)", "make returned Dense; allowed: a keras.Model"),
    (
        "def make(image, classes): return keras.Sequential([keras.Input(image), layers.Flatten(), layers.Dense(3)])",
        "the model maps [(28, 28, 1)] to (3,); needed: [(28, 28, 1)] to (10,)",
    ),
    (
        "def make(image, classes): "
        "return keras.Sequential([keras.Input(image), layers.Flatten(), layers.Dense(classes)])",
        "the model returns no probabilities, but output is softmax; set output: logits",
    ),
    (
        "class Mine(layers.Flatten): pass\n"
        "def make(image, classes): "
        "return keras.Sequential([keras.Input(image), Mine(), layers.Dense(classes, activation='softmax')])",
        "the class Mine could not be loaded again; write @keras.saving.register_keras_serializable() above it",
    ),
]


@pytest.mark.parametrize(("code", "message"), BROKEN)
def test_a_builder_that_does_not_fit_is_an_error(validated: Project, code: str, message: str):
    given = spec(validated, {"builder": "mine:make"}, files={"mine.py": (HEAD + code).encode()})
    with pytest.raises(TrainingError) as error:
        fitted(validated, given)
    assert str(error.value).startswith("own_networks/mine.py: ")
    assert message in str(error.value)


@pytest.fixture(scope="module")
def evaluated(validated: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose only network is one of own code; it was trained, evaluated, registered and reported."""
    project = Project(tmp_path_factory.mktemp("own") / "project")
    shutil.copytree(validated.root, project.root)
    params = project.params()
    few = {"corrupted_images": 10, "shifted_images": 10, "max_shift": 1, "out_of_distribution_images": 10}
    space = {"arguments": {"width": [4, 6]}, "fit": {"batch_size": [64, 32]}}
    params["tune"] |= {"base": "mine", "space": space, "finalists": 2, "finalist_seeds": 1}
    params |= {"models": {"mine": MINE}, "grid": params["grid"] | {"base": "mine"}}
    params["evaluate"]["robustness"] |= few
    yaml.dump(params, project.paths.params)
    with pytest.MonkeyPatch.context() as environment:
        without_stores(environment)
        check(project.paths)
        loaded = config.load(project.paths)
        here = Here(loaded.runtime)
        for stage, work in (
            ("train", lambda trainer: train_network("mine", loaded.network("mine"), trainer)),
            ("tune", tune),
        ):
            engine.complete(work(Trainer.create(stage, loaded, project.paths, here, Stopwatch())))
    for stage in ("evaluate", "report"):  # in fresh processes, which know nothing of the code
        project.stage(stage)
    return project


def test_own_network_is_searched_and_reported(evaluated: Project):
    trials = pd.read_csv(evaluated.paths.search / "trials.csv")
    assert trials["arguments.width"].tolist()[0] == 4
    finalists = pd.read_csv(evaluated.paths.search / "finalists.csv")
    assert set(finalists["parameters"]) <= {2178, 3370}
    assert "builder: example:make" in (evaluated.paths.search / "best.yaml").read_text()
    record = records.load_training(evaluated.paths, "mine")
    assert record.counts == Counts(
        parameters=2178, trainable_parameters=2170, non_trainable_parameters=8, multiply_adds=None
    )
    assert record.limits is not None
    metrics = json.loads((evaluated.paths.evaluation / "metrics.json").read_text())["mine"]
    assert metrics["summary"] == "example:make dropout 0.3, width 4"
    assert metrics["parameters"] == 2178
    assert "multiply_adds" not in metrics
    for file in ("report.md", "report.html"):
        text = (evaluated.paths.results / file).read_text(encoding="utf-8")
        assert "example:make dropout 0.3, width 4" in text
        assert not re.search(r"\bnan\b", text, re.IGNORECASE)


def test_registered_own_network_is_served_from_verified_code_alone(evaluated: Project, tmp_path: Path):
    record = records.load_training(evaluated.paths, "mine")
    images = np.load(evaluated.paths.split("test") / "images.npy")[:5].astype(np.float32) / 255
    network = saved_model.load(evaluated.paths.model("mine"), record.sha256, record.code(evaluated.paths))
    for script in (evaluated.root / "mlartifacts").rglob("code/**/*.py"):
        script.write_text("raise SystemExit('code from the store')", encoding="utf-8")
    with serving(evaluated) as address:
        answer = requests.post(address, json={"inputs": images.tolist()}, timeout=120).json()
    np.testing.assert_allclose(answer["predictions"], inference.probabilities(network, images), atol=1e-3)

    copy = Project(tmp_path / "copy")
    shutil.copytree(evaluated.root, copy.root)
    with (copy.paths.own_networks / "example.py").open("a") as file:
        file.write("\nraise SystemExit('changed code')\n")
    refused = "own_networks/example.py: changed since"
    done = copy.stage("serve", check=False)
    assert done.returncode == 1
    assert f"error: {refused} the network was trained: SHA-256 is " in done.stderr
    assert "Traceback" not in done.stderr
    with pytest.raises(DataError, match=f"{refused} the network was trained"):
        record.code(copy.paths)
    params = config.load(copy.paths)
    trainer = Trainer.create("train", params, copy.paths, Here(params.runtime), Stopwatch())
    with pytest.raises(DataError, match=f"{refused} the stage `config` ran; run `dvc repro`"):
        trainer.spec(params.network("mine"))


def weights_of(found: Fitted, *names: str) -> list[np.ndarray]:
    return [weights for name in names for weights in found.model.get_layer(name).get_weights()]


BLOCKS = {"blocks": [{"filters": [4], "batch_norm": True}], "head": {"dense": [8], "dropout": 0.2}}
OTHER_HEAD = {"blocks": BLOCKS["blocks"], "head": {"dense": [6]}}


@pytest.mark.parametrize(
    ("first", "second", "kept", "patterns", "replicas"),
    [
        (BLOCKS, OTHER_HEAD, ("block1_conv1", "block1_norm"), ["block1*"], 2),
        (MINE, MINE, ("conv2d", "scale", "batch_normalization"), ["conv2d", "scale", "batch*"], 2),
    ],
    ids=["blocks", "own code"],
)
def test_training_starts_from_weights_and_keeps_those_of_frozen_layers(
    validated: Project, first: dict, second: dict, kept: tuple[str, ...], patterns: list[str], replicas: int
):
    before = fitted(validated, spec(validated, first))
    files = {"start.keras": saved_model.content(before.model)}
    fine = second | {"weights": "start.keras", "fit": {"batch_size": 62, "epochs": 1}}
    given = [
        spec(validated, fine | {"freeze": freeze}, seed=8, files=files, replicas=replicas) for freeze in ([], patterns)
    ]
    tuned, frozen = (fitted(validated, each) for each in given)
    for ours, theirs, moved in zip(
        weights_of(frozen, *kept), weights_of(before, *kept), weights_of(tuned, *kept), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)
        assert not np.array_equal(moved, theirs)
    assert frozen.history[0]["loss"] != tuned.history[0]["loss"]
    fixed = sum(weights.size for weights in weights_of(frozen, *kept))
    counted = counts(layers(frozen.model, given[1].network), given[1].network, dataset.load_info(validated.paths))
    assert counted.non_trainable_parameters == fixed
    assert counted.parameters == frozen.model.count_params()


def test_weights_and_layers_that_do_not_fit_are_errors(validated: Project, tmp_path: Path):
    other = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    other.save_weights(tmp_path / "other.weights.h5")
    files = {"x.keras": saved_model.content(other), "y.keras": b"no weights"}
    for more, message in (
        ({"weights": "x.keras"}, "weights: own_networks/x.keras has no weights for this network"),
        ({"weights": "y.keras"}, "weights: own_networks/y.keras is not readable as weights"),
        ({"freeze": ["conv3*"]}, "freeze: no layer with weights matches 'conv3*'; layers: conv2d, conv2d_1, scale"),
        ({"freeze": ["*"]}, "freeze: all layers are frozen"),
    ):
        with pytest.raises(TrainingError, match=re.escape(message)):
            fitted(validated, spec(validated, MINE | more, files=files))


def test_describe_builds_own_networks(project: Project, capsys: pytest.CaptureFixture[str], monkeypatch: Any):
    project.change(models={"mine": MINE | {"freeze": ["scale"]}, "bad": {"builder": "example:mak"}})
    monkeypatch.chdir(project.root)
    keras.utils.clear_session()  # layers without names are numbered within a process
    describe.describe("mine", None, None)
    rows = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert {"scale Scale 14x14x4 4 0.2%", "total (12 not trainable) 2,178"} <= set(rows)
    with pytest.raises(ConfigError, match=r"models\.bad\.builder: found example:mak; .* functions there: "):
        describe.describe("bad", None, None)
