"""Write a trained network as a LiteRT file (TensorFlow Lite), which runs without this project, Keras and TensorFlow:

  python -m pipeline.export model_2 --output model_2.tflite

The file takes one image of shape (1, height, width, channels), float32 in [0, 1], and gives the probabilities of the
classes, (1, classes). It computes in float32, also where the network was trained in bfloat16. Before it is kept, its
answers for all test images are compared with those of the network.
"""

import argparse
from pathlib import Path

from pipeline import atomic, config, stage, trained
from pipeline.errors import DataError
from pipeline.paths import Paths

TOLERANCE = 1e-4  # in a probability, between the file and the network in float32


def export(name: str, output: Path, paths: Paths) -> None:
    """Convert a network, compare and write.

    Raises:
        DataError: it was not trained, it cannot be converted, or the file answers otherwise.
    """
    about = trained.load(paths, name)
    params = config.load(paths)
    from pipeline import runtime

    runtime.start(params.runtime)
    import numpy as np

    from models import inference
    from pipeline import artifacts, dataset, litert

    network = artifacts.load(paths.model(name), about["sha256"])
    images = dataset.load(paths, "test").images.astype(np.float32) / 255
    content = litert.convert(network)
    answers = litert.run(content, images)
    expected = inference.probabilities(litert.in_float32(network), images)
    difference = np.abs(answers - expected).max()
    if not difference <= TOLERANCE or (answers.argmax(axis=1) != expected.argmax(axis=1)).any():
        raise DataError(f"{name}: the exported file answers otherwise: probabilities differ by up to {difference:.2g}")
    as_trained = inference.probabilities(network, images)
    same = int((answers.argmax(axis=1) == as_trained.argmax(axis=1)).sum())
    with atomic.file(output) as part:
        part.write_bytes(content)
    rounding = np.abs(answers - as_trained).max()
    print(
        f"{output}: {len(content):,} bytes; gives the class that {name} gives on {same:,} of {len(images):,} test "
        f"images; probabilities differ by at most {difference:.1g} from {name} in float32, "
        f"{rounding:.1g} in {about['precision']}"
    )


def main() -> None:
    parser = stage.parser(__doc__)
    parser.add_argument("name", help="a trained network: a key of `models` in params.yaml, or tuned")
    parser.add_argument("--output", type=Path, required=True, help="the file to write")

    def run(arguments: argparse.Namespace) -> None:
        export(arguments.name, arguments.output, Paths())

    stage.main(run, parser)


if __name__ == "__main__":
    main()
