"""Draw the corruptions of the validated test images:  python docs/figures/corruptions.py

Run it in the project's folder. Writes docs/images/corruptions.png: the first image of each class, unchanged and under
each corruption.
"""

import argparse
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

sys.path.insert(0, str(Path(__file__).parents[2]))

from pipeline.core import command
from pipeline.core.errors import DataError
from pipeline.core.paths import Paths
from pipeline.evaluate import corruptions

SEED = 1
COLUMNS = 4  # of panels
ACROSS = 5  # images in a row of a panel


def draw(images: np.ndarray) -> Figure:
    """Draw a panel of the unchanged images, uint8 (n, h, w, c), and one for each corruption."""
    names = ["clean", *corruptions.CORRUPTIONS]
    rows = -(-len(names) // COLUMNS)
    figure, axes = plt.subplots(rows, COLUMNS, figsize=(2.4 * COLUMNS, 1.2 * rows))
    for axis, name in zip(axes.flat, names, strict=True):
        changed = images if name == "clean" else corruptions.corrupt(name, images, SEED)
        axis.imshow(montage(changed), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        axis.set_title(name.replace("_", " "), fontsize=9, pad=3)
        axis.set_axis_off()
    figure.tight_layout(pad=0.4)
    return figure


def montage(images: np.ndarray) -> np.ndarray:
    """Images side by side in rows of ACROSS; the last row is filled with black."""
    count, height, width, channels = images.shape
    rows = -(-count // ACROSS)
    tiles = np.zeros((rows * ACROSS, height, width, channels), np.uint8)
    tiles[:count] = images
    grid = tiles.reshape(rows, ACROSS, height, width, channels).swapaxes(1, 2)
    return grid.reshape(rows * height, ACROSS * width, channels)


def run(arguments: argparse.Namespace) -> None:
    """Draw the validated test images of the project.

    Raises:
        DataError: there are none.
    """
    folder, target = Paths().split("test"), arguments.output
    if not folder.is_dir():
        raise DataError(f"{folder}: no validated data; run `dvc repro validate` first")
    _, first = np.unique(np.load(folder / "labels.npy"), return_index=True)
    figure = draw(np.load(folder / "images.npy", mmap_mode="r")[first])
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=110, metadata={"Software": None})
    print(f"{target}: {target.stat().st_size / 1024:.0f} KB")


def main() -> None:
    parser = command.parser(__doc__)
    parser.add_argument("--output", type=Path, default=Path("docs/images/corruptions.png"))
    command.main(run, parser)


if __name__ == "__main__":
    main()
