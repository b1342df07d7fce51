"""Share of pictures that each warning concerns, of usual pictures (false alarms) and unusual ones (detections):

  python -m benchmarks.unusual model_2 [--images 400]

The network of artifacts/train must be of a dataset with `ink` in the catalogue. The usual pictures are validation
images; "limits from the other half" takes the limits from one half of them and the pictures from the other, in turn.
For comparison, the last column is the share whose highest probability is below that of 98% of the validation images.
"""

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from benchmarks.project import parser
from pipeline.core import dataset, records
from pipeline.core.paths import Paths
from pipeline.deploy import network, pictures
from pipeline.deploy.classifier import Classified, Classifier
from pipeline.deploy.model_source import SavedNetwork
from pipeline.deploy.network import LoadedNetwork
from pipeline.deploy.pictures import Upload
from pipeline.runtime import unusual

KINDS = ("out of distribution", "several objects", "turned")  # how the warnings begin
LETTERS = "ACDEFHKLMNPRTUVWXYadefhkmnprtuvwxy"  # those that are unlike digits
FONTS = ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSerif", "DejaVuSansMono")
SHEET = (300, 200)
PAPER, INK = 220, 40

Maker = Callable[[np.random.Generator, int], Image.Image]


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("network")
    arguments.add_argument("--images", type=int, default=400, help="of each kind, at most")
    given = arguments.parse_args()
    paths = Paths(Path.cwd())
    record = records.load_training(paths, given.network)
    record.require_data(dataset.load_info(paths).digest)
    source = SavedNetwork(paths.model(given.network), record.sha256, record.dataset, record)
    loaded = network.load(source, paths)
    validation = dataset.load(paths, "validation").images
    chosen = np.random.default_rng(0).permutation(len(validation))[: given.images]
    print(f"{loaded.identity}\n{loaded.limits}\n")
    print("| pictures | number | " + " | ".join(KINDS) + " | any | low probability |\n|---|---|---|---|---|---|---|")
    usual = validation[chosen]
    found = classified(loaded, [as_file(Image.fromarray(image[..., 0])) for image in usual])
    low = float(np.quantile([each.probabilities.max() for each in found], unusual.OUT_OF_DISTRIBUTION))
    row("validation images", found, low)
    halves, crossed = np.array_split(validation, 2), []
    for limiting, other in (halves, halves[::-1]):
        limited = replace(loaded, limits=unusual.limits(loaded.model, limiting))
        files = [as_file(Image.fromarray(image[..., 0])) for image in other[: given.images // 2]]
        crossed += classified(limited, files)
    row("validation images, limits from the other half", crossed, low)
    for name, make in kinds(usual[..., 0]).items():
        rng = np.random.default_rng([0, *name.encode()])
        row(name, classified(loaded, [as_file(make(rng, number)) for number in range(len(usual))]), low)


def kinds(images: np.ndarray) -> dict[str, Maker]:
    """Return the pictures of each kind: functions of a random generator and a number."""
    return {
        "on a sheet": lambda rng, number: on_sheet(images[number], rng),
        "turned by 90 degrees": lambda rng, number: on_sheet(np.rot90(images[number]), rng),
        "turned by 180 degrees": lambda rng, number: on_sheet(np.rot90(images[number], 2), rng),
        "turned by 270 degrees": lambda rng, number: on_sheet(np.rot90(images[number], 3), rng),
        "two side by side": lambda rng, number: on_sheet(
            np.concatenate([images[number], images[rng.integers(len(images))]], axis=1), rng
        ),
        "letters": lambda rng, number: letter(number),
        "lines and shapes": lambda rng, _: shape(rng),
        "noise": lambda rng, _: Image.fromarray(rng.integers(0, 256, images.shape[1:], np.uint8)),
        "shuffled pixels": lambda rng, number: Image.fromarray(
            rng.permutation(images[number].ravel()).reshape(images.shape[1:])
        ),
    }


def classified(loaded: LoadedNetwork, files: list[Upload]) -> list[Classified]:
    classifier, entry = Classifier(loaded), loaded.entry
    return [classifier.classify(pictures.read(file, entry.image, entry.ink)) for file in files]


def row(name: str, found: list[Classified], low: float) -> None:
    """Print the shares of pictures with each warning, with any, and with a highest probability below `low`."""
    warned = np.array([[any(text.startswith(kind) for text in each.warnings) for kind in KINDS] for each in found])
    unsure = np.mean([each.probabilities.max() < low for each in found])
    shares = [*warned.mean(axis=0), warned.any(axis=1).mean(), unsure]
    print(f"| {name} | {len(found)} | " + " | ".join(f"{share:.1%}" for share in shares) + " |", flush=True)


def as_file(picture: Image.Image) -> Upload:
    content = io.BytesIO()
    picture.save(content, "PNG" if picture.size[0] < SHEET[0] else "JPEG")
    return Upload(content.getvalue())


def on_sheet(image: np.ndarray, rng: np.random.Generator) -> Image.Image:
    """Draw an image, light on dark, at five times its size somewhere on light paper."""
    height, width = (5 * side for side in image.shape)
    strength = np.asarray(Image.fromarray(np.ascontiguousarray(image)).resize((width, height)), float) / 255
    sheet = np.full(SHEET[::-1], float(PAPER))
    top, left = rng.integers(0, SHEET[1] - height + 1), rng.integers(0, SHEET[0] - width + 1)
    sheet[top : top + height, left : left + width] += (INK - PAPER) * strength
    return Image.fromarray(sheet.astype(np.uint8))


def letter(number: int) -> Image.Image:
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    font = FONTS[number // len(LETTERS) % len(FONTS)]
    picture = Image.new("L", SHEET, PAPER)
    centre = (SHEET[0] / 2, SHEET[1] / 2)
    typeface = ImageFont.truetype(folder / f"{font}.ttf", 120)
    ImageDraw.Draw(picture).text(centre, LETTERS[number % len(LETTERS)], fill=INK, font=typeface, anchor="mm")
    return picture


def shape(rng: np.random.Generator) -> Image.Image:
    """Draw a rectangle, a triangle, a zigzag, or a circle with lines."""
    picture = Image.new("L", SHEET, PAPER)
    pen, width = ImageDraw.Draw(picture), int(rng.integers(6, 16))
    points = [(int(x), int(y)) for x, y in rng.integers(30, 170, (5, 2))]
    match rng.integers(4):
        case 0:
            pen.rectangle([40, 50, 160, 150], outline=INK, width=width)
        case 1:
            pen.polygon([(100, 30), (30, 160), (170, 160)], outline=INK, width=width)
        case 2:
            pen.line(points, fill=INK, width=width)
        case _:
            pen.line(points[:4], fill=INK, width=width)
            pen.ellipse([50, 50, 150, 150], outline=INK, width=width)
    return picture


if __name__ == "__main__":
    main()
