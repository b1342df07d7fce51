"""Describe a network without training it:  python -m pipeline.describe model_2 [--image 32x32x3] [--draw]

Refuses what the configuration refuses. Prints a row per layer: output shape, parameters and multiply-adds per image
(each with its share of the total), and the receptive field in pixels of the image. Warns of pooling that loses
positions and of dense layers that hold nearly all parameters. Networks are read from params.yaml and
models/gallery.yaml. Image size and number of classes default to those of the dataset in params.yaml.

With --draw, prints a Mermaid flowchart instead; with --override, the network as DVC's `-S` takes it.
"""

import argparse
import re
import sys

from pipeline.core import command
from pipeline.core.errors import ConfigError
from pipeline.describe.describe import describe, override


def _image(text: str) -> tuple[int, int, int]:
    match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)x([1-9]\d*)", text)
    if not match:
        raise argparse.ArgumentTypeError(f"found {text}; allowed: HEIGHTxWIDTHxCHANNELS, for example 32x32x3")
    height, width, channels = map(int, match.groups())
    return height, width, channels


def main() -> None:
    parser = command.parser(__doc__)
    parser.add_argument("name", help="a network of params.yaml or models/gallery.yaml")
    parser.add_argument("--image", type=_image, metavar="HxWxC", help="size of the images, instead of the dataset's")
    parser.add_argument("--classes", type=int, help="number of classes, instead of the dataset's")
    parser.add_argument("--draw", action="store_true", help="print a Mermaid flowchart")
    parser.add_argument("--override", action="store_true", help="print the network as DVC's -S takes it")
    arguments = parser.parse_args()
    try:
        if arguments.override:
            print(override(arguments.name))
        else:
            describe(arguments.name, arguments.image, arguments.classes, draw=arguments.draw)
    except ConfigError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
