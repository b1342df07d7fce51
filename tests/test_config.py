"""Configuration: reading params.yaml, and error messages for invalid values."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from pipeline.core import config
from pipeline.core.errors import ConfigError
from pipeline.core.paths import Paths
from pipeline.core.sections import PRESETS, Augmentation

from .conftest import ROOT, Project

TEXT = (ROOT / "params.yaml").read_text(encoding="utf-8")

ALIAS_BOMB = "\n".join(
    f"{letter}: &{letter} [{', '.join([f'*{chr(ord(letter) - 1)}' if letter > 'a' else '1'] * 10)}]"
    for letter in "abcdefghij"
)

# (text in params.yaml, its replacement, part of the error message)
BROKEN = [
    ("  epochs: 15\n", "  epochs: 0\n", "fit.epochs: found 0; allowed: greater than or equal to 1"),
    ("  epochs: 15\n", '  epochs: "15"\n', 'fit.epochs: found "15"; allowed: a valid integer'),
    ("  epochs: 15\n", "", "fit.epochs: is missing"),
    ("  batch_size: 64\n", "  batch_size: 64.5\n", "fit.batch_size: found 64.5; allowed: a valid integer"),
    ("learning_rate: 1.0e-3", "learning_rte: 1.0e-3", "fit.learning_rte: unknown key; did you mean learning_rate?"),
    ("learning_rate: 1.0e-3", "learning_rate: .nan", "fit.learning_rate: found NaN; allowed: a finite number"),
    ("optimizer: adam ", "optimizer: adamm ", "fit.optimizer: found \"adamm\"; did you mean adam?; allowed: 'adam',"),
    ("  schedule: cosine", "  schedule: cosine\n  step_factor: 0.5", "fit: schedule cosine has no key step_factor; "),
    (
        " schedule: cosine",
        " schedule: cosine\n  warmup_epochs: 15",
        "model_1.fit.warmup_epochs: found 15; allowed: less",
    ),
    (
        " schedule: cosine",
        ' schedule: cosine\n  class_weight: {"19": 2.0}',
        "class_weight.19: there is no such class; did",
    ),
    ("shift: 0.0", "shift: 0.0\n    hue: 0.1", "model_1.fit.augmentation.hue: the images are greyscale and have none"),
    ("shift: [0.0, 0.05, 0.1]", "hue: [0.0, 0.2]", "hue: found 0.2; the images are grey"),
    ("shift: 0.0", "shift: 1.0", "fit.augmentation.shift: found 1.0; allowed: less than 1"),
    ("dropout: 0.3", "dropout: 1.5", "models.model_2.blocks.1.dropout: found 1.5; allowed: less than 1"),
    ("dropout: 0.3", "dropuot: 0.3", "models.model_2.blocks.1.dropuot: unknown key; did you mean dropout?"),
    ("[128, 128]", "[128, -1]", "models.model_2.blocks.2.filters.1: found -1; allowed: greater than or equal to 1"),
    (
        "activation: linear",
        "activation: lineer",
        'blocks.0.activation: found "lineer"; did you mean linear?; allowed: ',
    ),
    ("he_normal, ", "[he_normal, he_normal], ", "models.model_2.blocks.0: kernel_initializer has 2 values for 1"),
    (
        "{filters: [64], pooling: {kind: max}}",
        "{filters: [64], pooling: {window: 20}}",
        "models.model_1.blocks.1.pooling.window: found 20;",
    ),
    ("  model_1: ", "  tuned: ", "models.tuned: the name is taken by the search's winner"),
    ("  model_1: ", "  a/b: ", 'models.a/b: found "a/b"; allowed: match pattern'),
    ("head: {dense: [128]}", "head: {dense: [128]}\n    fit: {epochs: 1.5}", "models.model_1.fit.epochs: found 1.5"),
    ("dataset: mnist_5k", "dataset: mnits", 'data.dataset: found "mnits"; did you mean mnist?; allowed: mnist_5k'),
    ("validation_fraction: 0.1", "validation_fraction: 1", "data.validation_fraction: found 1; allowed: less than 1"),
    ("limit: null", "limit: 2024-01-01", "holds what is neither text, number"),
    ("max_class_imbalance: 1.5", "max_class_imbalance: 0.5", "validate.max_class_imbalance: found 0.5; allowed: "),
    (
        "tune:                           # null: no search\n  base: model_2",
        "tune:\n  base: model_3",
        'tune.base: found "model_3"; did you mean model_2?',
    ),
    ("[max, gem]", "[gem]", "tune.space.blocks.2.pooling.kind: found ["),
    ("[max, gem]", "[max, null]", "tune.space.blocks.2.pooling.kind: found null; "),
    ("[max, gem]", "[max, [lp]]", 'tune.space.blocks.2.pooling.kind: found ["lp"]; '),
    ("[max, gem]", "[max, mix]", 'tune.space.blocks.2.pooling.kind: found "mix"; '),
    ("[0.0, 0.25, 0.5]", "[0.0, 0.5]", "does not include 0.25, the value of tune.base at head.dropout"),
    ("max: 0.5, step: 0.1", "max: 1.5, step: 0.1", "tune.space.blocks.2.dropout: found 1.5; allowed: less than 1"),
    ("kind: [max, gem]", "window: [2, 30]", "tune.space.blocks.2.pooling.window: found 30; too large for 7x7 fea"),
    (
        "kind: [max, gem]",
        "windw: [2, 3]",
        "tune.space.blocks.2.pooling.windw: found [2, 3]; unknown key; allowed: kind",
    ),
    ("distribution_dataset: null", "distribution_dataset: mnits", 'dataset: found "mnits"; did you mean mnist?'),
    ("distribution_dataset: null", "distribution_dataset: mnist_5k", 'dataset: found "mnist_5k"; did you mean mnist?'),
    ("score: last", "score: first", "tune.score: found \"first\"; allowed: 'last' or 'best'"),
    ("min_trials: 3", "min_trials: 0", "tune.pruning.min_trials: found 0; allowed: greater than or equal to 1"),
    ("finalists: 2 ", "finalists: 0 ", "tune.finalists: found 0; allowed: greater than or equal to 1"),
    ("finalist_seeds: 2", "finalist_seed: 2", "tune.finalist_seed: unknown key; did you mean finalist_seeds?"),
    ("[max, gem]", "[max, blur], p: [2.0, 4.0]", "tune.space.blocks.2.pooling.p: found [2.0, 4.0]; no network of thi"),
    ("[max, gem]", "[max, lp], p: [2.0, 99.0]", "tune.space.blocks.2.pooling.p: found 99.0; allowed: less than or"),
    ("threads: 1", "threads: -1", "runtime.threads: found -1; allowed: greater than or equal to 0"),
    ("replicas: 1", "replicas: 0", "runtime.replicas: found 0; allowed: greater than or equal to 1"),
    ("replicas: 1", "replicas: 3", "runtime.replicas: found 3; allowed: a divisor of the batch size of model_1, 64"),
    (
        "device: auto",
        "device: tpu",
        "runtime.device: found \"tpu\"; did you mean gpu?; allowed: 'auto', 'cpu'",
    ),
    ("seed: 42", "seed: 0", "seed: found 0; allowed: greater than or equal to 1"),
    ("seed: 42", "seed: 42\nseed: 43", "found duplicate key"),
    ("seed: 42", "seed: [1,", "params.yaml: not readable as YAML"),
    ("runtime:\n", "runtimes:\n", "runtimes: unknown key; did you mean runtime?"),
    ("  epochs: 15\n", f"  epochs: {10**30}\n", f"fit.epochs: found {10**30}; allowed: less than or equal to 100000"),
    ("epochs: 7 ", f"epochs: {10**30} ", "tune.epochs: found 1"),
    ("seeds: 1 ", f"seeds: {10**9} ", "evaluate.seeds: found 1000000000; allowed: less than or equal to 1000"),
    (
        "filters: [64], p",
        "filters: [1000000000], p",
        "blocks.1.filters.0: found 1000000000; allowed: less than or equal to",
    ),
    (
        "dense: [128]",
        "dense: [1000000000000]",
        "model_1.head.dense.0: found 1000000000000; allowed: less than or equal",
    ),
    (
        "dense: [128]",
        "dense: [65536, 65536]",
        "found 4,295,032,832 parameters; allowed: at most 1,000,000,000 in a net",
    ),
    (
        "kind: [max, gem]",
        "window: [2, 1000000000]",
        "tune.space.blocks.2.pooling.window: found 1000000000; allowed: 1 to",
    ),
    ("filters: [32], act", f"filters: {[1] * 101}, act", "models.model_1.blocks.0.filters: found "),
    ("threads: 1", f"threads: {10**30}", "runtime.threads: found 1"),
    ("limit: null", f"limit: {10**30}", "data.limit: found 1"),
    ("max: 0.5, step: 0.1", "max: .inf", 'found {"min": 0.2, "max": Infinity}; allowed: finite numbers'),
    ("seed: 42", f"seed: {'1' * 5000}", "params.yaml: not readable as YAML: Exceeds the limit (4300 digits)"),
    ("seed: 42", f"seed: {'1' * 4000}", "params.yaml: seed: found 111"),
    ("seed: 42", f"seed: 0x{'f' * 5000}", "Exceeds the limit (4300 digits)"),
    ("seed: 42", f"seed: {'[' * 3000}{']' * 3000}", "nested too deeply; allowed: 50 lists and maps within one another"),
    ("seed: 42", f"seed: {'[' * 300_000}", "nested too deeply; allowed: 50 lists and maps within one another"),
    ("seed: 42", "seed: &a [*a]", "too many values, aliases expanded; allowed: 100,000"),
    ("seed: 42", ALIAS_BOMB, "too many values, aliases expanded; allowed: 100,000"),
    ("seed: 42", "seed: !!bool x", "not readable as YAML"),
    ("seed: 42", "seed: !!int ''", "not readable as YAML"),
    ("  model_1: ", "  null: ", "the key None is not text; give it another name"),
    ("  model_1: ", "  true: ", "the key True is not text; give it another name"),
    ("  model_1: ", "  1: ", "the key 1 is not text; give it another name"),
    ("  model_1: ", "  search: ", "models.search: the name is taken by the search itself; allowed: any other name"),
    ("  model_1: ", "  Tuned: ", "models.Tuned: the name is taken by the search's winner"),
    ("  model_1: ", "  CON: ", "models.CON: Windows allows no file of this name; allowed: any other name"),
    ("  model_1: ", "  Model_2: ", "models.model_2: differs from Model_2 in case only; allowed: any other name"),
    ("  model_1: ", f"  {'m' * 300}: ", "have at most 64 characters"),
]


def edited(project: Project, old: str, new: str) -> None:
    """Replace text in the project's params.yaml."""
    assert old in TEXT, f"{old!r} is no longer in params.yaml"
    (project.root / "params.yaml").write_text(TEXT.replace(old, new, 1), encoding="utf-8")


@pytest.mark.parametrize(("old", "new", "message"), BROKEN, ids=[case[2][:40] for case in BROKEN])
def test_error_names_the_key_the_value_and_the_allowed_values(project: Project, old, new, message):
    edited(project, old, new)
    with pytest.raises(ConfigError) as error:
        config.load(project.paths)
    assert message in str(error.value)
    assert all(line.startswith("params.yaml: ") for line in str(error.value).splitlines()[:1])


def contents(project: Project) -> list[Path]:
    """All paths in a project's folder except the locks of its stages."""
    return sorted(path for path in project.root.rglob("*") if project.paths.resumable not in (path, *path.parents))


@pytest.mark.parametrize("stage", ["download", "validate", "train", "tune", "replicate", "evaluate", "report"])
def test_stages_refuse_bad_parameters_before_loading_tensorflow_or_writing(project: Project, stage: str):
    kept = [project.root / "results/metrics.json", project.root / "artifacts/train/model_1/model.keras"]
    for path in kept:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("of the previous run", encoding="utf-8")
    before = contents(project)
    edited(project, "dropout: 0.3", "dropout: 1.5")
    code = (
        f"import runpy, sys; sys.argv = ['{stage}', *{['model_1'] if stage == 'train' else []}]\n"
        f"try: runpy.run_module('pipeline.{stage}', run_name='__main__', alter_sys=True)\n"
        "finally: print([name for name in ('tensorflow', 'keras', 'mlflow') if name in sys.modules])"
    )
    done = project.run(sys.executable, "-B", "-c", code, check=False)
    assert done.returncode == 1
    assert done.stderr == "error: params.yaml: models.model_2.blocks.1.dropout: found 1.5; allowed: less than 1\n"
    assert done.stdout == "[]\n"
    assert contents(project) == before
    assert all(path.read_text(encoding="utf-8") == "of the previous run" for path in kept)


def test_all_errors_are_reported_at_once(project: Project):
    project.change(seed=-1, runtime={"device": "tpu"}, evaluate={"batch_size": 0})
    with pytest.raises(ConfigError) as error:
        config.load(project.paths)
    assert [line.split(":")[1].strip() for line in str(error.value).splitlines()] == [
        "seed",
        "evaluate.batch_size",
        "runtime.device",
    ]


def test_error_in_the_common_settings_is_reported_once(project: Project):
    project.change(fit={"epochs": 0})
    with pytest.raises(ConfigError) as error:
        config.load(project.paths)
    assert str(error.value).count("epochs") == 1


def test_missing_file_is_reported_with_its_folder(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"params\.yaml: not found in .*; run from the project's folder"):
        config.load(Paths(tmp_path))


def test_network_overrides_single_settings_of_fit(project: Project):
    project.change(models={"model_1": {"fit": {"epochs": 7, "augmentation": {"shift": 0.1}}}})
    params = config.load(project.paths)
    changed, common = params.network("model_1").fit, params.fit
    assert (changed.epochs, changed.augmentation.shift) == (7, 0.1)
    assert changed.batch_size == common.batch_size
    assert changed.augmentation.rotation == common.augmentation.rotation
    assert params.network("model_2").fit == common


def test_augmentation_has_presets_that_a_network_can_override(project: Project):
    light = {"augmentation": "light"}
    own = {"augmentation": {"rotation": 90.0}}
    edited(project, TEXT[TEXT.index("  augmentation: ") : TEXT.index("# Each network is")], "  augmentation: strong\n")
    networks = project.params()["models"]
    project.change(
        models={"model_1": networks["model_1"] | {"fit": light}, "model_2": networks["model_2"] | {"fit": own}},
        tune=None,  # whose space has other values
    )
    params = config.load(project.paths)
    first, second = (params.network(name).fit.augmentation for name in ("model_1", "model_2"))
    assert first == Augmentation(**PRESETS["light"])
    assert second == Augmentation.model_validate(PRESETS["strong"] | own["augmentation"])
    edited(project, TEXT[TEXT.index("  augmentation: ") : TEXT.index("# Each network is")], "  augmentation: lihgt\n")
    with pytest.raises(
        ConfigError, match=r"fit\.augmentation: there is no augmentation of this name; allowed: light, st"
    ):
        config.load(project.paths)


def test_configuration_is_immutable(project: Project):
    params = config.load(project.paths)
    with pytest.raises(ValueError, match="frozen"):
        params.fit.epochs = 3  # type: ignore[misc]


def test_numbers_are_read_as_by_dvc(project: Project):
    text = TEXT.replace("1.0e-3", "1e-3")  # a string in YAML 1.1
    (project.root / "params.yaml").write_text(text, encoding="utf-8")
    assert config.load(project.paths).fit.learning_rate == 0.001


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "latin-1"])
def test_only_utf_8_is_read_as_by_dvc(project: Project, encoding: str):
    (project.root / "params.yaml").write_bytes(TEXT.replace("# All", "# Ä: all").encode(encoding))
    with pytest.raises(ConfigError, match=r"params\.yaml: not UTF-8 \(.*\); save it with this encoding"):
        config.load(project.paths)


def test_the_longest_name_is_accepted(project: Project):
    project.change(models={"m" * 64: project.params()["models"]["model_1"]})
    assert "m" * 64 in config.load(project.paths).models


def test_unknown_network_is_an_error_that_lists_the_known_ones(project: Project):
    done = project.stage("train", "model_3", check=False)
    assert done.returncode == 1
    assert "models.model_3: there is no such network; did you mean model_2?; allowed: model_1, model_2" in done.stderr


def test_flatten_gives_the_path_of_every_value():
    nested: Any = {"a": {"b": [1, {"c": None}], "d": []}, "e": "x"}
    assert config.flatten(nested) == {"a.b.0": 1, "a.b.1.c": None, "a.d": [], "e": "x"}


def test_command_config_checks_the_parameters():
    done = subprocess.run([sys.executable, "-m", "pipeline.config"], cwd=ROOT, capture_output=True, text=True)
    networks = YAML(typ="safe", pure=True).load(ROOT / "params.yaml")["models"]
    assert (done.returncode, done.stdout) == (0, f"params.yaml is valid: {', '.join(networks)}\n")


def test_searched_batch_sizes_are_multiples_of_the_replicas(project: Project):
    project.change(runtime={"replicas": 2}, tune={"space": {"fit": {"batch_size": [64, 65]}}})
    with pytest.raises(ConfigError, match=r"tune.space.fit.batch_size: found 65; allowed: multiples of .*, 2"):
        config.load(project.paths)
