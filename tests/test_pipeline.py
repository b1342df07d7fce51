"""The whole pipeline as users run it, in a real Git and DVC repository with a real MLflow store."""

import hashlib
import html
import json
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import psutil
import pytest
from dvc.repo import Repo
from dvc.utils.hydra import apply_overrides
from mlflow.entities import Run

from pipeline.core import config, dataset, records
from pipeline.core.config import TUNED
from pipeline.core.paths import MODEL
from pipeline.core.records import TrainingRecord

from .conftest import ROOT, Project, copy_project, yaml

pytestmark = pytest.mark.pipeline

NETWORKS = ["model_1", "model_2", TUNED]
STAGES = ["config", "download", "validate", "train@model_1", "train@model_2", "tune", "replicate", "evaluate", "report"]


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A repository in which the whole pipeline ran once and was committed; tests do not change it."""
    project = copy_project(tmp_path_factory.mktemp("repository"))
    project.run("git", "init", "--quiet", "--initial-branch", "main")
    project.run("git", "config", "user.name", "test")
    project.run("git", "config", "user.email", "test@localhost")
    project.commit("code")
    project.run("dvc", "repro")
    project.commit("results")
    return project


@pytest.fixture
def clone(repository: Project, tmp_path: Path) -> Project:
    """A copy of that repository with its cache, to be changed at will."""
    shutil.copytree(repository.root, tmp_path / "clone", symlinks=True)
    # The store has absolute paths of artifacts, so the copy of a store is of no use.
    (tmp_path / "clone" / "mlflow.db").unlink()
    return Project(tmp_path / "clone")


def runs(project: Project) -> dict[str, Run]:
    """The runs of a project's store by name, the newest of each name."""
    client = mlflow.MlflowClient(f"sqlite:///{project.root / 'mlflow.db'}")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    found = client.search_runs(experiments, order_by=["attributes.start_time ASC"])
    return {str(run.info.run_name): run for run in found}


def ran(output: str) -> list[str]:
    """The stages that DVC says it ran."""
    return [line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage")]


def metrics(project: Project) -> dict[str, dict]:
    return json.loads((project.paths.results / "metrics.json").read_text(encoding="utf-8"))


def record(project: Project, name: str) -> TrainingRecord:
    return records.load_training(project.paths, name)


def test_results_are_complete(repository: Project):
    found = metrics(repository)
    assert list(found) == NETWORKS
    assert (found["model_1"]["parameters"], found["model_1"]["non_trainable_parameters"]) == (421_642, 0)
    assert (found["model_2"]["parameters"], found["model_2"]["non_trainable_parameters"]) == (840_586, 2_432)
    for name, row in found.items():
        assert 0 < row["accuracy"] <= 1
        assert row["loss"] > 0
        assert row["run_id"] == runs(repository)[name].info.run_id
    classes = pd.read_csv(repository.paths.evaluation / "per_class.csv")
    assert classes.groupby("model", sort=False)["support"].sum().to_dict() == dict.fromkeys(NETWORKS, 120)
    curves = pd.read_csv(repository.paths.results / "learning_curves.csv")
    assert curves.groupby(["model", "split"]).size().tolist() == [2] * 6
    confusion = pd.read_csv(repository.paths.results / "confusion.csv").query("model == 'model_1'")
    right = confusion.loc[confusion["actual"] == confusion["predicted"], "count"].sum()
    assert right / confusion["count"].sum() == found["model_1"]["accuracy"]
    pairs = pd.read_csv(repository.paths.evaluation / "comparisons.csv")
    assert pairs["pair"].tolist() == ["model_1 - model_2", "model_1 - tuned", "model_2 - tuned"]
    assert pairs["difference"][0] == pytest.approx(100 * (found["model_1"]["accuracy"] - found["model_2"]["accuracy"]))
    reliability = pd.read_csv(repository.paths.evaluation / "reliability.csv")
    assert reliability.groupby("model", sort=False)["count"].sum().to_dict() == dict.fromkeys(NETWORKS, 120)
    costs = pd.read_csv(repository.paths.evaluation / "cost.csv", index_col="model")
    assert (costs > 0).all(axis=None)
    assert costs.loc["model_1", "file_bytes"] == repository.paths.model("model_1").stat().st_size
    assert costs.loc["model_1", "multiply_adds"] == found["model_1"]["multiply_adds"] == 4_241_152
    corruption = pd.read_csv(repository.paths.evaluation / "corruption.csv")
    assert corruption.groupby("model", sort=False).size().to_dict() == dict.fromkeys(NETWORKS, 16)
    clean = corruption[corruption["corruption"] == "clean"].set_index("model")["error"]
    assert {name: 1 - row["accuracy"] for name, row in found.items()} == pytest.approx(clean.to_dict())
    assert all({"corruption_mce", "auroc_blank"} <= set(row) for row in found.values())
    page = (repository.paths.results / "report.html").read_text(encoding="utf-8")
    assert all(
        html.escape(text) in page for text in ["simultaneous 95 %", "zigzag", runs(repository)[TUNED].info.run_id]
    )
    trials = pd.read_csv(repository.paths.search / "trials.csv")
    assert trials["status"].tolist() == ["COMPLETED"] * 2
    report = (repository.paths.results / "report.md").read_text(encoding="utf-8")
    assert all(f"| {name} |" in report for name in NETWORKS)


def test_second_repro_runs_nothing(repository: Project):
    done = repository.run("dvc", "repro")
    assert ran(done.stdout) == []
    assert "Data and pipelines are up to date." in done.stdout
    assert repository.run("git", "status", "--porcelain").stdout == ""


def test_mlflow_has_complete_runs(repository: Project):
    found = runs(repository)
    client = mlflow.MlflowClient(f"sqlite:///{repository.root / 'mlflow.db'}")
    commit = repository.run("git", "rev-parse", "HEAD~1").stdout.strip()
    digest = dataset.load_info(repository.paths).digest
    for name in NETWORKS:
        run = found[name]
        params, tags, logged = run.data.params, run.data.tags, run.data.metrics
        assert run.inputs
        assert run.outputs
        assert run.info.status == "FINISHED"
        assert params["fit.epochs"] == "2"
        assert params["blocks.0.filters.0"] == "32"
        assert {"loss", "accuracy", "val_loss", "val_accuracy"} <= set(logged)
        assert {"validation_accuracy", "validation_loss", "test_accuracy", "test_loss", "test_f1"} <= set(logged)
        assert {"test_ece", "test_temperature", "latency_p50_ms", "multiply_adds"} <= set(logged)
        assert logged["test_accuracy"] == metrics(repository)[name]["accuracy"]
        assert logged["parameters"] == metrics(repository)[name]["parameters"]
        assert [metric.step for metric in client.get_metric_history(run.info.run_id, "val_loss")] == [1, 2]
        assert tags["git.commit"] == tags["mlflow.source.git.commit"] == commit
        assert tags["dvc.stage"] == ("tune" if name == TUNED else f"train@{name}")
        assert tags["data.digest"] == run.inputs.dataset_inputs[0].dataset.digest == digest
        assert len(tags["params.digest"]) == 32
        assert {file.path for file in client.list_artifacts(run.info.run_id)} == {
            "layers.json",
            "per_class.json",
            "confusion.json",
            "reliability.json",
            "comparisons.json",
            "validation",
        }
        [output] = run.outputs.model_outputs
        assert client.get_logged_model(output.model_id).name == name


def test_trials_are_nested_under_their_search(repository: Project):
    found = runs(repository)
    search = found["search"].info.run_id
    for number in range(2):
        trial = found[f"trial {number}"]
        assert trial.data.tags["mlflow.parentRunId"] == search
        assert trial.data.params["fit.epochs"] == "1"
        assert {"validation_loss", "validation_accuracy", "parameters"} <= set(trial.data.metrics)
    assert found["trial 0"].data.params["blocks.2.dropout"] == "0.4"  # model_2's own


def test_finalists_are_nested_under_their_search_with_their_models(repository: Project):
    found = runs(repository)
    table = pd.read_csv(repository.paths.search / "finalists.csv")
    assert set(table["trial"]) == {0, 1}
    for fit in table.to_dict("records"):
        run = found[f"finalist {fit['trial']}, seed {fit['seed']}"]
        assert run.data.tags["mlflow.parentRunId"] == found["search"].info.run_id
        assert run.data.params["seed"] == str(fit["seed"]) != "42"
        assert run.data.metrics["validation_loss"] == fit["val_loss"]
        assert run.data.metrics["parameters"] == fit["parameters"]
        assert run.outputs
    search = records.load_search(repository.paths)
    assert search
    assert search.winner == table.sort_values("val_loss")["trial"].iloc[0]  # one seed: the lower loss
    curves = pd.read_csv(repository.paths.search / "curves.csv")
    assert curves[["trial", "epoch"]].to_numpy().tolist() == [[0, 1], [1, 1]]


PREDICT = """
import sys
import mlflow, numpy as np
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model(sys.argv[2])
assert model.metadata.signature.inputs.inputs[0].shape == (-1, 28, 28, 1)
assert model.input_example.shape == (2, 28, 28, 1)
images = np.load(sys.argv[3] + "/images.npy").astype(np.float32) / 255
print(float((model.predict(images).argmax(axis=1) == np.load(sys.argv[3] + "/labels.npy")).mean()))
"""


@pytest.mark.parametrize("name", ["model_2"])
def test_logged_model_gives_the_test_accuracy_in_a_fresh_process(repository: Project, name: str, tmp_path: Path):
    store = f"sqlite:///{repository.root / 'mlflow.db'}"
    uri = str(record(repository, name).model_uri)
    done = repository.run(sys.executable, "-c", PREDICT, store, uri, str(repository.paths.split("test")))
    assert float(done.stdout.splitlines()[-1]) == metrics(repository)[name]["accuracy"]
    client = mlflow.MlflowClient(store)
    location = client.get_logged_model(uri.removeprefix("models:/")).artifact_location.removeprefix("file://")
    assert "tensorflow==" in (Path(location) / "requirements.txt").read_text(encoding="utf-8")


def test_best_network_by_validation_is_the_registered_champion(repository: Project):
    client = mlflow.MlflowClient(f"sqlite:///{repository.root / 'mlflow.db'}")
    champion = client.get_model_version_by_alias("mnist_5k", "champion")
    assert float(champion.tags["validation.accuracy"]) == max(
        row["validation_accuracy"] for row in metrics(repository).values()
    )
    assert champion.run_id == runs(repository)[champion.tags["model"]].info.run_id


def test_block_of_the_winner_can_be_pasted(repository: Project, tmp_path: Path):
    text = (repository.paths.results / "best.yaml").read_text(encoding="utf-8")
    [block] = yaml.load(text).values()
    project = copy_project(tmp_path)
    project.change(models={"pasted": block})
    pasted = config.load(project.paths).network("pasted")
    params = runs(repository)[TUNED].data.params
    settings = config.flatten(pasted.model_dump(mode="json"))
    assert {name: str(value) for name, value in settings.items()} == {name: params[name] for name in settings}


def test_equal_parameters_give_equal_bytes(repository: Project, clone: Project):
    def content(project: Project) -> dict[str, Any]:
        files = [*project.root.glob("artifacts/**/*.keras"), *project.root.glob("data/validated/**/*")]
        files += [path for path in project.root.glob("artifacts/**/*") if path.suffix in (".csv", ".npz", ".yaml")]
        files += [path for path in project.root.glob("results/*") if path.suffix in (".csv", ".md", ".yaml")]
        files.remove(project.paths.evaluation / "cost.csv")  # it holds times
        without_ids = {name: row | {"run_id": None} for name, row in metrics(project).items()}
        return {"metrics": without_ids} | {
            str(path.relative_to(project.root)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in files
            if path.is_file()
        }

    for folder in ("artifacts", "data/validated", "results"):
        shutil.rmtree(clone.root / folder)
    shutil.rmtree(clone.root / ".dvc" / "cache")
    done = clone.run(sys.executable, "-m", "pipeline.repro", REPRO_JOBS="2")  # two of the networks and the search
    found = re.findall(r"Running stage '(.+)'", done.stdout)
    assert (found[:3], sorted(found[3:6]), found[6:]) == (STAGES[:3], STAGES[3:6], STAGES[6:])
    assert content(clone) == content(repository)


def test_changed_dropout_runs_what_depends_on_it_and_going_back_trains_nothing(clone: Project):
    before = metrics(clone)
    committed = clone.paths.params.read_bytes()
    block = clone.params()["models"]["model_2"]["blocks"]  # of the base of the search
    block[1]["dropout"] = 0.2
    clone.change(models={"model_2": {"blocks": block}})
    clone.run("dvc", "repro", "config")
    assert {"train@model_2", "tune"} <= set(json.loads(clone.run("dvc", "status", "--json").stdout))
    clone.paths.params.write_bytes(committed)
    block = clone.params()["models"]["model_1"]["blocks"]
    block[1]["dropout"] = 0.2
    clone.change(models={"model_1": {"blocks": block}})
    expected = ["config", "train@model_1", "replicate", "evaluate", "report"]
    assert ran(clone.run("dvc", "repro").stdout) == expected
    after = metrics(clone)
    assert after["model_2"]["loss"] == before["model_2"]["loss"]
    assert after["model_1"]["loss"] != before["model_1"]["loss"]
    # Its run is in the store of the original, so its metrics are in a new run here.
    assert runs(clone)["model_2"].data.tags["convpipe.trained_by"] == before["model_2"]["run_id"]
    clone.paths.params.write_bytes(committed)
    assert ran(clone.run("dvc", "repro").stdout) == ["report"]  # its outputs are kept by Git, not by DVC's cache
    assert metrics(clone) == before
    assert clone.run("git", "status", "--porcelain").stdout == ""


def edits() -> dict[str, list[str]]:
    """The table of docs/architecture.md: files, and the stages that an edit of each invalidates."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\S+)` \| (.+) \|$", text.partition("| file | stages |")[2], flags=re.MULTILINE)
    return {file: [] if stages == "—" else stages.split(", ") for file, stages in rows}


def test_edited_file_invalidates_exactly_the_stages_that_depend_on_it(clone: Project):
    expected, found = edits(), {}
    assert len(expected) > 20
    for name in expected:
        path = clone.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        content = path.read_bytes() if path.exists() else None
        path.write_bytes((content or b"") + b"\n# edited\n")
        with Repo(str(clone.root)) as repo:
            invalid = {name.rpartition(":")[2] for name in repo.status()}  # relative to the working directory
        found[name] = [stage for stage in STAGES if stage in invalid]
        path.unlink() if content is None else path.write_bytes(content)
    assert found == expected


def test_looks_and_catalogue_entries_of_other_datasets_train_nothing(clone: Project):
    page = clone.root / "pipeline" / "html" / "templates" / "page.html"
    page.write_text(page.read_text(encoding="utf-8").replace("#1c2430", "#1c2431"), encoding="utf-8")
    catalog = yaml.load(clone.paths.catalog)
    catalog["own"] = catalog["mnist"]
    yaml.dump(catalog, clone.paths.catalog)
    assert ran(clone.run("dvc", "repro").stdout) == ["config", "validate", "report"]


def tutorial() -> tuple[list[list[str]], list[str]]:
    """The commands of docs/tutorial.md, and the outputs that it quotes."""
    text = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    lines = [line for kind, block in blocks if kind == "console" for line in block.splitlines()]
    commands = [shlex.split(line.removeprefix("$ "), comments=True) for line in lines]
    return commands, [block for kind, block in blocks if not kind]


VERDICT = (
    r"^- (no difference can be shown between model_2\S* and model_2\S* over \d seeds \(\S+ pp, |"
    r"model_2\S* is better than model_2\S* by \S+ pp over \d seeds, )simultaneous 95 % interval \S+ to \S+, p [=<] \S+$"
)


def shapes(output: str) -> set[str]:
    """The lines of an output without numbers and signs, and without what depends on which network is better."""
    varying = r"[★≈▼>=<]|[-+]?\b\d[\d.,]*|model_2-average-base|model_2|average|max|within noise|worse"
    return {" ".join(re.sub(varying, " ", line).split()) for line in output.splitlines()}


def test_tutorial_over_seeds(clone: Project):
    (experiment, get, compare, apply, remove), (shown, verdict) = tutorial()
    assert experiment[-1] == "evaluate.seeds=5"
    output = clone.run(*experiment[:-1], "evaluate.seeds=2").stdout  # with the small parameters of the tests
    assert {"grid@average-base", "replicate"} <= set(ran(output)), "the grid and further seeds are trained"
    assert "train@model_2" not in ran(output), "the rest comes from the cache"
    assert shapes(shown) <= shapes(output)
    clone.run(*get)
    fetched = clone.root / get[-1]
    for text in (verdict, (fetched / "report.md").read_text(encoding="utf-8")):
        assert re.search(VERDICT, text, flags=re.MULTILINE)
    assert (fetched / "report.html").is_file()
    assert compare == ["make", "compare"]
    assert "grid.pooling=[average]" in clone.stage("compare", COLUMNS="200").stdout
    clone.run(*apply)
    assert clone.params()["grid"]["pooling"] == ["average"]
    seeds = pd.read_csv(clone.paths.evaluation / "seeds.csv")
    networks = ["model_2", "model_2-average-base"]
    assert list(zip(seeds["model"], seeds["seed"], strict=True)) == [(name, n) for name in networks for n in (42, 43)]
    found = metrics(clone)["model_2"]
    accuracies = seeds["accuracy"][:2]
    assert accuracies[0] == found["accuracy"]
    assert found["accuracy_mean"] == pytest.approx(accuracies.mean())
    assert found["accuracy_std"] == pytest.approx(accuracies.std())
    replicate = next(run.data for name, run in runs(clone).items() if name.startswith("model_2") and "seed 43" in name)
    assert replicate.params["seed"] == "43"
    assert replicate.metrics["test_accuracy"] == accuracies[1]
    clone.run(*remove)
    assert clone.run("dvc", "exp", "list", "--name-only").stdout == ""


def test_changes_of_the_tutorial_are_valid(project: Project):
    """Those of its last table, as `dvc exp run` writes them into params.yaml."""
    text = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
    changes = re.findall(r"^\| .+ \| `(-S .+?)`", text, flags=re.MULTILINE)
    assert len(changes) > 4
    before = project.paths.params.read_bytes()
    for change in changes:
        apply_overrides(str(project.paths.params), [value for value in shlex.split(change) if value != "-S"])
        config.load(project.paths)
        project.paths.params.write_bytes(before)


@pytest.mark.parametrize("stage", ["train@model_2", "report"])
def test_refused_parameters_leave_the_outputs_of_the_previous_run(clone: Project, stage: str):
    def everything() -> dict[Path, bytes]:
        folders = ("artifacts", "data", "results")
        return {
            path: path.read_bytes()
            for folder in folders
            for path in (clone.root / folder).rglob("*")
            if path.is_file()
            and path not in (clone.paths.checked, clone.paths.search_base)  # of the stage that refuses
            and clone.paths.network_files not in path.parents
        }

    before = everything()
    block = clone.params()["models"]["model_2"]["blocks"]
    block[1]["dropout"] = 1.5
    clone.change(models={"model_2": {"blocks": block}})
    done = clone.run("dvc", "repro", stage, check=False)
    assert done.returncode != 0
    assert "models.model_2.blocks.1.dropout: found 1.5; allowed: less than 1" in done.stderr
    assert everything() == before


@contextmanager
def queue_workers(project: Project, count: int) -> Iterator[None]:
    """DVC's queue workers, which usually end by themselves when the queue is empty."""
    # No pipe for their output: they would inherit it, and reading would last until all of them have ended.
    subprocess.run(
        ["dvc", "queue", "start", "--jobs", str(count)],
        cwd=project.root,
        env=project.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    try:
        yield
    finally:
        for file in (project.root / ".dvc" / "tmp" / "exps" / "celery").glob("*.pid"):
            with suppress(psutil.NoSuchProcess):
                worker = psutil.Process(int(file.read_text(encoding="utf-8")))
                if "queue-worker" in worker.cmdline():
                    worker.terminate()


def test_network_is_added_without_code_and_two_experiments_run_in_parallel(clone: Project):
    for units in ("16", "24"):
        small = f"+models.small={{blocks: [{{filters: [8]}}], head: {{dense: [{units}]}}}}"
        clone.run("dvc", "exp", "run", "--queue", "--name", f"dense-{units}", "--set-param", small)
    with queue_workers(clone, 2):
        deadline = time.monotonic() + 240
        while (status := clone.run("dvc", "queue", "status").stdout).count("Success") < 2:
            assert "Failed" not in status, status + clone.run("dvc", "queue", "logs", "dense-16", check=False).stdout
            assert time.monotonic() < deadline, status
            time.sleep(2)
    output = clone.run("dvc", "queue", "logs", "dense-16").stdout
    assert ran(output) == ["config", "train@small", "replicate", "evaluate", "report"]
    client = mlflow.MlflowClient(f"sqlite:///{clone.root / 'mlflow.db'}")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    by_experiment = {
        run.data.tags.get("dvc.experiment"): run
        for run in client.search_runs(experiments, "attributes.run_name = 'small'")
    }
    for units in ("16", "24"):
        run = by_experiment[f"dense-{units}"]
        assert (run.info.status, run.data.params["head.dense.0"]) == ("FINISHED", units)
        assert "test_accuracy" in run.data.metrics
        assert client.list_artifacts(run.info.run_id)
        assert run.outputs
        model = client.get_logged_model(run.outputs.model_outputs[0].model_id)
        assert (Path(model.artifact_location.removeprefix("file://")) / "data" / MODEL).is_file()
    shown = json.loads(clone.run("dvc", "metrics", "diff", "--json", "main", "dense-16").stdout)
    assert (
        shown["results/metrics.json"]["small.accuracy"]["new"]
        == by_experiment["dense-16"].data.metrics["test_accuracy"]
    )


def test_mlflow_runs_stages_and_variants(clone: Project):
    def mlflow_run(*arguments: str) -> str:
        done = clone.run("mlflow", "run", ".", "--env-manager", "local", *arguments)
        return done.stdout + done.stderr

    assert ran(mlflow_run()) == []
    assert ran(mlflow_run("-e", "train", "-P", "model=model_2")) == ["train@model_2"]
    found = runs(clone)
    parent = found["model_2"].data.tags["mlflow.parentRunId"]
    assert mlflow.MlflowClient(f"sqlite:///{clone.root / 'mlflow.db'}").get_run(parent).info.status == "FINISHED"
    output = mlflow_run("-e", "variant", "-P", "set=models.model_1.fit.epochs=1")
    assert ran(output)[:2] == ["config", "train@model_1"]
    assert runs(clone)["model_1 · epochs 1"].data.params["fit.epochs"] == "1"


def test_plots_and_metrics_can_be_compared_between_revisions(repository: Project, tmp_path: Path):
    shown = json.loads(repository.run("dvc", "metrics", "show", "--json").stdout)
    shown = shown["revisions"]["workspace"]["data"]["results/metrics.json"]["data"] if "revisions" in shown else shown
    assert "model_1" in json.dumps(shown)
    repository.run("dvc", "plots", "diff", "HEAD", "--out", str(tmp_path))
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert all(
        name in page
        for name in ("Accuracy by epoch", "Loss by epoch", "Reliability", "model_1 - tuned", "zigzag", "predicted")
    )


def test_training_does_not_depend_on_the_test_images(clone: Project):
    np.save(clone.paths.split("test") / "images.npy", np.zeros((120, 28, 28, 1), np.uint8))
    before = clone.paths.model("model_1").read_bytes()
    clone.stage("train", "model_1")
    assert clone.paths.model("model_1").read_bytes() == before


def colour_waves(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Images of 32 x 32 x 3 in ten classes: waves of two directions, in five colours, with noise."""
    labels = np.arange(count) % 10
    colours = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [0, 1, 1]])
    across, down = np.meshgrid(np.arange(32), np.arange(32))
    phase = rng.uniform(0, 2 * np.pi, (count, 1, 1))
    waves = np.sin(np.where((labels % 2)[:, None, None], across, down) / 2 + phase)
    pixels = (
        128 + 80 * waves[..., None] * colours[labels // 2][:, None, None, :] + rng.normal(0, 20, (count, 32, 32, 3))
    )
    return pixels.clip(0, 255).astype(np.uint8), labels


def test_own_colour_images_need_only_a_catalogue_entry(project: Project):
    rng = np.random.default_rng(3)
    x_train, y_train = colour_waves(rng, 800)
    x_test, y_test = colour_waves(rng, 200)
    (project.root / "own").mkdir()
    np.savez(project.root / "own" / "waves.npz", x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    catalog = yaml.load(project.paths.catalog)
    catalog["waves"] = {
        "description": "waves",
        "image": [32, 32, 3],
        "classes": [str(label) for label in range(10)],
        "format": "npz",
        "sources": ["own"],
        "files": {"arrays": {"name": "waves.npz"}},
    }
    yaml.dump(catalog, project.paths.catalog)
    gallery = yaml.load(ROOT / "models" / "gallery.yaml")
    project.change(
        data={"dataset": "waves", "limit": None},
        models={"tiny_cnn": gallery["tiny_cnn"] | {"fit": {"epochs": 8, "batch_size": 16}}},
    )
    for stage in (["download"], ["validate"], ["train", "tiny_cnn"]):
        project.stage(*stage)
    trained = record(project, "tiny_cnn")
    assert trained.counts.parameters == 268_650
    assert trained.validation.accuracy > 0.9
    assert project.stage("evaluate", check=False).stderr.endswith("run `dvc repro` first\n")
