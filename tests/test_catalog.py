"""data/catalog.yaml: an invalid entry is reported by its key, before anything is downloaded."""

from typing import Any

import pytest

from pipeline.core import config
from pipeline.core.errors import ConfigError
from tests.conftest import ROOT, Project, yaml

SHA256 = "0" * 64
OWN = {
    "description": "mine",
    "image": [8, 8, 3],
    "classes": ["cat", "dog"],
    "format": "folder",
    "sources": ["folder:photos"],
    "files": {"images": {"name": "images.zip"}},
}


def load(project: Project, name: str = "own", **changes: Any) -> config.Catalog:
    catalog = yaml.load(ROOT / "data" / "catalog.yaml")
    yaml.dump(catalog | {name: OWN | changes}, project.paths.catalog)
    return config.load_catalog(project.paths)


def test_the_built_in_datasets_have_checksums_and_sizes():
    catalog = config.load_catalog(config.Paths(ROOT))
    assert {"mnist_5k", "mnist", "fashion_mnist", "kmnist"} <= set(catalog)
    files = [file for entry in catalog.values() for file in entry.files.values()]
    assert all(file.sha256 and file.size for file in files)
    assert len({file.sha256 for file in files}) == len(files)
    assert all(entry.licence and entry.citation for entry in catalog.values())


def test_optional_keys_have_defaults(project: Project):
    entry = load(project)["own"]
    assert entry.expected_shares == (0.5, 0.5)
    assert not entry.resize


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"files": {"images": {"name": "../images.zip"}}}, "own.files.images.name"),
        ({"files": {"images": {"name": ".."}}}, "own.files.images.name"),
        ({"files": {"images": {"name": "a/images.zip"}}}, "own.files.images.name"),
        ({"files": {"images": {"name": "images.rar"}}}, "own: format folder requires one archive"),
        ({"files": {"train": {"name": "images.zip"}}}, "own: format folder requires the files images"),
        ({"files": {"images": {"name": "images.zip", "sha256": "abc"}}}, "own.files.images.sha256"),
        ({"files": {"images": {"name": "images.zip", "size": 0}}}, "own.files.images.size"),
        ({"sources": []}, "own.sources"),
        ({"image": [8, 8, 4]}, "own.image.2"),
        ({"image": [0, 8, 1]}, "own.image.0"),
        ({"classes": ["cat"]}, "own.classes"),
        ({"classes": ["cat", "cat"]}, "own: two classes have the same name"),
        ({"classes": ["cat", "caf\u00e9", "cafe\u0301"]}, "own: two classes have the same name"),
        ({"classes": ["cat", "T-shirt/top"]}, "own: the class T-shirt/top cannot be the name of a folder"),
        ({"classes": ["cat", ".dog"]}, "own: the class .dog cannot be the name of a folder"),
        ({"classes": ["cat", "=1+1"]}, "own.classes.1"),
        ({"classes": ["cat", "@SUM(1)"]}, "own.classes.1"),
        ({"classes": ["cat", "-1+cmd"]}, "own.classes.1"),
        ({"classes": ["cat", "\t=1"]}, "own.classes.1"),
        ({"classes": ["cat", "a\x1b[31m"]}, "own.classes.1"),
        ({"shares": [0.5, 0.3, 0.2]}, "own: shares has 3 values for 2 classes"),
        ({"shares": [0.5, 0.4]}, "own: shares has the sum 0.900"),
        ({"licence": 3}, "own.licence"),
        ({"colour": True}, "own.colour: unknown key"),
        ({"format": "npz", "files": {"arrays": {"name": "a.npz"}}}, "own: a source folder:PATH"),
        (
            {"format": "npz", "files": {"arrays": {"name": "a.npz"}}, "sources": ["."], "resize": True},
            "own: resize is only allowed with format folder",
        ),
        (
            {
                "format": "idx",
                "sources": ["."],
                "files": {f"{s}_{k}": {"name": "same.gz"} for s in ("train", "test") for k in ("images", "labels")},
            },
            "own: two files have the same name",
        ),
    ],
)
def test_an_invalid_entry_is_reported_by_its_key(project: Project, changes: dict[str, Any], message: str):
    with pytest.raises(ConfigError) as caught:
        load(project, **changes)
    assert f"data/catalog.yaml: {message}" in str(caught.value)


def test_numbers_and_signs_within_a_name_are_no_formulas(project: Project):
    names = ("-1", "+0.5", "a=b", "T-shirt", "x@y")
    assert load(project, classes=list(names))["own"].classes == names


@pytest.mark.parametrize("name", ["../own", ".own", "a/b"])
def test_the_name_of_a_dataset_cannot_lead_outside_the_data_folder(project: Project, name: str):
    with pytest.raises(ConfigError):
        load(project, name=name)
