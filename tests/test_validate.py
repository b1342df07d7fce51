"""validate: every check finds its own faults only; errors stop the stage and keep the old arrays, warnings do not."""

import hashlib
import json
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.core import config
from pipeline.core.errors import DataError
from pipeline.core.sections import CHECKS, Data
from pipeline.formats.images import Images
from pipeline.validate import __main__, findings, label_errors, measurements, schema, splits
from tests import data_server
from tests.conftest import ROOT, Project, yaml
from tests.digits import digits

CLASSES = ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9")
MNIST = ROOT.parent / "shared" / "datasets" / "mnist"
BOUNDS = config.load(config.Paths(ROOT)).validate_
needs_mnist = pytest.mark.skipif(not MNIST.is_dir(), reason="../shared/datasets/mnist does not exist")


class Own:
    """A project with a dataset of 1,000 digits, 800 to train on and 200 for the test, as arrays to be damaged."""

    def __init__(self, project: Project) -> None:
        self.project = project
        images, labels = digits().images, digits().labels
        chosen = np.concatenate([np.flatnonzero(labels == label)[:100] for label in range(10)])
        test = np.arange(1000) % 5 == 0
        self.x_train, self.y_train = images[chosen[~test]], labels[chosen[~test]]
        self.x_test, self.y_test = images[chosen[test]], labels[chosen[test]]
        self.entry = {
            "description": "digits",
            "image": [28, 28, 1],
            "classes": list(CLASSES),
            "format": "npz",
            "sources": ["."],
            "files": {"arrays": {"name": "own.npz"}},
        }
        project.change(data={"dataset": "own", "limit": None})

    def write(self, **bounds) -> None:
        """Write the arrays in place of download, and set the bounds."""
        folder = self.project.paths.raw("own")
        folder.mkdir(parents=True, exist_ok=True)
        names = ("x_train", "y_train", "x_test", "y_test")
        np.savez(folder / "own.npz", **{name: getattr(self, name) for name in names})
        catalog = yaml.load(ROOT / "data" / "catalog.yaml")
        yaml.dump(catalog | {"own": self.entry}, self.project.paths.catalog)
        self.project.change(validate=bounds)

    def validate(self, **bounds) -> pd.DataFrame:
        """Run the stage and return its findings, whether they stop it or not."""
        self.write(**bounds)
        with suppress(DataError):
            __main__.run(self.project.paths)
        return self.read("findings")

    def read(self, table: str) -> pd.DataFrame:
        return pd.read_csv(self.project.paths.validation / f"{table}.csv")


@pytest.fixture
def own(project: Project) -> Own:
    return Own(project)


# Every check


def bad_label(own: Own) -> None:
    own.y_train[7] = 10


def constant(own: Own) -> None:
    own.x_train[7] = 255


def near_constant(own: Own) -> None:
    own.x_train[7] = 0
    own.x_train[7, 3, 3] = 90


def copy_within(own: Own) -> None:
    own.x_train[7] = own.x_train[8]


def copy_across(own: Own) -> None:
    own.x_test[0] = own.x_train[8]


def copy_with_other_label(own: Own) -> None:
    own.x_train[7] = own.x_train[8]
    own.y_train[7] = 1


def near_copy(own: Own) -> None:
    own.x_test[0] = own.x_train[8] // 10 * 9


def few(own: Own) -> None:
    own.x_test, own.y_test = own.x_test[1:], own.y_test[1:]


def fewer(own: Own) -> None:
    """Keep a quarter of the zeros."""
    keep = (own.y_train != 0) | (np.arange(800) < 20)
    own.x_train, own.y_train = own.x_train[keep], own.y_train[keep]


def without_a_class(own: Own) -> None:
    keep = own.y_test != 0
    own.x_test, own.y_test = own.x_test[keep], own.y_test[keep]


def darker(own: Own) -> None:
    own.x_test = own.x_test // 2


QUIET = {"min_label_margin": -10.0}


@pytest.mark.parametrize(
    ("damage", "bounds", "expected"),
    [
        (None, {}, {}),
        (bad_label, {}, {"label": 1}),
        (constant, {}, {"constant": 1, "near_constant": 1}),
        (near_constant, {}, {"near_constant": 1}),
        (copy_within, {}, {"duplicate_within_split": 1}),
        (copy_across, {}, {"duplicate_across_splits": 1}),
        (copy_with_other_label, {}, {"duplicate_within_split": 1, "conflicting_labels": 1}),
        (near_copy, {}, {"near_duplicate": 1}),
        (few, {"min_images_per_class": 8}, {}),
        (few, {"min_images_per_class": 20}, {"too_few_images": 11}),  # of validation all, of the test one
        (fewer, {"max_class_imbalance": 99, "min_images_per_class": 2}, {"class_share": 2}),
        (fewer, {"max_share_ratio": 99, "min_images_per_class": 2}, {"imbalance": 2}),
        (without_a_class, {"max_share_ratio": 99, "min_images_per_class": 0}, {"missing_class": 1}),
        (darker, {}, {"drift": 3}),
    ],
)
def test_each_fault_fails_its_own_check(own: Own, damage: Callable[[Own], None] | None, bounds: dict, expected: dict):
    if damage:
        damage(own)
    least = bounds.pop("min_images_per_class", 8)
    if least == 0:
        least, expected = 1, expected | {"too_few_images": 1, "class_share": 1}
    found = own.validate(**QUIET | bounds, min_images_per_class=least)
    assert found.groupby("check").size().to_dict() == expected
    warned = {"near_constant", "near_duplicate"}
    assert set(found.loc[found["severity"] == "warning", "check"]) == warned & set(expected)
    assert own.project.paths.validated.exists() == (set(expected) <= warned)
    counted = own.read("checks").set_index("check")["found"]
    assert counted[counted > 0].to_dict() == expected


def test_images_of_another_size_fail_their_check():
    """The formats refuse them before the schema does."""
    published = {"train": digits()}
    rows, spectrum = measurements.measure(published)
    rows = measurements.compare(rows.assign(split="train"), spectrum, published, 10, 0.004, 1)
    found = findings.collect([(rows, schema.images(BOUNDS, (28, 27, 1), 10))], ("label_suspect", "near_duplicate"))
    assert found.groupby("check").size()["size"] == 5000


def test_every_check_belongs_to_a_schema():
    schemas = (schema.images(BOUNDS, (28, 28, 1), 10), schema.classes(BOUNDS), schema.splits(BOUNDS, 10))
    columns = [column for rules in schemas for column in rules.columns.values()]
    errors = [str(check.error) for part in (*schemas, *columns) for check in part.checks or ()]
    assert {error.partition(":")[0] for error in errors} >= set(CHECKS)


def test_a_rule_without_a_check_name_is_always_an_error():
    table = pd.DataFrame({"split": ["train", "train"], "images": [1, 1]})
    found = findings.collect([(table, schema.splits(BOUNDS, 10))], CHECKS)
    assert set(found.loc[found["check"] == "table", "severity"]) == {"error"}
    assert "missing_split" in set(found["check"])


def test_a_suspect_label_is_ranked_high_with_the_class_it_looks_like(own: Own):
    _, spectrum = measurements.measure({"train": Images(own.x_train, own.y_train)})
    margins, _ = label_errors.margins(spectrum, own.y_train, 10, seed=1)
    row = int(margins.argmax())
    truth = own.y_train[row]
    own.y_train[row] = (truth + 5) % 10
    found = own.validate()
    suspects = found[(found["published"] == "train") & (found["index"] == row)]
    assert suspects["check"].tolist() == ["label_suspect"]
    assert suspects["rank"].item() <= 3
    assert suspects["detail"].item() == f"looks like {truth}"
    assert own.project.paths.validated.exists()


def test_the_severity_of_a_check_is_configurable(own: Own):
    copy_across(own)
    own.x_test[1] = own.x_train[9] // 10 * 9
    found = own.validate(**QUIET, warnings=["duplicate_across_splits"], min_images_per_class=8)
    assert dict(zip(found["check"], found["severity"], strict=True)) == {
        "near_duplicate": "error",
        "duplicate_across_splits": "warning",
    }


def test_a_copy_is_listed_with_its_original(own: Own):
    copy_across(own)
    (detail,) = own.validate(**QUIET, min_images_per_class=8)["detail"]
    assert detail == f"like train 8, labelled {own.y_train[8]}"


def test_class_shares_are_compared_with_the_catalog(own: Own):
    shares = np.full(10, 80.0)
    shares[0] = 20
    keep = (own.y_train != 0) | (np.arange(800) < 20)
    own.x_train, own.y_train = own.x_train[keep], own.y_train[keep]
    keep = (own.y_test != 0) | (np.arange(200) < 5)
    own.x_test, own.y_test = own.x_test[keep], own.y_test[keep]
    own.entry["shares"] = (shares / shares.sum()).round(4).tolist()
    assert own.validate(**QUIET, min_images_per_class=2).empty


@needs_mnist
def test_planted_faults_in_mnist_are_found(tmp_path: Path):
    """A loose bound on the numbers that benchmarks/planted.py prints for docs/data.md."""
    from benchmarks import planted

    found = planted.plant_and_find(MNIST, tmp_path, seed=1)
    assert found["duplicate_across_splits"].notna().sum() == 16
    assert found["near_duplicate"].notna().sum() >= 12  # speckled copies are too different
    assert found["label_suspect"].notna().sum() >= 14


@pytest.mark.parametrize("labels", [(100, 101), (-1, -2), (2**63, 2**64 - 1)])
def test_labels_that_are_all_out_of_range_are_named(own: Own, labels: tuple[int, int]):
    for name in ("y_train", "y_test"):
        wrong = np.array(labels, np.uint64 if max(labels) > 2**63 - 1 else np.int64)
        setattr(own, name, wrong[getattr(own, name) % 2])
    own.write(**QUIET)
    with pytest.raises(DataError, match=r"label: not one of 0 to 9 \(1,000 found\)"):
        __main__.run(own.project.paths)


# Splits


def table(counts: dict[tuple[str, int], int]) -> pd.DataFrame:
    rows = [(split, label) for (split, label), count in counts.items() for _ in range(count)]
    frame = pd.DataFrame(rows, columns=["published", "label"])
    return frame.assign(sha256=[str(number) for number in range(len(frame))])


@pytest.mark.parametrize("limit", [1, 7, 50, 99, 100, 500])
def test_a_limit_is_exact_and_stratified(limit: int):
    rows = table({("train", 0): 33, ("train", 1): 33, ("test", 0): 17, ("test", 1): 17})
    split = splits.assign(rows, Data(dataset="x", validation_fraction=0.2, test_fraction=0.2, limit=limit), 1)
    kept = rows[split.notna()]
    assert len(kept) == min(limit, 100)
    counts = kept.groupby(["published", "label"]).size()
    exact = rows.groupby(["published", "label"]).size() * min(limit, 100) / 100
    assert ((counts - exact).abs().fillna(0) <= 1).all()


def test_copies_stay_together():
    rows = table({("train", 0): 50, ("train", 1): 50})
    rows["sha256"] = [str(number // 5) for number in range(len(rows))]
    split = splits.assign(rows, Data(dataset="x", validation_fraction=0.3, test_fraction=0.3), 1)
    assert (split.groupby(rows["sha256"]).nunique() == 1).all()
    assert set(split) == {"train", "validation", "test"}


def test_the_arrays_are_the_published_images(own: Own):
    own.validate(**QUIET, min_images_per_class=8)
    paths = own.project.paths
    info = json.loads((paths.validated / "dataset.json").read_text())
    assert info["images"] == {"train": 720, "validation": 80, "test": 200}
    assert np.array_equal(np.load(paths.split("test") / "images.npy"), own.x_test)
    assert np.array_equal(np.load(paths.split("test") / "labels.npy"), own.y_test)
    parts = [np.load(paths.split(name) / "images.npy") for name in ("train", "validation")]
    assert {image.tobytes() for part in parts for image in part} == {image.tobytes() for image in own.x_train}
    digest = hashlib.sha256()
    for name in ("train", "validation", "test"):
        for kind in ("images", "labels"):
            digest.update(np.load(paths.split(name) / f"{kind}.npy").tobytes())
    assert info["digest"] == digest.hexdigest()[:32]


# Existing data


def state(project: Project) -> dict[str, str]:
    files = [path for path in project.paths.validated.rglob("*") if path.is_file()]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_an_error_keeps_the_old_arrays_and_names_the_page(own: Own):
    own.validate(**QUIET, min_images_per_class=8)
    before = state(own.project)
    assert len(before) == 7
    bad_label(own)
    own.write()
    with pytest.raises(DataError, match=r"label: not one of 0 to 9 \(1 found\)") as error:
        __main__.run(own.project.paths)
    page = own.project.paths.validation / "validation.html"
    assert str(page.relative_to(own.project.root)) in str(error.value)
    assert "not one of 0 to 9" in page.read_text(encoding="utf-8")
    assert state(own.project) == before


@pytest.mark.parametrize("name", ["PANDERA_VALIDATION_ENABLED", "PANDERA_VALIDATION_DEPTH"])
def test_disabled_checks_are_refused(own: Own, name: str):
    own.write(min_images_per_class=8)
    value = {"PANDERA_VALIDATION_ENABLED": "False", "PANDERA_VALIDATION_DEPTH": "SCHEMA_ONLY"}[name]
    done = own.project.stage("validate", check=False, **{name: value})
    assert done.returncode == 1
    assert "pandera's checks are disabled" in done.stderr
    assert not own.project.paths.validated.exists()


PAUSED = """
import time
from pathlib import Path
from pipeline.core.dataset import Writer
from pipeline.core.paths import Paths
from pipeline.validate import __main__
write_split = Writer.write_split
def pause(*arguments):
    write_split(*arguments)
    Path("half-way").touch()
    time.sleep(60)
Writer.write_split = pause
__main__.run(Paths())
"""


def test_a_killed_validation_keeps_the_old_arrays(own: Own):
    own.validate(**QUIET, min_images_per_class=8)
    before = state(own.project)
    own.x_train = own.x_train[::-1].copy()
    own.y_train = own.y_train[::-1].copy()
    own.write()
    process = subprocess.Popen([sys.executable, "-c", PAUSED], cwd=own.project.root, env=own.project.environment())
    data_server.wait_for((own.project.root / "half-way").exists)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert state(own.project) == before
    own.project.stage("validate")
    assert state(own.project).keys() == before.keys()
    assert state(own.project) != before
    data = own.project.root / "data"
    assert sorted(path.name for path in data.iterdir()) == ["catalog.yaml", "raw", "validated"]


SMALL_DISK = f"""
import resource, runpy
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, {resource.RLIM_INFINITY}))
runpy.run_module("pipeline.validate", run_name="__main__")
"""


def test_a_full_disk_is_reported_and_keeps_the_old_arrays(own: Own):
    own.validate(**QUIET, min_images_per_class=8)
    before = state(own.project)
    command = [sys.executable, "-c", SMALL_DISK]
    done = subprocess.run(
        command, cwd=own.project.root, env=own.project.environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert f"error: {own.project.paths.validated}: cannot be written: File too large" in done.stderr
    assert state(own.project) == before


# The report


def test_the_report_is_small_complete_and_reproducible(own: Own):
    for damage in (constant, copy_across, near_copy, darker):
        damage(own)
    own.x_train[100:700] = own.x_train[100]
    own.validate()
    folder = own.project.paths.validation
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert sorted(first) == ["checks.csv", "classes.csv", "findings.csv", "splits.csv", "validation.html"]
    assert max(map(len, first.values())) < 1_000_000
    own.validate()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == first
    found, counted = own.read("findings"), own.read("checks").set_index("check")["found"]
    assert counted["duplicate_within_split"] > (found["check"] == "duplicate_within_split").sum() == 500
    page = first["validation.html"].decode()
    assert "invalid</span>" in page
    assert "http" not in page  # all content is embedded


def test_class_names_are_escaped(own: Own):
    own.entry["classes"] = [f"<script>alert({label})</script>" for label in range(10)]
    own.validate()
    assert "<script>" not in (own.project.paths.validation / "validation.html").read_text(encoding="utf-8")


def test_neither_stage_needs_tensorflow_mlflow_or_matplotlib(own: Own):
    own.write(min_images_per_class=8)
    program = (
        "import sys\n"
        "from pipeline.core.paths import Paths\n"
        "import pipeline.download.__main__, pipeline.download.download\n"
        "from pipeline.validate import __main__ as validate\n"
        "validate.run(Paths())\n"
        "print(sorted({'tensorflow', 'keras', 'mlflow', 'matplotlib'} & set(sys.modules)))"
    )
    assert own.project.run(sys.executable, "-c", program).stdout.endswith("[]\n")


def test_large_images_are_measured_in_small_chunks():
    assert measurements.chunks(3, (3000, 2000, 3)) == [slice(0, 1), slice(1, 2), slice(2, 3)]
    assert len(measurements.chunks(70_000, (28, 28, 1))) == 14
