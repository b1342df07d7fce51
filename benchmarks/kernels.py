"""What each of the training kernels is worth: processor time of a step of a network, with and without it.

  python benchmarks/kernels.py [--model model_2] [--turns 9]

Trains on data/validated (`dvc repro validate`) with Keras's own layers and Adam, with one of the project's replacements
(models/kernels.py, models/cnn.py, pipeline/adam.py) at a time, and with all. The variants take turns of an epoch each;
figures are medians over the turns. Processor time is that of all threads.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from unittest import mock

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from pipeline import config, runtime  # noqa: E402
from pipeline.paths import Paths  # noqa: E402

params = config.load(Paths(ROOT))
used = runtime.start(params.runtime)

import keras  # noqa: E402

from benchmarks.compiled import compiled  # noqa: E402
from models import cnn, kernels, layers  # noqa: E402
from pipeline import dataset, training  # noqa: E402

moved = cnn._layers_to_train


def in_order(plan: Iterable[layers.Layer], dtype: str) -> Iterator[keras.Layer]:
    """The layers to train with, each ReLU within its convolution."""
    for layer in plan:
        if isinstance(layer, layers.Convolution):
            yield cnn._keras_layer(layer, dtype)
        else:
            yield from moved([layer], dtype)


# What takes the place of each replacement when it is left out.
KERNELS = {
    "ReLU behind max pooling": (cnn, "_layers_to_train", in_order),
    "Adam by the fused kernel": (training, "Adam", keras.optimizers.Adam),
    "batch normalisation by the fused kernel": (kernels, "BatchNormalization", keras.layers.BatchNormalization),
    "dropout with 16 random bits for a value": (kernels, "Dropout", keras.layers.Dropout),
}


@contextmanager
def only(wanted: Iterable[str]) -> Iterator[None]:
    with ExitStack() as stack:
        for name, (place, attribute, own) in KERNELS.items():
            if name not in wanted:
                stack.enter_context(mock.patch.object(place, attribute, own))
        yield


def epoch_of(model: str, wanted: Iterable[str]) -> Callable[[], float]:
    """A compiled network; each call trains it for an epoch, and says what a step took, in ms of processor time."""
    paths, network = Paths(ROOT), params.model(model)
    card, train = dataset.load_card(paths), dataset.load(paths, "train")
    with only(wanted):
        built, batches = compiled(network, card, train, params.seed, used.precision)
        built.fit(batches.dataset, shuffle=False, verbose=0)  # traces the step, while the kernels are in place

    def epoch() -> float:
        began = time.process_time()
        built.fit(batches.dataset, shuffle=False, verbose=0)
        return 1000 * (time.process_time() - began) / batches.steps

    return epoch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="model_2", help="a network of params.yaml")
    parser.add_argument("--turns", type=int, default=9)
    arguments = parser.parse_args()
    variants = {"Keras's own layers and Adam": [], **{name: [name] for name in KERNELS}, "all of them": list(KERNELS)}
    epochs = {name: epoch_of(arguments.model, wanted) for name, wanted in variants.items()}
    taken: dict[str, list[float]] = {name: [] for name in epochs}
    for _ in range(arguments.turns):
        for name, epoch in epochs.items():
            taken[name].append(epoch())
    base = median(next(iter(taken.values())))
    print(f"{arguments.model}, a step of {params.model(arguments.model).fit.batch_size} images, {used.precision}\n")
    print("| | ms | times as fast |\n|---|---|---|")
    for name, milliseconds in taken.items():
        print(f"| {name} | {median(milliseconds):.1f} | {base / median(milliseconds):.2f} |")


if __name__ == "__main__":
    main()
