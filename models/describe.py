"""Describe a network without training it:  python -m models.describe model_2 [--image 32x32x3]

Prints a row per layer: output shape, parameters and multiply-adds per image (each with its share of the total), and the
receptive field in pixels of the image. Warns of pooling that loses positions and of dense layers that hold nearly all
parameters. Networks are read from params.yaml and models/gallery.yaml. Image size and number of classes default to
those of the dataset in params.yaml.
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

from models import architecture
from models.architecture import Shape, ShapeError, Traced
from models.spec import Network

PARAMS = Path("params.yaml")
CATALOG = Path("data/catalog.yaml")
GALLERY = Path(__file__).with_name("gallery.yaml")
DENSE_SHARE = 0.8  # of the parameters; above it, the network is warned of


class DescribeError(Exception):
    """A network that cannot be described."""


def read(path: Path) -> dict[str, Any]:
    """Read a YAML file that contains a mapping.

    Raises:
        DescribeError: the file is missing or contains something else.
    """
    try:
        content = YAML(typ="safe", pure=True).load(path)
    except (OSError, UnicodeDecodeError, YAMLError) as error:
        raise DescribeError(f"{path}: not readable as YAML: {error}") from None
    if not isinstance(content, dict):
        raise DescribeError(f"{path}: found {type(content).__name__}; allowed: a mapping")
    return content


def network(name: str, params: dict[str, Any], gallery: dict[str, Any]) -> Network:
    """Return the named network of params.yaml or the gallery, without its training settings.

    Raises:
        DescribeError: the network does not exist or is invalid.
    """
    own = params.get("models")
    known = gallery | (own if isinstance(own, dict) else {})
    if name not in known:
        raise DescribeError(f"models.{name}: there is no such network; allowed: {', '.join(known)}")
    block = known[name]
    if isinstance(block, dict):
        block = {key: value for key, value in block.items() if key != "fit"}
    try:
        return Network.model_validate_json(json.dumps(block))
    except ValidationError as error:
        problems = [
            f"{'.'.join(map(str, ('models', name, *problem['loc'])))}: {problem['msg']}" for problem in error.errors()
        ]
        raise DescribeError("; ".join(problems)) from None


def warnings(network: Network, traced: list[Traced], image: Shape, classes: int) -> Iterator[str]:
    """Yield a warning for each common pitfall."""
    shape = image
    for row in traced:
        yield from _lost_positions(row, shape)
        if isinstance(row.layer, architecture.Convolution) and row.layer.separable and shape[-1] == 1:
            yield f"{row.layer.name}: a separable convolution of one channel has one kernel; outputs differ by a factor"
        shape = row.output_shape
    total = sum(row.parameters for row in traced)
    dense = sum(row.parameters for row in traced if isinstance(row.layer, architecture.Dense))
    if network.head.pooling == "flatten" and network.blocks and dense >= DENSE_SHARE * total:
        head = network.head.model_copy(update={"pooling": "global_average"})
        alternative = architecture.trace(network.model_copy(update={"head": head}), image, classes)
        fewer = sum(row.parameters for row in alternative)
        yield (
            f"dense layers hold {dense / total:.0%} of the parameters; "
            f"with head.pooling: global_average the network would have {fewer:,} instead of {total:,}"
        )


def _lost_positions(row: Traced, shape: Shape) -> Iterator[str]:
    """Warn of positions of the input that no window covers; `shape` is that of the input."""
    if isinstance(row.layer, architecture.Pool):
        window, step, padding = row.layer.pooling.window, row.layer.pooling.step, row.layer.pooling.padding
    elif isinstance(row.layer, architecture.Convolution):
        window, step, padding = row.layer.kernel_size, row.layer.stride, row.layer.padding
    else:
        return
    sizes = shape[:2]
    prefix = f"{row.layer.name}: input {sizes[0]}x{sizes[1]}"
    if max(sizes) == 1 and window > 1:
        yield f"{prefix}: a window of {window} sees a single value"
        return
    rows, columns = [(size - window) % step if padding == "valid" else 0 for size in sizes]
    if step > 1 and (rows or columns):
        yield f"{prefix}: the last {rows} rows and {columns} columns are in no window"
    if step > window:
        yield f"{prefix}: {step - window} of every {step} rows and columns lie between windows"


def table(traced: list[Traced], image: Shape, total: str = "total") -> Table:
    """Table of the layers; shares refer to the sum of the layers given."""
    parameters = sum(row.parameters for row in traced)
    costs = sum(row.multiply_adds for row in traced)
    fixed = sum(row.non_trainable for row in traced)
    columns = ["layer", "output", "parameters", "share", "multiply-adds", "share", "receptive field"]
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
        raise argparse.ArgumentTypeError(f"found {text}; allowed: HEIGHTxWIDTHxCHANNELS, for example 32x32x3")
    height, width, channels = map(int, match.groups())
    return height, width, channels


def describe(name: str, image: tuple[int, int, int] | None, classes: int | None) -> None:
    """Print the table and the warnings.

    Raises:
        DescribeError: the network or dataset does not exist, or a layer's output would be empty.
    """
    params = read(PARAMS)
    described = network(name, params, read(GALLERY))
    if image is None or classes is None:
        datasets, dataset = read(CATALOG), (params.get("data") or {}).get("dataset")
        if dataset not in datasets:
            raise DescribeError(f"params.yaml: data.dataset: found {dataset}; allowed: {', '.join(datasets)}")
        image = image or tuple(datasets[dataset]["image"])
        classes = classes or len(datasets[dataset]["classes"])
    traced, failure = [], None
    try:
        traced.extend(architecture.follow(described, image, classes))
    except ShapeError as error:
        failure = error
    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    console.print(table(traced, image, "total up to here" if failure else "total"))
    if failure:
        raise DescribeError(f"models.{name}.{failure.key}: found {failure.found}; {failure}")
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
