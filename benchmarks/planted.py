"""Count how many faults planted in MNIST the stage validate finds, and at what rank.

  python -m benchmarks.planted ../shared/datasets/mnist [--seeds 5]
  python -m benchmarks.planted ../shared/datasets/mnist --copies 1000

Each seed plants 16 wrong labels, 16 exact copies across the splits, and 16 near copies: two each with noise, darker,
shifted by a pixel, with dead pixels, through JPEG, blurred, turned by 3 degrees, and cropped by a pixel on each side.

With --copies, so many near copies of one kind at a time follow the training images, and their recall is printed.
"""

import io
import tempfile
from contextlib import redirect_stdout, suppress
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageFilter

from benchmarks.project import ROOT, create, parser, yaml
from pipeline.core import config
from pipeline.core.errors import DataError
from pipeline.core.paths import Paths
from pipeline.formats.images import Images
from pipeline.formats.read import read
from pipeline.validate import measurements
from pipeline.validate.validate import validate

COUNT = 16  # of each fault


def picture(image: np.ndarray) -> Image.Image:
    return Image.fromarray(image.astype(np.uint8))


def compressed(image: np.ndarray) -> np.ndarray:
    content = io.BytesIO()
    picture(image).save(content, "JPEG", quality=75)
    return np.asarray(Image.open(content))


CHANGES = {  # of an image (28, 28), as float64
    "noisy": lambda image, draws: image + draws.normal(0, 8, image.shape),
    "darker": lambda image, draws: image * 0.8,
    "shifted": lambda image, draws: np.roll(image, 1, axis=1),
    "speckled": lambda image, draws: np.where(draws.random(image.shape) < 0.01, 255, image),
    "compressed": lambda image, draws: compressed(image),
    "blurred": lambda image, draws: np.asarray(picture(image).filter(ImageFilter.GaussianBlur(1))),
    "turned": lambda image, draws: np.asarray(picture(image).rotate(3, Image.Resampling.BICUBIC)),
    "cropped": lambda image, draws: np.asarray(
        picture(image).crop((1, 1, 27, 27)).resize((28, 28), Image.Resampling.BICUBIC)
    ),
}


def plant_and_find(mnist: Path, folder: Path, seed: int) -> pd.DataFrame:
    """Ranks of the planted faults, a column for each check; NaN where a fault is not in findings.csv.

    Args:
        mnist: the folder with the files of MNIST.
        folder: an empty folder for the project.
    """
    draws = np.random.default_rng(seed)
    published = read(config.load_catalog(Paths(ROOT))["mnist"], mnist).values()
    x, x_test = (split.images[..., 0].copy() for split in published)
    y, y_test = (split.labels.copy() for split in published)
    mislabelled, originals, sources = np.split(draws.choice(len(y), 3 * COUNT, replace=False), 3)
    y[mislabelled] = (y[mislabelled] + draws.integers(1, 10, COUNT)) % 10
    copies, near_copies = np.split(draws.choice(len(y_test), 2 * COUNT, replace=False), 2)
    x_test[copies], y_test[copies] = x[originals], y[originals]
    changes = list(CHANGES)
    for number, (near_copy, source) in enumerate(zip(near_copies, sources, strict=True)):
        x_test[near_copy] = changed(x[source], changes[number % len(changes)], draws)
        y_test[near_copy] = y[source]

    entry = yaml.load(ROOT / "data" / "catalog.yaml")["mnist"]
    entry |= {"format": "npz", "files": {"arrays": {"name": "planted.npz"}}}
    paths = create(folder, {"data": {"dataset": "planted", "limit": None}}, {"planted": entry})
    paths.raw("planted").mkdir(parents=True)
    np.savez(paths.raw("planted") / "planted.npz", x_train=x, y_train=y, x_test=x_test, y_test=y_test)
    with suppress(DataError), redirect_stdout(io.StringIO()):  # the copies are an error
        validate(config.load(paths), config.load_catalog(paths)["planted"], paths)
    found = pd.read_csv(paths.validation / "findings.csv").set_index(["check", "published", "index"])["rank"]
    planted = {
        "label_suspect": ("train", mislabelled),
        "duplicate_across_splits": ("test", copies),
        "near_duplicate": ("test", near_copies),
    }
    return pd.DataFrame(
        {check: [found.get((check, split, row)) for row in rows] for check, (split, rows) in planted.items()}
    )


def changed(image: np.ndarray, change: str, draws: np.random.Generator) -> np.ndarray:
    return np.clip(np.rint(CHANGES[change](image.astype(float), draws)), 0, 255).astype(np.uint8)


def near_copies_found(split: Images, change: str, count: int) -> tuple[float, int, list[str]]:
    """Recall of near copies that follow the images, those found near another image, pairs of the images themselves."""
    draws, size = np.random.default_rng(1), len(split.images)
    sources = draws.choice(size, count, replace=False)
    copies = np.stack([changed(split.images[source, ..., 0], change, draws) for source in sources])[..., np.newaxis]
    labels = np.concatenate([split.labels, split.labels[sources]])
    published = {"train": Images(np.concatenate([split.images, copies]), labels)}
    rows, spectrum = measurements.measure(published)
    params = config.load(Paths(ROOT))
    near, classes = params.validate_.min_distance, labels.max() + 1
    found = measurements.compare(rows.assign(split="train"), spectrum, published, classes, near, params.seed)
    near_to = found["near_to"].to_numpy()
    pairs = [f"{row} and {near_to[row]}" for row in np.flatnonzero(near_to[:size] != measurements.NONE)]
    right = near_to[size:] == sources
    return float(right.mean()), int(np.sum(~right & (near_to[size:] != measurements.NONE))), pairs


def print_recall(mnist: Path, count: int) -> None:
    split = read(config.load_catalog(Paths(ROOT))["mnist"], mnist)["train"]
    print(f"| {count:,} copies in {len(split.images):,} images | recall | near another image | other pairs |")
    print("|---|---|---|---|")
    for change in CHANGES:
        recall, wrong, pairs = near_copies_found(split, change, count)
        print(f"| {change} | {recall:.3f} | {wrong} | {', '.join(pairs) or 'none'} |", flush=True)


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("mnist", type=Path, help="the folder with the files of MNIST")
    arguments.add_argument("--seeds", type=int, default=5)
    arguments.add_argument("--copies", type=int, help="near copies of each kind among the training images")
    given = arguments.parse_args()
    if given.copies:
        print_recall(given.mnist, given.copies)
        return
    for seed in range(1, given.seeds + 1):
        with tempfile.TemporaryDirectory() as folder:
            found = plant_and_find(given.mnist, Path(folder), seed)
        for check in found:
            ranks = sorted(int(rank) for rank in found[check].dropna())
            print(f"seed {seed}: {check}: {len(ranks)} of {COUNT}, at ranks {', '.join(map(str, ranks))}")
        missed = [list(CHANGES)[row % len(CHANGES)] for row in found.index[found["near_duplicate"].isna()]]
        print(f"seed {seed}: near copies not found: {', '.join(missed) or 'none'}", flush=True)


if __name__ == "__main__":
    main()
