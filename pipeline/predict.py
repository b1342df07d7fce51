"""Classify pictures:  python -m pipeline.predict digit.png photo.jpg [--model artifacts/models/model_2.keras]

PNG or JPEG files of any size; digits may be dark on light or light on dark. The network is the registered champion of
the configured dataset unless --model gives a file or another URI of the registry.
"""

import argparse
import json
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import config, pictures, stage, trained
from pipeline.errors import DataError
from pipeline.paths import Paths

if TYPE_CHECKING:
    import numpy as np

REGISTRY = "models:/"


@dataclass(frozen=True)
class Network:
    """Images of shape (n, *image), float32 in [0, 1], to probabilities of the classes; pictures are fitted to `ink`."""

    probabilities: "Callable[[np.ndarray], np.ndarray]"
    image: tuple[int, int, int]
    classes: tuple[str, ...]
    ink: int | None


@dataclass(frozen=True)
class Answer:
    """What a network says of one picture."""

    file: str
    label: str
    probability: float
    runner_up: str
    runner_up_probability: float


def predict(files: list[Path], model: str | None, sha256: str | None, paths: Paths) -> list[Answer]:
    """The answers for all files that can be read; the others are said on stderr.

    Raises:
        ConfigError, DataError: there is no such network, or it may not be loaded.
    """
    params = config.load(paths)
    uri = model or f"{REGISTRY}{params.data.dataset}@champion"
    readable = [file for file in files if _succeeds(lambda file=file: pictures.check(file))]
    if not readable:
        return []
    with redirect_stdout(sys.stderr):  # which has the answers alone
        from pipeline import runtime

        runtime.start(params.runtime)
    network = _registered(uri, paths) if uri.startswith(REGISTRY) else _of_file(Path(uri), sha256, paths)
    answers: list[Answer] = []
    for file in readable:
        _succeeds(lambda file=file: answers.append(_answer(file, network)))
    return answers


def _answer(file: Path, network: Network) -> Answer:
    image = pictures.read(file, network.image, network.ink)
    [probabilities] = network.probabilities(image[None])
    best, second = probabilities.argsort()[::-1][:2]
    return Answer(
        str(file),
        network.classes[best],
        float(probabilities[best]),
        network.classes[second],
        float(probabilities[second]),
    )


def _registered(uri: str, paths: Paths) -> Network:
    from pipeline.tracking import registry

    loaded = registry.load(paths, uri)
    entry = config.load_catalog(paths).get(loaded.dataset)
    return Network(loaded.predict, loaded.image, loaded.classes, entry.ink if entry else None)


def _of_file(file: Path, sha256: str | None, paths: Paths) -> Network:
    about = trained.of_file(file, paths)
    expected = sha256 or (about["sha256"] if about else None)
    if expected is None:
        raise DataError(
            f"{file}: not a network that was trained here, and to load one is to run what it holds; if you trust "
            "where it comes from, give its checksum: --sha256 HASH"
        )
    dataset = about["dataset"] if about else config.load(paths).data.dataset
    entry = config.load_catalog(paths).get(dataset)
    from models import inference
    from pipeline import artifacts

    model = artifacts.load(file, expected)
    takes, gives = model.input_shape[1:], model.output_shape[1:]
    if entry is None or takes != entry.image or gives != (len(entry.classes),):
        raise DataError(f"{file}: takes {takes} and gives {gives}: not made for the dataset {dataset}")
    return Network(lambda images: inference.probabilities(model, images), entry.image, entry.classes, entry.ink)


def _succeeds(work: Callable[[], object]) -> bool:
    try:
        work()
    except DataError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return False
    return True


def show(answers: list[Answer]) -> None:
    """Print a table."""
    from rich.console import Console
    from rich.table import Table

    table = Table("file", "class", "probability", "runner-up", "probability")
    for answer in answers:
        figures = f"{answer.probability:.1%}", f"{answer.runner_up_probability:.1%}"
        table.add_row(answer.file, answer.label, figures[0], answer.runner_up, figures[1])
    Console().print(table)


def main() -> None:
    parser = stage.parser(__doc__)
    parser.add_argument("files", nargs="+", type=Path, metavar="IMAGE", help="a PNG or JPEG file")
    parser.add_argument("--model", help="a .keras file, or models:/NAME@champion; the champion unless given")
    parser.add_argument("--sha256", help="of the .keras file, to load one that was not trained here")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")

    def run(arguments: argparse.Namespace) -> None:
        answers = predict(arguments.files, arguments.model, arguments.sha256, Paths())
        if arguments.json:
            print(json.dumps([vars(answer) for answer in answers], indent=2))
        elif answers:
            show(answers)
        if len(answers) < len(arguments.files):
            sys.exit(1)

    stage.main(run, parser)


if __name__ == "__main__":
    main()
