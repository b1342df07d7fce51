"""Data larger than memory and of many classes: the same results as in memory, with the limits made small."""

import errno
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pipeline.core.dataset import Split
from pipeline.core.errors import DataError
from pipeline.evaluate import baselines, corruptions, out_of_distribution, robustness, tables
from pipeline.formats import images as images_module
from pipeline.formats.images import Images
from pipeline.runtime import unusual
from pipeline.validate import measurements, registration
from tests import test_formats as formats
from tests.digits import digits
from tests.test_robustness import brightness


@pytest.mark.parametrize("write", [formats.write_idx, formats.write_npz, formats.write_zip])
def test_large_images_are_read_into_a_file(write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    entry = write(tmp_path)
    expected = formats.read(entry, tmp_path)["train"]
    monkeypatch.setattr(images_module, "IN_MEMORY", 0)
    names = sorted(tmp_path.parent.iterdir())
    found = formats.read(entry, tmp_path)["train"]
    assert isinstance(found.images.base, np.memmap) or isinstance(found.images, np.memmap)
    np.testing.assert_array_equal(found.images, expected.images)
    assert sorted(tmp_path.parent.iterdir()) == names  # the file has no name

    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "")

    monkeypatch.setattr(images_module.os, "posix_fallocate", full)
    with pytest.raises(DataError, match="No space left"):
        formats.read(entry, tmp_path)


def test_copies_of_large_images_are_found():
    sources = [Image.fromarray(image[..., 0]).resize((112, 100)) for image in digits().images[::25]]
    copies = [picture.rotate(3, Image.Resampling.BICUBIC) for picture in sources[:40]]
    pixels = np.stack([np.asarray(picture) for picture in [*sources, *copies]])[..., np.newaxis]
    rows, spectrum = measurements.measure({"train": Images(pixels, np.zeros(len(pixels), np.int64))})
    published = {"train": Images(pixels, np.zeros(len(pixels), np.int64))}
    found = measurements.compare(rows.assign(split="train"), spectrum, published, 2, 0.004, 1)["near_to"].to_numpy()
    assert (found[: len(sources)] == measurements.NONE).all()
    assert np.mean(found[len(sources) :] == np.arange(40)) > 0.85


def test_neighbours_are_found_among_many_cells(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(registration, "CELL", 8)
    vectors = np.random.default_rng(1).normal(0, 0.01, (4000, 8)).astype(np.float32)
    every = {(int(a), int(b)) for a, b in zip(*registration.neighbours(vectors, 1), strict=True)}
    monkeypatch.setattr(registration, "CENTRES", 100)  # of 500
    found = {(int(a), int(b)) for a, b in zip(*registration.neighbours(vectors, 1), strict=True)}
    assert len(found & every) > 0.9 * len(every)


def test_evaluation_in_parts_gives_the_same(monkeypatch: pytest.MonkeyPatch):
    images = np.random.default_rng(0).integers(0, 256, (60, 12, 12, 1), np.uint8)
    images[:40, :4], images[:40, -4:], images[:40, :, :4], images[:40, :, -4:] = 0, 0, 0, 0
    split = Split(images, np.arange(60) % 2)
    model = keras.Sequential([keras.Input((12, 12, 1)), keras.layers.Flatten(), keras.layers.Dense(2)])

    def results() -> list[pd.DataFrame]:
        errors = robustness.corruption_errors({"net": brightness}, split, seed=1)
        fitted = baselines.fit(split, 2, seed=1)[baselines.LINEAR](images)
        limits = unusual.limits(model, images)
        return [
            errors[errors["corruption"].isin(["clean", "brightness", "stripe", "canny_edges"])],  # without draws
            robustness.shift_consistency({"net": brightness}, images, seed=1),
            out_of_distribution.detection({"net": brightness}, images, seed=1).query("against == 'inverted'"),
            pd.DataFrame([limits.model_dump()]),
            pd.DataFrame(fitted),
        ]

    expected = results()
    monkeypatch.setattr(robustness, "PART", 17 * 144)
    for module in (corruptions, out_of_distribution, unusual, baselines):
        monkeypatch.setattr(module, "VALUES", 7 * 144)
    monkeypatch.setattr(baselines, "PREDICTED", 11)
    for found, whole in zip(results(), expected, strict=True):
        pd.testing.assert_frame_equal(found, whole)


def test_pairs_of_many_classes_are_those_that_occur():
    names = [f"class {number}" for number in range(tables.COMPLETE + 1)]
    counts = pd.DataFrame(np.eye(len(names), dtype=int), columns=names)
    assert len(tables.confusion_pairs(counts.assign(actual=names))) == len(names)
