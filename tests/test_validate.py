"""validate: every check finds what it is for and nothing else; errors stop, warnings do not; what was there stays."""

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

from pipeline import atomic, config, inspection, label_errors, readers, schema, similarity, validate, validation
from pipeline.catalog import Entry, File
from pipeline.config import CHECKS, Data
from pipeline.errors import DataError
from pipeline.readers import Images
from tests import data_server
from tests.conftest import ROOT, Project, yaml

CLASSES = ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9")
MNIST = ROOT.parent / "shared" / "datasets" / "mnist"
needs_mnist = pytest.mark.skipif(not MNIST.is_dir(), reason="../shared/datasets with the files of MNIST is not there")


@pytest.fixture(scope="session")
def digits(validated: Project) -> Images:
    """The 5,000 images of mnist_5k."""
    entry = config.load_catalog(validated.paths)["mnist_5k"]
    return readers.read(entry, validated.paths.raw("mnist_5k"))["train"]


class Own:
    """A project whose dataset is made of some arrays: 800 digits to train on, 200 for the test."""

    def __init__(self, project: Project, digits: Images) -> None:
        self.project = project
        chosen = np.concatenate([np.flatnonzero(digits.labels == label)[:100] for label in range(10)])
        test = np.arange(1000) % 5 == 0
        self.x_train, self.y_train = digits.images[chosen[~test]].copy(), digits.labels[chosen[~test]].copy()
        self.x_test, self.y_test = digits.images[chosen[test]].copy(), digits.labels[chosen[test]].copy()
        self.entry = {
            "description": "made by a test",
            "image": [28, 28, 1],
            "classes": list(CLASSES),
            "format": "npz",
            "sources": ["."],
            "files": {"arrays": {"name": "own.npz"}},
        }
        project.change(data={"dataset": "own", "limit": None})

    def write(self, **bounds) -> None:
        """Put the arrays where download would, and make the bounds these."""
        folder = self.project.paths.raw("own")
        folder.mkdir(parents=True, exist_ok=True)
        names = ("x_train", "y_train", "x_test", "y_test")
        np.savez(folder / "own.npz", **{name: getattr(self, name) for name in names})
        catalog = yaml.load(ROOT / "data" / "catalog.yaml")
        yaml.dump(catalog | {"own": self.entry}, self.project.paths.catalog)
        self.project.change(validate=bounds)

    def validate(self, **bounds) -> pd.DataFrame:
        """What is found, whether it stops the stage or not."""
        self.write(**bounds)
        with suppress(DataError):
            validate.run(self.project.paths)
        return self.read("findings")

    def read(self, table: str) -> pd.DataFrame:
        return pd.read_csv(self.project.paths.validation / f"{table}.csv")


@pytest.fixture
def own(project: Project, digits: Images) -> Own:
    return Own(project, digits)


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
    """A quarter of the zeros."""
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


def test_images_of_another_size_fail_their_check(digits: Images):
    """Readers refuse them; the schema says it too."""
    entry = Entry(
        description="",
        image=(28, 27, 1),
        classes=CLASSES,
        format="csv",
        sources=("x",),
        files={"train": File(name="x")},
    )
    rows, spectrum = inspection.measure({"train": digits})
    rows = inspection.compare(rows.assign(split="train"), spectrum, {"train": digits}, 10, 0.004, 1)
    bounds = config.load(config.Paths(ROOT)).validate_
    checked = {"images": (rows, schema.images(bounds, entry.image, 10))}
    found = validation.findings(checked, ("label_suspect", "near_duplicate"))
    assert found.groupby("check").size()["size"] == 5000


def test_what_cannot_come_from_data_is_an_error_whatever_only_warns():
    bounds = config.load(config.Paths(ROOT)).validate_
    table = pd.DataFrame({"split": ["train", "train"], "images": [1, 1]})
    found = validation.findings({"splits": (table, schema.splits(bounds, 10))}, CHECKS)
    assert "table" in set(found["check"])
    assert set(found.loc[found["check"] == "table", "severity"]) == {"error"}
    assert "missing_split" in set(found["check"])


def test_a_suspect_label_is_ranked_high_with_the_class_that_it_looks_like(own: Own):
    _, spectrum = inspection.measure({"train": Images(own.x_train, own.y_train)})
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


def test_any_check_can_be_made_to_warn_and_any_to_stop(own: Own):
    copy_across(own)
    near_copy_of = own.x_test[1] = own.x_train[9] // 10 * 9
    assert near_copy_of.any()
    found = own.validate(**QUIET, warnings=["duplicate_across_splits"], min_images_per_class=8)
    assert dict(zip(found["check"], found["severity"], strict=True)) == {
        "near_duplicate": "error",
        "duplicate_across_splits": "warning",
    }


def test_a_copy_is_shown_with_what_it_is_a_copy_of(own: Own):
    copy_across(own)
    (detail,) = own.validate(**QUIET, min_images_per_class=8)["detail"]
    assert detail == f"like train 8, labelled {own.y_train[8]}"


def test_expected_shares_of_the_catalogue_count(own: Own):
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
    """The figures of docs/data.md are those of benchmarks/planted.py; here, that they hold roughly."""
    from benchmarks import planted

    found = planted.plant_and_find(MNIST, tmp_path, seed=1)
    assert found["duplicate_across_splits"].notna().sum() == 10
    assert found["near_duplicate"].notna().sum() == 6  # what is shifted or speckled is not nearly the same
    assert found["label_suspect"].notna().sum() == 10


# Splits


def table(counts: dict[tuple[str, int], int]) -> pd.DataFrame:
    rows = [(split, label) for (split, label), count in counts.items() for _ in range(count)]
    frame = pd.DataFrame(rows, columns=["published", "label"])
    return frame.assign(sha256=[str(number) for number in range(len(frame))])


@pytest.mark.parametrize("limit", [1, 7, 50, 99, 100, 500])
def test_a_limit_is_kept_exactly_with_the_shares_of_all(limit: int):
    rows = table({("train", 0): 33, ("train", 1): 33, ("test", 0): 17, ("test", 1): 17})
    split = validation.assign_splits(
        rows, Data(dataset="x", validation_fraction=0.2, test_fraction=0.2, limit=limit), 1
    )
    kept = rows[split.notna()]
    assert len(kept) == min(limit, 100)
    counts = kept.groupby(["published", "label"]).size()
    exact = rows.groupby(["published", "label"]).size() * min(limit, 100) / 100
    assert ((counts - exact).abs().fillna(0) <= 1).all()


def test_copies_stay_together():
    rows = table({("train", 0): 50, ("train", 1): 50})
    rows["sha256"] = [str(number // 5) for number in range(len(rows))]
    split = validation.assign_splits(rows, Data(dataset="x", validation_fraction=0.3, test_fraction=0.3), 1)
    assert (split.groupby(rows["sha256"]).nunique() == 1).all()
    assert set(split) == {"train", "validation", "test"}


def test_the_arrays_are_the_images_of_their_rows(own: Own):
    own.validate(**QUIET, min_images_per_class=8)
    paths = own.project.paths
    card = json.loads((paths.validated / "dataset.json").read_text())
    assert card["images"] == {"train": 720, "validation": 80, "test": 200}
    assert np.array_equal(np.load(paths.split("test") / "images.npy"), own.x_test)
    assert np.array_equal(np.load(paths.split("test") / "labels.npy"), own.y_test)
    parts = [np.load(paths.split(name) / "images.npy") for name in ("train", "validation")]
    assert {image.tobytes() for part in parts for image in part} == {image.tobytes() for image in own.x_train}
    digest = hashlib.sha256()
    for name in ("train", "validation", "test"):
        for kind in ("images", "labels"):
            digest.update(np.load(paths.split(name) / f"{kind}.npy").tobytes())
    assert card["digest"] == digest.hexdigest()[:32]


# What was there before


def state(project: Project) -> dict[str, str]:
    files = [path for path in project.paths.validated.rglob("*") if path.is_file()]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_an_error_leaves_the_validated_data_as_they_were(own: Own):
    own.validate(**QUIET, min_images_per_class=8)
    before = state(own.project)
    assert len(before) == 7
    bad_label(own)
    own.write()
    with pytest.raises(DataError, match=r"label: not one of 0 to 9 \(1 found\)"):
        validate.run(own.project.paths)
    assert state(own.project) == before


@pytest.mark.parametrize("name", ["PANDERA_VALIDATION_ENABLED", "PANDERA_VALIDATION_DEPTH"])
def test_checks_that_are_switched_off_are_refused(own: Own, name: str):
    own.write(min_images_per_class=8)
    value = {"PANDERA_VALIDATION_ENABLED": "False", "PANDERA_VALIDATION_DEPTH": "SCHEMA_ONLY"}[name]
    done = own.project.stage("validate", check=False, **{name: value})
    assert done.returncode == 1
    assert "pandera's checks are switched off" in done.stderr
    assert not own.project.paths.validated.exists()


PAUSED = """
import time
from pathlib import Path
from pipeline import inspection, validate, validation
from pipeline.paths import Paths
pixels, written = inspection.pixels, []
def pause(published, rows):
    if len(rows) > 100:
        (Path.cwd() / "half-way").touch()
        time.sleep(60)
    return pixels(published, rows)
write = validation._write_arrays
def paused(*args):
    inspection.pixels = pause
    write(*args)
validation._write_arrays = paused
validate.run(Paths())
"""


def test_a_killed_validation_leaves_what_was_there_and_nothing_else(own: Own):
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


def test_a_kill_between_the_two_renames_loses_nothing(own: Own):
    """The old folder has been moved away and the new one is not there yet: the next run puts the old one back."""
    own.validate(**QUIET, min_images_per_class=8)
    before = state(own.project)
    scratch = own.project.root / "data" / ".validated-killed__"
    scratch.mkdir()
    own.project.paths.validated.rename(scratch / "old")
    with pytest.raises(RuntimeError), atomic.folder(own.project.paths.validated):
        raise RuntimeError
    assert state(own.project) == before
    assert not scratch.exists()


def test_what_another_target_left_is_not_taken_for_ones_own(tmp_path: Path):
    """The names of networks may begin alike."""
    left = tmp_path / ".model-big-killed__" / "old"
    left.mkdir(parents=True)
    with pytest.raises(RuntimeError), atomic.folder(tmp_path / "model"):
        raise RuntimeError
    assert left.is_dir()
    assert not (tmp_path / "model").exists()


def test_a_full_disk_is_said_and_the_old_data_stay(own: Own):
    own.validate(**QUIET, min_images_per_class=8)
    before = state(own.project)
    program = "\n".join(
        [
            "import resource",
            f"resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, {resource.RLIM_INFINITY}))",
            "from pipeline.validate import main",
            "main()",
        ]
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(
        command, cwd=own.project.root, env=own.project.environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert f"error: {own.project.paths.validated}: cannot be written: File too large" in done.stderr
    assert state(own.project) == before


# The report


def test_the_report_is_small_complete_and_the_same_every_time(own: Own):
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
    assert "may not be trained on" in page
    assert "http" not in page  # it needs no other file


def test_names_from_outside_cannot_change_the_page(own: Own):
    own.entry["classes"] = [f"<script>alert({label})</script>" for label in range(10)]
    own.validate()
    assert "<script>" not in (own.project.paths.validation / "validation.html").read_text(encoding="utf-8")


def test_neither_stage_needs_tensorflow_or_mlflow(own: Own):
    own.write(min_images_per_class=8)
    program = (
        "import sys; from pipeline import download, validate; from pipeline.paths import Paths; validate.run(Paths());"
        "print(sorted({'tensorflow', 'keras', 'mlflow', 'matplotlib'} & set(sys.modules)))"
    )
    assert own.project.run(sys.executable, "-c", program).stdout.endswith("[]\n")


# Near duplicates


def test_distances_ignore_brightness_contrast_and_fine_noise(digits: Images):
    images = digits.images[::50]
    noise = np.random.default_rng(1).normal(0, 8, images.shape)
    spectrum = similarity.frequencies(images, similarity.FINE)
    for changed in (images // 2, images // 2 + 100, np.clip(images + noise, 0, 255)):
        other = similarity.frequencies(changed, similarity.FINE)
        assert similarity.distances(spectrum, other).max() < 0.01
    assert np.median(similarity.distances(spectrum, spectrum[::-1])) > 0.3


def test_frequencies_are_those_of_the_cosine_transform(digits: Images):
    from scipy.fft import dctn

    image = digits.images[0, ..., 0].astype(float)
    expected = dctn(image, type=2)[:8, :8] / 4 / 28**2
    found = similarity.frequencies(digits.images[:1])[0, 0].reshape(8, 8)
    assert np.allclose(found, expected.T, atol=1e-4)


def test_all_pairs_are_candidates_where_there_are_few_images():
    codes = np.array([0, 1, 2**63, 2**64 - 1], np.uint64)
    pairs = {
        pair for one, other in similarity.candidates(codes) for pair in zip(one.tolist(), other.tolist(), strict=True)
    }
    assert pairs == {(0, 1), (0, 2), (1, 2)}
    assert list(similarity.candidates(codes[:1])) == []


def test_large_images_are_looked_at_in_small_portions():
    assert inspection.chunks(3, (3000, 2000, 3)) == [slice(0, 1), slice(1, 2), slice(2, 3)]
    assert len(inspection.chunks(70_000, (28, 28, 1))) == 14


def test_constant_images_are_compared_without_dividing_by_nothing():
    images = np.zeros((4, 8, 8, 1), np.uint8)
    spectrum = similarity.frequencies(images)
    assert np.isfinite(similarity.distances(spectrum, spectrum)).all()
    margins, _ = label_errors.margins(spectrum, np.array([0, 1, 0, 5]), 2, seed=1)
    assert np.isnan(margins).all()


def test_margins_are_low_for_wrong_labels(digits: Images):
    _, spectrum = inspection.measure({"train": digits})
    labels = digits.labels.copy()
    wrong = np.arange(0, 5000, 100)
    labels[wrong] = (labels[wrong] + 1 + np.arange(50) % 9) % 10
    margins, best = label_errors.margins(spectrum, labels, 10, seed=1)
    assert (margins[wrong] < 0).mean() > 0.9
    assert (margins < 0).mean() < 0.12
    assert (best[wrong] == digits.labels[wrong]).mean() > 0.8


def test_labels_that_go_with_the_order_of_the_images_are_learned(digits: Images):
    order = np.argsort(np.arange(5000) % 500, kind="stable")  # 0, 1, ... 9, 0, 1, ...
    images, labels = digits.images[order], digits.labels[order]
    assert labels[:12].tolist() == [*range(10), 0, 1]
    margins, _ = label_errors.margins(inspection.measure({"train": Images(images, labels)})[1], labels, 10, seed=1)
    assert (margins > 0).mean() > 0.9


def test_labels_that_cannot_be_learned_are_not_judged(digits: Images):
    labels = np.random.default_rng(1).permutation(digits.labels)
    margins, _ = label_errors.margins(inspection.measure({"train": digits})[1], labels, 10, seed=1)
    assert np.isnan(margins).all()
