"""The table of a network of the user's own code. Its file is run, and TensorFlow is loaded, to build the network."""

from pathlib import Path
from typing import Any

from rich.table import Table

from models import own_code
from models.own_code import LayerRow, OwnCode, OwnNetwork
from pipeline.runtime.startup import load_tensorflow


def layers(network: OwnNetwork, image: tuple[int, int, int], classes: int, freeze: Any = ()) -> list[LayerRow]:
    """Build the network; return its layers.

    Raises:
        BuildError: the builder fails, or no layer matches a pattern of `freeze`.
    """
    folder = Path(own_code.FOLDER)
    load_tensorflow()
    from models import own_network  # takes seconds

    code = OwnCode(network.file, (folder / network.file).read_bytes())
    model = own_network.build(network, code, image, classes, "float32", seed=0)
    own_network.freeze(model, freeze)
    return own_network.layer_rows(model)


def table(rows: list[LayerRow], image: tuple[int, ...]) -> Table:
    """A row for each layer: output shape, parameters and their share."""
    total, fixed = sum(row.parameters for row in rows), sum(row.non_trainable for row in rows)
    note = f" ({fixed:,} not trainable)" if fixed else ""
    lines = Table(box=None, show_footer=True, pad_edge=False)
    for column, foot in {"layer": f"total{note}", "kind": "", "output": ""}.items():
        lines.add_column(column, foot, no_wrap=True)
    for column, foot in {"parameters": f"{total:,}", "share": ""}.items():
        lines.add_column(column, foot, justify="right", no_wrap=True)
    lines.add_row("image", "", "x".join(map(str, image)))
    for row in rows:
        share = f"{row.parameters / total:.1%}" if row.parameters else ""
        lines.add_row(row.name, row.kind, "x".join(map(str, row.output)), f"{row.parameters:,}", share)
    return lines
