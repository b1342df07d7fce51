"""Pictures of any kind -> classes: how they are fitted, which are refused, and the command."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from pipeline import pictures
from pipeline.errors import DataError

from .conftest import Project

DIGIT = (28, 28, 1)


def some_digits(project: Project, count: int) -> tuple[np.ndarray, np.ndarray]:
    folder = project.paths.split("test")
    return np.load(folder / "images.npy")[:count, ..., 0], np.load(folder / "labels.npy")[:count]


def drawn(digit: np.ndarray, rng: np.random.Generator, paper: int = 255, ink: int = 0) -> Image.Image:
    """A digit at five times its size, somewhere on a sheet of 200 x 300 pixels."""
    strength = np.asarray(Image.fromarray(digit).resize((140, 140)), float) / 255
    sheet = np.full((200, 300), float(paper))
    top, left = rng.integers(0, 60), rng.integers(0, 160)
    sheet[top : top + 140, left : left + 140] += (ink - paper) * strength
    return Image.fromarray(sheet.astype(np.uint8))


def disc(size: int = 100, centre: tuple[int, int] = (30, 60), radius: int = 12) -> np.ndarray:
    rows, columns = np.mgrid[:size, :size]
    return ((rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 < radius**2).astype(np.uint8) * 255


def saved(pixels: np.ndarray, file: Path) -> Path:
    Image.fromarray(pixels).save(file)
    return file


@pytest.mark.parametrize("inverted", [False, True])
def test_an_image_of_the_dataset_is_left_as_it_is(tmp_path: Path, inverted: bool):
    pixels = disc(28, (9, 12), 4)
    file = saved(255 - pixels if inverted else pixels, tmp_path / "image.png")
    np.testing.assert_array_equal(pictures.read(file, DIGIT, 20)[..., 0], pixels / np.float32(255))


@pytest.mark.parametrize(
    "make", [lambda a: a, lambda a: 255 - a, lambda a: 230 - a // 2, lambda a: np.stack([a] * 3, -1)]
)
def test_what_is_drawn_is_fitted_and_centred_by_mass(tmp_path: Path, make):
    image = pictures.read(saved(make(disc()), tmp_path / "image.png"), DIGIT, 20)
    assert image.shape == DIGIT
    assert (image.dtype, image.min(), image.max()) == (np.float32, 0, 1)
    rows, columns = np.nonzero(image[..., 0] > 0.5)
    assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == (20, 20)
    np.testing.assert_allclose(ndimage.center_of_mass(image[..., 0]), (13.5, 13.5), atol=0.5)


def test_a_transparent_picture_lies_on_white(tmp_path: Path):
    layers = np.zeros((100, 100, 4), np.uint8)
    layers[..., 3] = disc()  # black where it is drawn, transparent elsewhere
    image = pictures.read(saved(layers, tmp_path / "image.png"), DIGIT, 20)
    assert image[14, 14, 0] == 1
    assert image[0, 0, 0] == 0


def test_a_speck_of_dust_stays_outside(tmp_path: Path):
    pixels = disc()
    pixels[95, 5] = 60
    clean, dusty = (pictures.read(saved(picture, tmp_path / "image.png"), DIGIT, 20) for picture in (disc(), pixels))
    np.testing.assert_array_equal(clean, dusty)


def test_colour_is_resized(tmp_path: Path):
    file = saved(np.full((50, 70, 3), (255, 0, 51), np.uint8), tmp_path / "image.png")
    image = pictures.read(file, (32, 32, 3), None)
    np.testing.assert_allclose(image, np.broadcast_to(np.array([1, 0, 0.2]), (32, 32, 3)), atol=1e-6)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a readable PNG or JPEG"),
        (b"This is a letter.", "not a readable PNG or JPEG"),
        (b"\x89PNG\r\n\x1a\n" + bytes(40), "not a readable PNG or JPEG"),
        (None, "image.png: not found"),
    ],
)
def test_what_is_no_picture_is_named(tmp_path: Path, content: bytes | None, message: str):
    file = tmp_path / "image.png"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(DataError, match=message):
        pictures.check(file)


def test_a_picture_that_breaks_off_is_named(tmp_path: Path):
    file = saved(np.random.default_rng(0).integers(0, 255, (90, 90), np.uint8), tmp_path / "image.png")
    file.write_bytes(file.read_bytes()[:-2000])
    with pytest.raises(DataError, match=r"image\.png: not a readable PNG or JPEG file"):
        pictures.read(file, DIGIT, 20)


@pytest.mark.parametrize("side", [8_000, 20_000])
def test_a_huge_picture_is_refused_by_its_header(tmp_path: Path, side: int):
    Image.new("1", (side, side)).save(tmp_path / "image.png")
    with pytest.raises(DataError, match="50,000,000"):
        pictures.check(tmp_path / "image.png")


def test_an_empty_sheet_is_refused(tmp_path: Path):
    file = saved(np.full((90, 90), 240, np.uint8), tmp_path / "image.png")
    with pytest.raises(DataError, match="nothing is drawn on it"):
        pictures.read(file, DIGIT, 20)


def test_pictures_get_the_classes_that_their_digits_get(champion: Project, tmp_path: Path):
    digits, labels = some_digits(champion, 100)
    rng = np.random.default_rng(2)
    files = [str(tmp_path / f"{number}.jpg") for number in range(len(digits))]
    for file, digit in zip(files, digits, strict=True):
        drawn(digit, rng, paper=220, ink=40).save(file)
    letter = tmp_path / "letter.png"
    letter.write_text("no picture", encoding="utf-8")
    done = champion.stage("predict", *files, str(letter), "--json", check=False)
    assert done.returncode == 1
    assert f"error: {letter}: not a readable PNG or JPEG" in done.stderr
    answers = json.loads(done.stdout)
    assert [answer["file"] for answer in answers] == files
    right = [answer["label"] == str(label) for answer, label in zip(answers, labels, strict=True)]
    assert np.mean(right) > 0.85
    assert all(answer["probability"] >= answer["runner_up_probability"] > 0 for answer in answers)


def test_a_file_of_a_network_is_used_if_it_is_known(champion: Project, tmp_path: Path):
    picture = saved(disc(), tmp_path / "image.png")
    file = champion.paths.model("own")
    table = champion.stage("predict", str(picture), "--model", str(file)).stdout
    assert "runner-up" in table
    stranger = tmp_path / "stranger.keras"
    stranger.write_bytes(file.read_bytes())
    refused = champion.stage("predict", str(picture), "--model", str(stranger), check=False)
    assert refused.returncode == 1
    assert "give its checksum: --sha256" in refused.stderr
    wrong = champion.stage("predict", str(picture), "--model", str(stranger), "--sha256", "0" * 64, check=False)
    assert "instead of 0000" in wrong.stderr
