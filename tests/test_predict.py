"""Preparation of pictures: cropping, scaling, transparency, invalid files; and the command `predict`."""

import io
import json
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from pipeline.core.errors import DataError
from pipeline.deploy import pictures

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
def test_an_image_of_the_dataset_is_not_changed(tmp_path: Path, inverted: bool):
    pixels = disc(28, (9, 12), 4)
    file = saved(255 - pixels if inverted else pixels, tmp_path / "image.png")
    np.testing.assert_array_equal(pictures.read(file, DIGIT, 20).image[..., 0], pixels / np.float32(255))


@pytest.mark.parametrize(
    "make", [lambda a: a, lambda a: 255 - a, lambda a: 230 - a // 2, lambda a: np.stack([a] * 3, -1)]
)
def test_the_drawing_is_scaled_and_centred_by_mass(tmp_path: Path, make):
    image = pictures.read(saved(make(disc()), tmp_path / "image.png"), DIGIT, 20).image
    assert image.shape == DIGIT
    assert (image.dtype, image.min(), image.max()) == (np.float32, 0, 1)
    rows, columns = np.nonzero(image[..., 0] > 0.5)
    assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == (20, 20)
    np.testing.assert_allclose(ndimage.center_of_mass(image[..., 0]), (14, 14), atol=0.51)


@pytest.mark.parametrize("form", ["PNG", "WEBP", "GIF"])
@pytest.mark.parametrize("stroke", [0, 90, 160, 255])
def test_a_drawing_on_transparency_is_seen(form: str, stroke: int):
    layers = np.full((100, 100, 4), stroke, np.uint8)
    layers[..., 3] = disc()
    content = io.BytesIO()
    Image.fromarray(layers).save(content, form, lossless=True)  # of use for WebP alone
    found = pictures.read(pictures.Upload(content.getvalue()), DIGIT, 20)
    assert (found.image[14, 14, 0], found.image[0, 0, 0], found.notes) == (1, 0, ())


def test_of_an_animated_picture_the_first_frame_is_used(tmp_path: Path):
    first, second = Image.fromarray(disc()), Image.fromarray(255 - disc(radius=30))
    for form in ("gif", "webp", "png"):
        file = tmp_path / f"image.{form}"
        first.save(file, save_all=True, append_images=[second], lossless=True)
        found = pictures.read(file, DIGIT, 20)
        assert found.notes == ("animated: only the first frame was used",)
        np.testing.assert_allclose(
            found.image, pictures.read(saved(disc(), tmp_path / "still.png"), DIGIT, 20).image, atol=0.05
        )


def test_a_large_picture_is_reduced_first(tmp_path: Path):
    small = disc(300, (100, 150), 40)
    small[110:, 150:] = 0
    large = small.repeat(10, axis=0).repeat(10, axis=1)
    expected, found = (pictures.read(saved(each, tmp_path / "image.png"), DIGIT, 20) for each in (small, large))
    np.testing.assert_allclose(found.image, expected.image, atol=0.1)


def test_the_second_part_of_a_drawing_is_measured(tmp_path: Path):
    two = np.maximum(disc(centre=(30, 30), radius=20), disc(centre=(70, 70), radius=10))
    assert pictures.read(saved(disc(), tmp_path / "image.png"), DIGIT, 20).second_part == 0
    assert pictures.read(saved(255 - two, tmp_path / "image.png"), DIGIT, 20).second_part == pytest.approx(
        0.25, abs=0.02
    )


def test_a_speck_of_dust_is_left_out(tmp_path: Path):
    pixels = disc()
    pixels[95, 5] = 60
    clean, dusty = (pictures.read(saved(each, tmp_path / "image.png"), DIGIT, 20).image for each in (disc(), pixels))
    np.testing.assert_array_equal(clean, dusty)


def test_a_colour_picture_is_resized(tmp_path: Path):
    file = saved(np.full((50, 70, 3), (255, 0, 51), np.uint8), tmp_path / "image.png")
    image = pictures.read(file, (32, 32, 3), None).image
    np.testing.assert_allclose(image, np.broadcast_to(np.array([1, 0, 0.2]), (32, 32, 3)), atol=1e-6)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a readable PNG, JPEG, WebP or GIF"),
        (b"This is a letter.", "not a readable PNG, JPEG, WebP or GIF"),
        (b"\x89PNG\r\n\x1a\n" + bytes(40), "not a readable PNG, JPEG, WebP or GIF"),
        (None, "image.png: not found"),
    ],
)
def test_a_file_that_is_no_picture_is_refused(tmp_path: Path, content: bytes | None, message: str, capsys):
    file = tmp_path / "image.png"
    if content is not None:
        file.write_bytes(content)
    assert not pictures.accepted(file)
    assert message in capsys.readouterr().err
    with pytest.raises(DataError, match=message):
        pictures.read(file, DIGIT, 20)


def test_a_truncated_picture_is_refused(tmp_path: Path):
    file = saved(np.random.default_rng(0).integers(0, 255, (90, 90), np.uint8), tmp_path / "image.png")
    file.write_bytes(file.read_bytes()[:-2000])
    with pytest.raises(DataError, match=r"image\.png: not a readable PNG, JPEG, WebP or GIF file"):
        pictures.read(file, DIGIT, 20)


@pytest.mark.parametrize("form", pictures.FORMATS)
def test_a_damaged_picture_is_read_or_refused(form: str):
    content, rng = io.BytesIO(), np.random.default_rng(0)
    picture = Image.fromarray(disc()).convert("P" if form == "GIF" else "RGB")
    picture.save(content, form, exif=picture.getexif().tobytes(), comment=b"a disc")
    for _ in range(200):
        damaged = bytearray(content.getvalue())
        for place in rng.integers(0, len(damaged), rng.integers(1, 20)):
            damaged[place] = rng.integers(256)
        with suppress(DataError):
            pictures.read(pictures.Upload(bytes(damaged)), DIGIT, 20)


@pytest.mark.parametrize("side", [8_000, 20_000])
def test_a_huge_picture_is_refused_by_its_header(tmp_path: Path, side: int, capsys):
    Image.new("1", (side, side)).save(tmp_path / "image.png")
    assert not pictures.accepted(tmp_path / "image.png")
    assert "50,000,000 " in capsys.readouterr().err


def test_a_blank_picture_is_refused(tmp_path: Path):
    file = saved(np.full((90, 90), 240, np.uint8), tmp_path / "image.png")
    with pytest.raises(DataError, match="blank: its contrast is 0%"):
        pictures.read(file, DIGIT, 20)


def test_pictures_of_digits_are_classified(champion: Project, tmp_path: Path):
    digits, labels = some_digits(champion, 100)
    rng = np.random.default_rng(2)
    files = [str(tmp_path / f"{number}.jpg") for number in range(len(digits))]
    for file, digit in zip(files, digits, strict=True):
        drawn(digit, rng, paper=220, ink=40).save(file)
    letter = tmp_path / "letter.png"
    letter.write_text("not a picture", encoding="utf-8")
    done = champion.stage("predict", *files, str(letter), "--json", check=False)
    assert done.returncode == 1
    assert f"error: {letter}: not a readable PNG, JPEG, WebP or GIF" in done.stderr
    answer = json.loads(done.stdout)
    summary = "pooling lp·blur → flatten | dropout 0·0·0"
    expected = {"name": "own", "source": "models:/mnist_5k@champion", "version": "1", "summary": summary}
    assert answer["network"].items() >= expected.items()
    assert 0.85 < answer["network"]["validation_accuracy"] < 1
    predictions = answer["predictions"]
    assert [prediction["file"] for prediction in predictions] == files
    correct = [prediction["label"] == str(label) for prediction, label in zip(predictions, labels, strict=True)]
    assert np.mean(correct) > 0.85
    assert all(found["probability"] >= found["runner_up_probability"] > 0 for found in predictions)


def test_a_saved_network_is_loaded_if_its_checksum_is_known(champion: Project, tmp_path: Path):
    picture = saved(disc(), tmp_path / "image.png")
    file = champion.paths.model("own")
    table = champion.stage("predict", str(picture), "--model", str(file)).stdout
    assert "runner-up" in table
    assert table.startswith("own (")
    assert "dataset mnist_5k; pooling lp·blur → flatten | dropout 0·0·0; validation accuracy" in table
    foreign = tmp_path / "foreign.keras"
    foreign.write_bytes(file.read_bytes())
    wrong = champion.stage("predict", str(picture), "--model", str(foreign), "--sha256", "0" * 64, check=False)
    assert wrong.returncode == 1
    assert "0" * 64 in wrong.stderr


WITHOUT_TENSORFLOW = """
import runpy, sys
try:
    runpy.run_module("pipeline." + sys.argv.pop(1), run_name="__main__", alter_sys=True)
finally:
    print({"tensorflow", "keras", "mlflow"} & set(sys.modules))
"""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predict", "letter.png"], "letter.png: not a readable PNG, JPEG, WebP or GIF"),
        (["predict", "letter.png", "--model", "none.keras"], "--model none.keras: no such file; give a .keras file or"),
        (["predict", "letter.png", "--model", "foreign.keras"], "give its checksum: --sha256"),
        (
            ["predict", "letter.png", "--model", "artifacts/train/net/model.keras"],
            "artifacts/train/net/record.json: not found",
        ),
        (["serve", "--model", "foreign.keras"], "--model foreign.keras: not in the model registry"),
        (["export", "net", "--output", "net.tflite"], "artifacts/train/net/record.json: not found; run `dvc repro"),
    ],
)
def test_invalid_arguments_are_refused_before_tensorflow_is_loaded(
    project: Project, arguments: list[str], message: str
):
    project.paths.training("net").mkdir(parents=True)
    for file in ("letter.png", "foreign.keras", "artifacts/train/net/model.keras"):
        (project.root / file).write_text("neither a picture nor a network", encoding="utf-8")
    done = project.run(sys.executable, "-c", WITHOUT_TENSORFLOW, *arguments, check=False)
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stdout == "set()\n"
