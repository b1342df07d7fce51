"""Read a network before training it, without TensorFlow:  python -m models.describe model_2 [--image 32x32x3]

A row per layer: shape of its output, parameters, multiply-adds of one image, both with their share of the total, and
the receptive field, in pixels of the image. Below it, what may surprise: pooling that ignores or loses positions, dense
layers that hold nearly all parameters. Networks come from params.yaml and from models/gallery.yaml; the size of the
images and the number of classes from the dataset that params.yaml names, unless given.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.console import Console
from rich.table import Table
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from models import layers
from models.layers import Shape, ShapeError, Traced
from models.spec import Network

PARAMS = Path("params.yaml")
CATALOG = Path("data/catalog.yaml")
GALLERY = Path(__file__).with_name("gallery.yaml")
MOST = 0.8  # share of the parameters from which dense layers are said to hold nearly all


class DescribeError(Exception):
    """What cannot be described, and why."""


def read(path: Path) -> dict[str, Any]:
    """A YAML file that holds a mapping.

    Raises:
        DescribeError: there is none.
    """
    try:
        content = YAML(typ="safe", pure=True).load(path)
    except (OSError, UnicodeDecodeError, YAMLError) as error:
        raise DescribeError(f"{path}: not readable: {error}") from None
    if not isinstance(content, dict):
        raise DescribeError(f"{path}: allowed: a mapping")
    return content


def network(name: str, params: dict[str, Any], gallery: dict[str, Any]) -> Network:
    """The network of that name, of params.yaml or else of the gallery; how it is trained is left out.

    Raises:
        DescribeError: there is none, or it is no network.
    """
    own = params.get("models")
    known = gallery | (own if isinstance(own, dict) else {})
    if name not in known:
        raise DescribeError(f"there is no network {name}; allowed: {', '.join(known)}")
    block = known[name]
    if isinstance(block, dict):
        block = {key: value for key, value in block.items() if key != "fit"}
    try:
        return Network.model_validate_json(json.dumps(block))
    except ValidationError as error:
        wrong = [f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors()]
        raise DescribeError(f"{name}: {'; '.join(wrong)}") from None


def warnings(network: Network, traced: list[Traced], image: Shape, classes: int) -> Iterator[str]:
    """The pitfalls that a network runs into."""
    shape = image
    for row in traced:
        yield from _lost_positions(row, shape)
        if isinstance(row.layer, layers.Convolution) and row.layer.separable and shape[-1] == 1:
            yield f"{row.layer.name}: a separable convolution of one channel has one kernel; outputs are its multiples"
        shape = row.output_shape
    total = sum(row.parameters for row in traced)
    dense = sum(row.parameters for row in traced if isinstance(row.layer, layers.Dense))
    if network.head.pooling == "flatten" and network.blocks and dense >= MOST * total:
        head = network.head.model_copy(update={"pooling": "global_average"})
        alternative = layers.trace(network.model_copy(update={"head": head}), image, classes)
        left = sum(row.parameters for row in alternative)
        yield (
            f"dense layers hold {dense / total:.0%} of the parameters; "
            f"with head.pooling: global_average the network would have {left:,} instead of {total:,}"
        )


def _lost_positions(row: Traced, shape: Shape) -> Iterator[str]:
    """What the windows of a layer do not see of its input, of this shape."""
    if isinstance(row.layer, layers.Pool):
        window, step, padding = row.layer.pooling.window, row.layer.pooling.step, row.layer.pooling.padding
    elif isinstance(row.layer, layers.Convolution):
        window, step, padding = row.layer.kernel_size, row.layer.stride, row.layer.padding
    else:
        return
    sizes = shape[:2]
    name, seen = row.layer.name, f"{sizes[0]}x{sizes[1]}"
    if max(sizes) == 1 and window > 1:
        yield f"{name}: its input is 1x1: nothing is left for a window of {window} to see"
        return
    ignored = [(size - window) % step if padding == "valid" else 0 for size in sizes]
    if step > 1 and any(ignored):
        yield f"{name}: at the end of {seen}, {ignored[0]} rows and {ignored[1]} columns are in no window"
    if step > window:
        yield f"{name}: of every {step} rows and columns of {seen}, {step - window} lie between windows"


def table(traced: list[Traced], image: Shape, total: str = "total") -> Table:
    """The layers as a table; shares are of those that are given."""
    parameters = sum(row.parameters for row in traced)
    costs = sum(row.multiply_adds for row in traced)
    fixed = sum(row.non_trainable for row in traced)
    columns = ["layer", "output", "parameters", "share", "multiply-adds", "share", "sees"]
    lines = Table(box=None, show_footer=True, pad_edge=False)
    note = f" ({fixed:,} not trainable)" if fixed else ""
    for column, foot in zip(columns, [total + note, "", f"{parameters:,}", "", f"{costs:,}", "", ""], strict=True):
        lines.add_column(column, foot, justify="left" if column == "layer" else "right", no_wrap=True)
    lines.add_row("image", _sizes(image))
    for row in traced:
        lines.add_row(
            row.layer.name,
            _sizes(row.output_shape),
            f"{row.parameters:,}",
            _share(row.parameters, parameters),
            f"{row.multiply_adds:,}",
            _share(row.multiply_adds, costs),
            _sizes(row.receptive_field),
        )
    return lines


def _sizes(shape: Shape) -> str:
    return "x".join(map(str, shape))


def _share(part: int, total: int) -> str:
    return f"{part / total:.1%}" if part else ""


def _image(text: str) -> tuple[int, int, int]:
    match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)x([1-9]\d*)", text)
    if not match:
        raise argparse.ArgumentTypeError(f"found {text}; allowed: height x width x channels, 32x32x3 say")
    height, width, channels = map(int, match.groups())
    return height, width, channels


def describe(name: str, image: tuple[int, int, int] | None, classes: int | None) -> None:
    """Print the table and the warnings.

    Raises:
        DescribeError: no such network, no such dataset, or a layer that leaves nothing of its input.
    """
    params = read(PARAMS)
    described = network(name, params, read(GALLERY))
    if image is None or classes is None:
        datasets, dataset = read(CATALOG), (params.get("data") or {}).get("dataset")
        if dataset not in datasets:
            raise DescribeError(f"params.yaml: data.dataset: there is no {dataset}; allowed: {', '.join(datasets)}")
        image = image or tuple(datasets[dataset]["image"])
        classes = classes or len(datasets[dataset]["classes"])
    traced, failure = [], None
    try:
        traced.extend(layers.follow(described, image, classes))
    except ShapeError as error:
        failure = error
    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    console.print(table(traced, image, "so far" if failure else "total"))
    if failure:
        raise DescribeError(f"{name}.{failure.key}: found {failure.found}; {failure}")
    for warning in warnings(described, traced, image, classes):
        console.print(f"warning: {warning}", soft_wrap=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="a network of params.yaml or models/gallery.yaml")
    parser.add_argument("--image", type=_image, metavar="HxWxC", help="size of the images, instead of the dataset's")
    parser.add_argument("--classes", type=int, help="number of classes, instead of the dataset's")
    arguments = parser.parse_args()
    try:
        describe(arguments.name, arguments.image, arguments.classes)
    except DescribeError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
