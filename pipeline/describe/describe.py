"""Description of a network: layers with counts and receptive fields, warnings, and errors of its configuration."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from models import architecture
from models import layer_types as kinds
from models.architecture import Shape, ShapeError, Traced
from models.spec import Network
from pipeline.core import config, yaml_file
from pipeline.core.config import OwnNetworkConfig, Params
from pipeline.core.config_errors import listing
from pipeline.core.errors import ConfigError
from pipeline.core.paths import Paths
from pipeline.describe import drawing, own

GALLERY = Path(architecture.__file__).with_name("gallery.yaml")
DENSE_SHARE = 0.8  # of the parameters; above it, the network is warned of


def written(name: str, params: dict[str, Any], gallery: dict[str, Any]) -> Any:
    """The named network as it is written in params.yaml or the gallery.

    Raises:
        ConfigError: there is no such network.
    """
    own = params.get("models")
    known = gallery | (own if isinstance(own, dict) else {})
    if name not in known:
        raise ConfigError(f"models.{name}: there is no such network{listing(name, known)}")
    return known[name]


def alone(name: str, block: Any, params: dict[str, Any]) -> Params:
    """The parameters with one network, so that the errors of others do not matter.

    Raises:
        ConfigError: the configuration would refuse them.
    """
    grid = {"base": name, "pooling": [], "dropout": []}
    return config.parse(params | {"models": {name: block}, "grid": grid, "tune": None})


def warnings(network: Network, traced: list[Traced], image: Shape, classes: int) -> Iterator[str]:
    """Yield a warning for each common pitfall."""
    shape = image
    for row in traced:
        yield from _lost_positions(row, shape)
        if isinstance(row.layer, kinds.Convolution) and row.layer.kind == "separable" and shape[-1] == 1:
            yield f"{row.layer.name}: a separable convolution of one channel has one kernel; outputs differ by a factor"
        shape = row.output_shape
    total = sum(row.parameters for row in traced)
    dense = sum(row.parameters for row in traced if isinstance(row.layer, kinds.Dense))
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
    if isinstance(row.layer, kinds.Pool):
        windows, steps, padding = row.layer.windows, row.layer.step, row.layer.padding
    elif isinstance(row.layer, kinds.Convolution):
        windows, steps, padding = row.layer.span, row.layer.stride, row.layer.padding
    else:
        return
    sizes = shape[:2]
    prefix = f"{row.layer.name}: input {sizes[0]}x{sizes[1]}"
    if max(sizes) == 1 and max(windows) > 1:
        yield f"{prefix}: a window of {_side(windows)} sees a single value"
        return
    axes = list(zip(sizes, windows, steps, strict=True))
    rows, columns = [(size - window) % step if padding == "valid" else 0 for size, window, step in axes]
    shortcut = row.layer.key.endswith(".residual")  # the convolutions beside it see the other positions
    if max(steps) > 1 and (rows or columns) and not shortcut:
        yield f"{prefix}: the last {rows} rows and {columns} columns are in no window"
    if any(step > window for _, window, step in axes) and not shortcut:
        gap = max(step - window for _, window, step in axes)
        yield f"{prefix}: {gap} of every {max(steps)} rows and columns lie between windows"


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


def _side(sides: tuple[int, int]) -> str:
    return str(sides[0]) if sides[0] == sides[1] else _sizes(sides)


def _share(part: int, total: int) -> str:
    return f"{part / total:.1%}" if part else ""


def describe(name: str, image: tuple[int, int, int] | None, classes: int | None, *, draw: bool = False) -> None:
    """Print the table and the warnings, or the drawing.

    Raises:
        ConfigError: the network does not exist, or the configuration would refuse it, or the user's code fails.
    """
    paths = Paths(Path())
    raw = yaml_file.read(paths.params)
    raw = raw if isinstance(raw, dict) else {}
    params = alone(name, written(name, raw, yaml_file.read(GALLERY)), raw)
    described, datasets, dataset = params.models[name], config.load_catalog(paths), params.data.dataset
    if isinstance(described, OwnNetworkConfig):
        config.check(params, datasets, paths.own_networks)
        entry = datasets[dataset]
        size = image or entry.image
        try:
            rows = own.layers(described, size, classes or len(entry.classes), described.freeze)
        except Exception as error:  # of the user's code
            raise ConfigError(f"models.{name}: {error}") from None
        Console(width=None if sys.stdout.isatty() else 120, highlight=False).print(own.table(rows, size))
        return
    if entry := datasets.get(dataset):
        image, names = image or entry.image, entry.classes[:classes] if classes else entry.classes
        names = (*names, *(f"class {number}" for number in range(len(names), classes or 0)))
        datasets = dict(datasets) | {dataset: entry.model_copy(update={"image": image, "classes": names})}
        traced, failed = [], False
        try:
            traced.extend(architecture.follow(described, image, len(names)))
            traced = described.trace(image, len(names))  # with frozen layers
        except ShapeError:
            failed = True  # of which `check` tells
        if draw and not failed:
            print(drawing.mermaid(traced, image))
            return
        console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
        console.print(table(traced, image, "total up to here" if failed else "total"))
        if not failed:
            for warning in warnings(described, traced, image, len(names)):
                console.print(f"warning: {warning}", soft_wrap=True)
    config.check(params, datasets, paths.own_networks)


def override(name: str) -> str:
    """The network as a value of `dvc exp run -S '+models.NAME=VALUE'`."""
    raw = yaml_file.read(Paths(Path()).params)
    block = written(name, raw if isinstance(raw, dict) else {}, yaml_file.read(GALLERY))
    return json.dumps(block, separators=(",", ":")).replace('"', "")
