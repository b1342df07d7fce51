"""Robustness and out-of-distribution metrics against cases worked by hand, and against scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from pipeline.core.dataset import Split
from pipeline.core.errors import DataError
from pipeline.evaluate import corruptions, robustness
from pipeline.evaluate.corruptions import CORRUPTIONS, corrupt
from pipeline.evaluate.out_of_distribution import KINDS, detection
from pipeline.runtime.predictor import Predict

RNG = np.random.default_rng(0)


def dots(count: int = 6, side: int = 15) -> np.ndarray:
    """A white pixel in the middle of black images."""
    images = np.zeros((count, side, side, 1), np.uint8)
    images[:, side // 2, side // 2] = 255
    return images


def constant(images: np.ndarray) -> np.ndarray:
    return np.tile([0.2, 0.5, 0.3], (len(images), 1))


def reading(row: int, column: int) -> Predict:
    """A network that predicts 1 where one pixel is white, otherwise 0."""

    def predict(images: np.ndarray) -> np.ndarray:
        lit = images[:, row, column, 0] / 255
        return np.stack([1 - lit, lit], axis=1)

    return predict


def brightness(images: np.ndarray) -> np.ndarray:
    """A network of two classes whose probability of the second is the mean brightness."""
    mean = images.mean(axis=(1, 2, 3)) / 255
    return np.stack([1 - mean, mean], axis=1)


def test_errors_are_those_of_the_corrupted_images():
    images, labels = RNG.integers(0, 256, (40, 8, 8, 1), np.uint8), RNG.integers(0, 2, 40)
    found = robustness.corruption_errors({"b": brightness, "a": reading(3, 3)}, Split(images, labels), seed=7)
    assert found["model"].tolist() == ["b"] * 16 + ["a"] * 16
    assert found["corruption"].tolist() == ["clean", *CORRUPTIONS] * 2
    errors = found.set_index(["model", "corruption"])["error"]
    assert errors["a", "clean"] == np.mean((images[:, 3, 3, 0] > 127) != labels)
    assert errors["b", "fog"] == np.mean((corrupt("fog", images, 7).mean(axis=(1, 2, 3)) > 127.5) != labels)


def test_relative_errors_and_their_mean_by_hand(monkeypatch: pytest.MonkeyPatch):
    """The stripe keeps the middle of an image and inverts the rest, brightness turns all of it grey."""
    images, labels = dots(4), np.array([0, 0, 0, 1])
    models = {"middle": reading(7, 7), "corner": reading(0, 0)}
    monkeypatch.setattr(corruptions, "CORRUPTIONS", {name: CORRUPTIONS[name] for name in ("stripe", "brightness")})
    errors = robustness.corruption_errors(models, Split(images, labels), seed=1)
    # Middle: always white. Corner: black, white under the stripe, and just above the middle grey when brighter.
    assert errors["error"].tolist() == [0.75, 0.75, 0.75, 0.25, 0.75, 0.75]
    assert errors["relative"].tolist() == pytest.approx([1, 1, 1, 1 / 3, 1, 1])
    summary = robustness.corruption_summary(errors).set_index("model")
    assert summary.index.tolist() == ["middle", "corner"]
    assert list(summary.loc["corner"]) == [0.25, 0.75, 1.0, "stripe"]
    assert summary.loc["middle", "mean_error"] == 0.75


def test_relative_error_is_missing_where_the_reference_has_none():
    images, labels = dots(4), np.ones(4, int)
    models = {"constant": constant, "middle": reading(7, 7)}
    errors = robustness.corruption_errors(models, Split(images, labels), seed=1)
    assert errors["relative"].isna().all()


def test_images_are_corrupted_once_for_all_networks(monkeypatch: pytest.MonkeyPatch):
    made = []
    monkeypatch.setattr(robustness.corruptions, "corrupt", lambda name, images, *_: made.append(name) or images)
    robustness.corruption_errors({"a": constant, "b": constant}, Split(dots(), np.ones(6)), seed=1)
    assert made == list(CORRUPTIONS)


def test_constant_network_is_consistent():
    found = robustness.shift_consistency({"constant": constant}, dots(10), seed=1)
    assert found["shift"].tolist() == [1, 2, 3, 4]
    assert (found[["consistency", "pairwise", "high"]] == 1).all(axis=None)
    assert found["low"].tolist() == pytest.approx([10 / (10 + 1.959964**2)] * 4)  # Wilson's bound for 10 of 10
    assert (found["images"] == 10).all()


def test_network_of_one_pixel_is_inconsistent_and_pairs_are_counted():
    found = robustness.shift_consistency({"middle": reading(7, 7), "far": reading(7, 9)}, dots(), seed=1)
    middle, far = found[:4], found[4:]
    assert (middle["consistency"] == 0).all()
    places = (2 * middle["shift"] + 1) ** 2
    assert middle["pairwise"].tolist() == pytest.approx((1 - 2 / places).tolist())  # one place differs from the rest
    assert far["consistency"].tolist() == [1, 0, 0, 0]


def test_networks_see_every_shift_once():
    seen = []

    def spy(images: np.ndarray) -> np.ndarray:
        seen.append(images)
        return constant(images)

    robustness.shift_consistency({"spy": spy}, dots(2), seed=1, max_shift=1)
    assert [len(images) for images in seen] == [2, 16]
    places = {tuple(np.argwhere(image[..., 0])[0]) for image in seen[1]}
    assert places == {(row, column) for row in (6, 7, 8) for column in (6, 7, 8)} - {(7, 7)}


def test_images_without_a_black_border_are_left_out():
    images = dots(5)
    images[0, 1, 7] = images[1, 13, 7] = 1  # one row of black above, below
    images[2, 7, 1] = images[3, 7, 13] = 1  # one column of black to the left, to the right
    assert robustness.shift_consistency({"c": constant}, images, seed=1, max_shift=1)["images"].tolist() == [5]
    assert robustness.shift_consistency({"c": constant}, images, seed=1, max_shift=2)["images"].tolist() == [1, 1]
    none = robustness.shift_consistency({"c": constant}, images[:4], seed=1, max_shift=2)
    assert list(none.columns) == list(robustness.shift_consistency({"c": constant}, images, seed=1).columns)
    assert none.empty


def test_sample_is_bounded_and_deterministic():
    assert robustness.sample(5, None, 1).tolist() == robustness.sample(5, 5, 1).tolist() == [0, 1, 2, 3, 4]
    first = robustness.sample(1000, 10, 1)
    assert len(set(first)) == 10
    assert (np.diff(first) > 0).all()
    assert np.array_equal(first, robustness.sample(1000, 10, 1))
    assert not np.array_equal(first, robustness.sample(1000, 10, 2))
    assert robustness.shift_consistency({"c": constant}, dots(10), seed=1, limit=4)["images"].tolist() == [4] * 4


def test_detection_agrees_with_scikit_learn():
    images = RNG.integers(0, 120, (50, 6, 6, 1), np.uint8)
    other = RNG.integers(0, 140, (30, 6, 6, 1), np.uint8)
    found = detection({"m": brightness}, images, seed=1, other=other)
    assert found["against"].tolist() == [*KINDS, "other_dataset"]
    scores = [brightness(part).max(axis=1) for part in (images, other)]
    area = roc_auc_score([1] * 50 + [0] * 30, np.concatenate(scores))
    assert found.set_index("against")["auroc"]["other_dataset"] == area
    # Permuted pixels have the same mean, so the brightness has no information.
    assert found.set_index("against")["auroc"]["permuted"] == 0.5


def test_detection_by_hand():
    """Confidence 0.9 and 0.6 for the images, 0.8 and 0.5 for the others: three of four pairs are in order."""
    images, other = (
        np.array(values, np.uint8).reshape(2, 1, 1, 1) * np.ones((1, 4, 4, 1), np.uint8)
        for values in ([25, 102], [51, 127])
    )
    found = detection({"m": brightness, "constant": constant}, images, seed=1, other=other)
    areas = found.set_index(["model", "against"])["auroc"]
    assert areas["m", "other_dataset"] == 0.75
    assert (areas["constant"] == 0.5).all()


def test_images_of_another_shape_are_refused():
    with pytest.raises(DataError, match=r"\(16, 15, 1\); allowed: \(15, 15, 1\)"):
        detection({"c": constant}, dots(), seed=1, other=np.zeros((3, 16, 15, 1), np.uint8))


@pytest.mark.parametrize("kind", KINDS)
def test_out_of_distribution_images_are_new_and_deterministic(kind: str):
    images = RNG.integers(0, 256, (20, 9, 7, 3), np.uint8)
    before = images.copy()
    first, second = (KINDS[kind](images, np.random.default_rng(3)) for _ in range(2))
    assert (first.shape, first.dtype) == (images.shape, np.uint8)
    assert np.array_equal(first, second)
    assert np.array_equal(images, before)
    assert not np.array_equal(first, images)


def test_content_of_out_of_distribution_images():
    images, rng = RNG.integers(0, 256, (20, 28, 28, 3), np.uint8), np.random.default_rng(1)
    mixed = KINDS["permuted"](images, rng)
    assert np.array_equal(
        np.sort(mixed.reshape(20, -1, 3).view("u1,u1,u1"), axis=1),
        np.sort(images.reshape(20, -1, 3).view("u1,u1,u1"), axis=1),
    )
    assert np.array_equal(KINDS["inverted"](images, rng), 255 - images)
    greys = KINDS["blank"](images, rng)
    assert (np.ptp(greys, axis=(1, 2, 3)) == 0).all()
    assert (greys[0, 0, 0, 0], greys[-1, 0, 0, 0]) == (0, 255)
    noise = KINDS["gaussian_noise"](images, rng)
    assert (noise.mean(), noise.std()) == pytest.approx(
        (127.5, 62), rel=0.03
    )  # less than 64: clipped at black and white
    even = KINDS["uniform_noise"](images, rng)
    assert (even.mean(), even.std()) == pytest.approx((127.5, 73.9), rel=0.03)
