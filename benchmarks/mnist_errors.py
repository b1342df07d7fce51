"""Analyze the validation errors that a network of `make mnist` makes with all of its seeds:

  python -m benchmarks.mnist_errors --network recipe --write

Prints how many errors the seeds share, how many an ensemble of all seeds makes, how many are left where the images are
also rotated (own_networks/multi_column.py), and how many other networks share.
With --write, the table goes into docs/mnist.md, and a picture of the images that every seed misclassifies into
docs/images/mnist_errors.png. No test image is read.
"""
# ruff: noqa: E402  load_tensorflow has to come before what imports TensorFlow

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from pipeline.runtime.startup import load_tensorflow

load_tensorflow()

import keras

from benchmarks import mnist
from benchmarks.mnist import BEGIN, DOCUMENT, END, IMAGES
from benchmarks.project import ROOT, parser
from models.inference import PROBABILITIES
from models.own_code import FOLDER, OwnCode
from pipeline.core import config, dataset, records
from pipeline.core.config import Params
from pipeline.core.dataset import Split
from pipeline.core.paths import MODEL, Paths
from pipeline.report import markers
from pipeline.runtime import device, saved_model
from pipeline.runtime.predictor import predictor

COLUMNS = 8
ANGLE = 8  # degrees by which images are rotated, as in `multi_column` of the gallery


def load_seeds(paths: Paths, params: Params, name: str) -> list[keras.Model]:
    """Load the networks that were trained with the seeds of the run."""
    files = {paths.model(name): records.load_training(paths, name)}
    for seed, record in records.load_replicates(paths, name, params.replicate_seeds).items():
        files[paths.replicate(name, seed) / MODEL] = record
    return [saved_model.load(file, record.sha256) for file, record in files.items()]


def probabilities(models: list[keras.Model], images: np.ndarray) -> np.ndarray:
    """Of shape (seeds, images, classes)."""
    return np.stack([predictor(model)(images) for model in models])


def with_views(model: keras.Model) -> keras.Model:
    """The network's mean probabilities of an image and its rotations to both sides."""
    name = "multi_column.py"
    layers = OwnCode(name, (ROOT / FOLDER / name).read_bytes()).load()
    image = keras.Input(model.input_shape[1:])
    mean = layers.Mean(3)([model(layers.Views(ANGLE)(image))])
    return keras.Model(image, keras.layers.Activation("linear", name=PROBABILITIES)(mean))


def shared(wrong: np.ndarray) -> list[int]:
    """The number of images that 1, 2, ... of the seeds misclassify; `wrong` has the shape (seeds, images)."""
    return np.bincount(wrong.sum(axis=0), minlength=len(wrong) + 1)[1:].tolist()


def table(found: dict[str, np.ndarray], labels: np.ndarray, name: str) -> str:
    """A row per network: errors by seed, errors by the number of seeds that make them, errors of the ensemble."""
    always = ((found[name].argmax(axis=2) != labels).all(axis=0)).nonzero()[0]
    seeds = len(found[name])
    head = ["network", "errors by seed", f"made by 1, 2, ... {seeds} of the seeds", "errors of the mean of all seeds"]
    head += [
        "its loss",
        "mean loss of a seed",
        f"wrong in most seeds, of the {len(always)} that {name} always gets wrong",
    ]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for network, outputs in found.items():
        wrong = outputs.argmax(axis=2) != labels
        mean = outputs.mean(axis=0)
        own = -np.log(outputs[:, np.arange(len(labels)), labels]).mean()
        cells = [network, ", ".join(map(str, wrong.sum(axis=1))), ", ".join(map(str, shared(wrong)))]
        cells += [str((mean.argmax(axis=1) != labels).sum())]
        cells += [f"{-np.log(mean[np.arange(len(labels)), labels]).mean():.4f}", f"{own:.4f}"]
        cells += [str((wrong[:, always].mean(axis=0) > 0.5).sum())]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + f"\n\n{len(labels):,} validation images.\n"


def draw(split: Split, outputs: np.ndarray, target: Path) -> None:
    """The images that every seed misclassifies: label, prediction and its mean probability."""
    predicted, mean = outputs.argmax(axis=2), outputs.mean(axis=0)
    always = (predicted != split.labels).all(axis=0).nonzero()[0]
    rows = -(-len(always) // COLUMNS)
    figure, axes = plt.subplots(rows, COLUMNS, figsize=(1.1 * COLUMNS, 1.35 * rows), squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, image in zip(axes.flat, always, strict=False):
        guess = mean[image].argmax()
        axis.imshow(split.images[image].squeeze(), cmap="gray_r")
        axis.set_title(f"{split.labels[image]} → {guess} ({mean[image, guess]:.0%})", fontsize=8)
    figure.tight_layout(pad=0.3)
    figure.savefig(target, dpi=100)


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--folder", type=Path, default=mnist.FOLDER, help="where the pipeline ran")
    arguments.add_argument("--network", default="recipe")
    arguments.add_argument("--write", action="store_true")
    given = arguments.parse_args()
    paths = Paths(given.folder)
    params = config.load(paths)
    device.start(params.runtime)
    split = dataset.load_training(paths).validation
    own = load_seeds(paths, params, given.network)
    found = {
        given.network: probabilities(own, split.images),
        f"{given.network}, mean with rotations by ±{ANGLE}°": probabilities(list(map(with_views, own)), split.images),
    }
    for name in params.models:
        if name != given.network:
            found[name] = probabilities(load_seeds(paths, params, name), split.images)
    text = table(found, split.labels, given.network)
    print(text)
    if given.write:
        picture = "\n![The validation images that every seed misclassifies](images/mnist_errors.png)\n"
        markers.write(DOCUMENT, BEGIN.format("errors"), END.format("errors"), text + picture)
        draw(split, found[given.network], IMAGES / "mnist_errors.png")


if __name__ == "__main__":
    main()
