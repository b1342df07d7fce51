"""Scores and limits of unusual images: worked examples, and a trained network with pictures of known kinds."""

from dataclasses import replace

import keras
import numpy as np
import pytest

from pipeline.core import records
from pipeline.core.limits import Limits
from pipeline.deploy import network
from pipeline.deploy.classifier import Classifier
from pipeline.deploy.model_source import SavedNetwork
from pipeline.deploy.network import LoadedNetwork
from pipeline.deploy.pictures import Picture
from pipeline.runtime import drawing, unusual

from .conftest import Project


def linear(kernel: list[list[float]], activation: str = "softmax") -> keras.Model:
    """A network whose output layer receives the pixels of an image of 2 x 2 themselves."""
    output = keras.layers.Dense(2, activation=activation)
    model = keras.Sequential([keras.Input((2, 2, 1)), keras.layers.Flatten(), output])
    output.set_weights([np.array(kernel), np.zeros(2)])
    return model


@pytest.mark.parametrize("activation", ["softmax", "linear"])
def test_familiarity_is_the_cosine_to_the_nearest_class(activation: str):
    # Less their mean, the weights of the classes are (1, 0, 0, 1) and its negative.
    scorer = unusual.Scorer(linear([[2, 0], [5, 5], [0, 0], [2, 0]], activation))
    images = np.array([[1, 0, 0, 1], [0.1, 0, 0, 0.1], [0, 1, 1, 0], [1, 0, 1, 0]], np.float32).reshape(4, 2, 2, 1)
    found = scorer(images)
    np.testing.assert_allclose(found.familiarity, [1, 1, 0, 0.5], atol=1e-6)
    np.testing.assert_allclose(found.probabilities[:, 0], 1 / (1 + np.exp([-4, -0.4, 0, -2])), rtol=1e-5)
    turned = scorer.turned(images)
    np.testing.assert_allclose([each.familiarity[2] for each in turned], [0, 1, 0, 1], atol=1e-6)
    np.testing.assert_allclose(unusual.turn(turned), [0, 0, 1, 0], atol=1e-6)


@pytest.mark.parametrize(
    ("rows", "share"),
    [
        (["......", ".##...", ".##...", "......"], 0),
        (["......", ".##.#.", ".##.#.", "......"], 0.5),
        (["......", ".##...", ".##...", "...#.."], 0),  # parts that touch at a corner are one
        (["......", ".##..,", ".##..,", "......"], 0),  # faint and not connected
        (["......", ".##,,#", ".##...", "......"], 0),  # connected by faint pixels
    ],
)
def test_the_second_part_is_relative_to_the_largest(rows: list[str], share: float):
    pixels = np.array([[{".": 0.1, ",": 0.35, "#": 0.9}[each] for each in row] for row in rows])
    scaled, contrast = drawing.contrast(pixels)
    assert contrast == pytest.approx(0.8)
    assert drawing.second_part(drawing.mask(scaled)) == share


def test_a_known_share_of_validation_images_lies_beyond_each_limit():
    model, rng = linear([[2, 0], [5, 5], [0, 0], [2, 0]]), np.random.default_rng(0)
    images = rng.integers(0, 256, (1000, 2, 2, 1), np.uint8)
    found, scores = unusual.limits(model, images), unusual.Scorer(model).turned(images.astype(np.float32) / 255)
    assert found.turn is not None
    assert 0.015 < (scores[0].familiarity < found.familiarity).mean() <= unusual.OUT_OF_DISTRIBUTION
    assert 0.005 < (unusual.turn(scores) > found.turn).mean() <= unusual.TURNED
    assert found.second_part == unusual.SMALLEST_PART


def test_what_an_image_cannot_have_has_no_limit():
    model = keras.Sequential([keras.Input((2, 3, 3)), keras.layers.Flatten(), keras.layers.Dense(2)])
    found = unusual.limits(model, np.zeros((5, 2, 3, 3), np.uint8))
    assert (found.turn, found.second_part) == (None, None)


@pytest.fixture(scope="module")
def loaded(champion: Project) -> LoadedNetwork:
    record = records.load_training(champion.paths, "own")
    source = SavedNetwork(champion.paths.model("own"), record.sha256, record.dataset, record)
    found = network.load(source, champion.paths)
    return replace(found, limits=unusual.limits(found.model, images(champion, "validation")))


def images(project: Project, split: str) -> np.ndarray:
    return np.load(project.paths.split(split) / "images.npy")


def alarms(loaded: LoadedNetwork, pixels: np.ndarray) -> dict[str, float]:
    """The share of images that each warning concerns; `none`: of those without one."""
    classifier = Classifier(loaded)
    parts = [drawing.second_part(drawing.mask(drawing.contrast(each[..., 0] / 255)[0])) for each in pixels]
    shown = [Picture(each.astype(np.float32) / 255, part, ()) for each, part in zip(pixels, parts, strict=True)]
    found = [classifier.classify(picture).warnings for picture in shown]
    kinds = ("out of distribution", "several objects", "turned")
    shares = {kind: float(np.mean([kind in "".join(each) for each in found])) for kind in kinds}
    return shares | {"none": float(np.mean([not each for each in found]))}


def test_unusual_pictures_are_told_from_usual_ones(champion: Project, loaded: LoadedNetwork):
    digits = images(champion, "test")[:100]
    usual = alarms(loaded, digits)
    assert usual["none"] > 0.9
    turned = alarms(loaded, np.rot90(digits, axes=(1, 2)))  # by a network that is right for 91 % of the digits
    assert turned["turned"] > 0.2
    assert turned["out of distribution"] > 2 * usual["out of distribution"]
    pairs = np.concatenate([digits[:50, :, ::2], digits[50:, :, ::2]], axis=2)
    assert alarms(loaded, pairs)["several objects"] > 0.9


def test_without_limits_or_ink_there_are_no_such_warnings(loaded: LoadedNetwork):
    blank = np.zeros((1, 28, 28, 1), np.uint8)
    strict = replace(loaded, limits=Limits(familiarity=2.0, turn=-2.0, second_part=-1.0))
    assert alarms(strict, blank) == {"out of distribution": 1, "several objects": 1, "turned": 1, "none": 0}
    without_ink = replace(strict, entry=strict.entry.model_copy(update={"ink": None}))
    assert alarms(without_ink, blank) == {"out of distribution": 1, "several objects": 0, "turned": 0, "none": 0}
    assert alarms(replace(loaded, limits=None), blank)["none"] == 1
