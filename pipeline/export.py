"""Export a trained network to LiteRT (TensorFlow Lite):  python -m pipeline.export model_2 --output model_2.tflite

The file runs without this project, Keras and TensorFlow. It takes one image of shape (1, height, width, channels),
float32 in [0, 1], and returns the probabilities of the classes, (1, classes). It computes in float32, also where the
network was trained in bfloat16. It is written only if its predictions for all test images are those of the network.
"""

import argparse
from pathlib import Path

from pipeline.core import command, config, records
from pipeline.core.paths import Paths
from pipeline.runtime.startup import load_tensorflow


def run(arguments: argparse.Namespace) -> None:
    """Export the named network."""
    paths = Paths()
    params = config.load(paths)
    record = records.load_training(paths, arguments.name)
    load_tensorflow()
    from pipeline.deploy import export

    export.export(record, arguments.output, params.runtime, paths)


def main() -> None:
    parser = command.parser(__doc__)
    parser.add_argument("name", help="a trained network: a key of `models` in params.yaml, or tuned")
    parser.add_argument("--output", type=Path, required=True, help="the file to write")
    command.main(run, parser)


if __name__ == "__main__":
    main()
