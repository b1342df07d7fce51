"""How many faults planted in MNIST the report of validate finds, and at what rank.

  python benchmarks/planted.py ../shared/datasets/mnist [--seeds 5]

Each time ten wrong labels, ten exact copies across the splits, and ten near copies: two each with noise, darker,
shifted by a pixel, with dead pixels, and through JPEG.
"""

import argparse
import io
import sys
import tempfile
from contextlib import redirect_stdout, suppress
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from ruamel.yaml import YAML

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from pipeline import config, readers, validate  # noqa: E402
from pipeline.errors import DataError  # noqa: E402
from pipeline.paths import Paths  # noqa: E402

COUNT = 10  # of each kind


def noisy(image: np.ndarray, draws: np.random.Generator) -> np.ndarray:
    return image + draws.normal(0, 8, image.shape)


def darker(image: np.ndarray, draws: np.random.Generator) -> np.ndarray:
    return image * 0.8


def shifted(image: np.ndarray, draws: np.random.Generator) -> np.ndarray:
    return np.roll(image, 1, axis=1)


def speckled(image: np.ndarray, draws: np.random.Generator) -> np.ndarray:
    return np.where(draws.random(image.shape) < 0.01, 255, image)


def compressed(image: np.ndarray, draws: np.random.Generator) -> np.ndarray:
    content = io.BytesIO()
    Image.fromarray(image.astype(np.uint8)).save(content, "JPEG", quality=75)
    return np.asarray(Image.open(content))


CHANGES = [noisy, darker, shifted, speckled, compressed]


def plant_and_find(mnist: Path, folder: Path, seed: int) -> pd.DataFrame:
    """Ranks of the planted faults in the report, ten of each check; NaN where it is not in findings.csv."""
    draws = np.random.default_rng(seed)
    entry = config.load_catalog(Paths(ROOT))["mnist"]
    train, test = readers.read(entry, mnist).values()
    x, y, x_test, y_test = (
        part.copy() for part in (train.images[..., 0], train.labels, test.images[..., 0], test.labels)
    )
    chosen = draws.choice(len(y), 3 * COUNT, replace=False)
    mislabelled, originals, sources = np.split(chosen, 3)
    y[mislabelled] = (y[mislabelled] + draws.integers(1, 10, COUNT)) % 10
    copies, likes = np.split(draws.choice(len(y_test), 2 * COUNT, replace=False), 2)
    x_test[copies], y_test[copies] = x[originals], y[originals]
    for number, (like, source) in enumerate(zip(likes, sources, strict=True)):
        changed = CHANGES[number % len(CHANGES)](x[source].astype(float), draws)
        x_test[like], y_test[like] = np.clip(np.rint(changed), 0, 255), y[source]

    paths = project(folder)
    np.savez(paths.raw("planted") / "planted.npz", x_train=x, y_train=y, x_test=x_test, y_test=y_test)
    with suppress(DataError), redirect_stdout(io.StringIO()):  # the copies are an error
        validate.run(paths)
    found = pd.read_csv(paths.validation / "findings.csv").set_index(["check", "published", "index"])["rank"]
    planted = {
        "label_suspect": ("train", mislabelled),
        "duplicate_across_splits": ("test", copies),
        "near_duplicate": ("test", likes),
    }
    return pd.DataFrame(
        {check: [found.get((check, split, row)) for row in rows] for check, (split, rows) in planted.items()}
    )


def project(folder: Path) -> Paths:
    yaml = YAML(typ="safe", pure=True)
    params, catalog = yaml.load(ROOT / "params.yaml"), yaml.load(ROOT / "data" / "catalog.yaml")
    params["data"] |= {"dataset": "planted", "limit": None}
    catalog["planted"] = catalog["mnist"] | {"format": "npz", "files": {"arrays": {"name": "planted.npz"}}}
    paths = Paths(folder)
    paths.raw("planted").mkdir(parents=True)
    yaml.dump(params, paths.params)
    yaml.dump(catalog, paths.catalog)
    return paths


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mnist", type=Path, help="the folder with the files of MNIST")
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    for seed in range(1, arguments.seeds + 1):
        with tempfile.TemporaryDirectory() as folder:
            found = plant_and_find(arguments.mnist, Path(folder), seed)
        for check in found:
            ranks = sorted(int(rank) for rank in found[check].dropna())
            print(f"seed {seed}: {check}: {len(ranks)} of {COUNT}, at ranks {', '.join(map(str, ranks))}")
        missed = [CHANGES[row % len(CHANGES)].__name__ for row in found.index[found["near_duplicate"].isna()]]
        print(f"seed {seed}: near copies not found: {', '.join(missed) or 'none'}", flush=True)


if __name__ == "__main__":
    main()
