"""Train a network with every kind of pooling and every head, and measure accuracy and consistency under shifts.

  python -m benchmarks.pooling --write                      # writes the table of docs/robustness.md
  python -m benchmarks.pooling --model model_2 --epochs 15 --seeds 1 --precision float32      # docs/networks.md

Trains on data/validated (`dvc repro validate`). The test images are scored, and choose nothing.
"""
# ruff: noqa: E402  load_tensorflow has to come before what imports TensorFlow

from collections.abc import Iterator
from typing import get_args

import numpy as np
import pandas as pd

from pipeline.runtime.startup import load_tensorflow

load_tensorflow()

from benchmarks.project import ROOT, parser
from models.spec import POOLING_KEYS, Head
from pipeline.core import config, dataset, search_space
from pipeline.core.config import NetworkConfig
from pipeline.core.paths import Paths
from pipeline.evaluate import robustness
from pipeline.report import markers
from pipeline.runtime import device
from pipeline.runtime.predictor import predictor
from pipeline.runtime.scores import scores
from pipeline.train.fit import fit
from pipeline.train.task import FitSpec

DOCUMENT = ROOT / "docs" / "robustness.md"
BEGIN, END = "<!-- shifts: written by `python -m benchmarks.pooling --write` -->", "<!-- end of shifts -->"
SHIFT = 1 / 7  # of height and width, to either side: 4 of 28 pixels


def variants(base: NetworkConfig, epochs: int) -> Iterator[tuple[str, NetworkConfig]]:
    """The network with each kind of pooling in its blocks, with each head, without blocks, and trained on shifts.

    Without any pooling the dense layers would be huge: `none` is in the last block alone. A head that takes the
    maximum, or nearly so, learns slowly behind dropout: the last block goes without.
    """
    count = len(base.blocks)
    changes: dict[str, dict] = {"trained on shifts": {"fit.augmentation.shift": SHIFT}}
    for kind in POOLING_KEYS:
        replaced = [count - 1] if kind == "none" else range(count)
        changes[kind] = {f"blocks.{block}.pooling": {"kind": kind} for block in replaced}
    for head in get_args(Head.model_fields["pooling"].annotation):
        dropout = {f"blocks.{count - 1}.dropout": 0.0} if head in ("global_max", "gem") else {}
        if head != base.head.pooling:
            changes[f"head {head}"] = {"head.pooling": head, **dropout}
    block = base.model_dump(mode="json")
    for name, values in changes.items():
        yield name, config.network_from(search_space.apply(block, {"fit.epochs": epochs, **values}))
    yield (
        "no convolutions, no pooling",
        config.network_from(block | {"blocks": [], "fit": block["fit"] | {"epochs": epochs}}),
    )


def table(rows: pd.DataFrame) -> str:
    """Markdown: means over the seeds, with standard deviations where there are several; the most consistent first."""
    metrics = [name for name in rows.columns if name not in ("network", "seed")]
    means, stds = (rows.groupby("network")[metrics].agg(measure) for measure in ("mean", "std"))
    order = means.filter(like="px").mean(axis=1).sort_values(ascending=False, kind="stable").index
    lines = [f"| network | seeds | {' | '.join(metrics)} |", "|---|---|" + "---|" * len(metrics)]
    for name in order:
        pairs = zip(means.loc[name], stds.loc[name], strict=True)
        cells = [f"{mean:.1%}" + ("" if np.isnan(std) else f" ± {100 * std:.1f}") for mean, std in pairs]
        lines.append(f"| {name} | {(rows['network'] == name).sum()} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--model", default="model_1", help="a network of params.yaml")
    arguments.add_argument("--seeds", type=int, default=3)
    arguments.add_argument("--epochs", type=int, default=6)
    arguments.add_argument("--precision", default="auto", help="auto, float32 or bfloat16")
    arguments.add_argument("--write", action="store_true", help="write the table into docs/robustness.md")
    given = arguments.parse_args()
    paths = Paths(ROOT)
    params = config.load(paths)
    used = device.start(params.runtime.model_copy(update={"precision": given.precision}))
    data, test = dataset.load_training(paths), dataset.load(paths, "test")
    rows, shifts = [], pd.DataFrame()
    for seed in range(1, given.seeds + 1):
        for name, network in variants(params.network(given.model), given.epochs):
            fitted = fit(FitSpec(network, seed, used.precision), data)
            predict = predictor(fitted.model)
            shifts = robustness.shift_consistency({name: predict}, test.images, params.seed, limit=None)
            row = {"network": name, "seed": seed, "validation": fitted.validation.accuracy}
            row |= {"test": scores(predict(test.images), test.labels).accuracy}
            rows.append(row | {f"{row.shift} px": row.consistency for row in shifts.itertuples()})
            print(" ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
    text = (
        f"{table(pd.DataFrame(rows))}\n{given.model}, {given.epochs} epochs on {len(data.train.labels):,} images of "
        f"{data.info.dataset}; accuracy on {len(data.validation.labels):,} validation and {len(test.labels):,} test "
        f"images, consistency on the {shifts['images'].iloc[0]} test images with a border of "
        f"{shifts['shift'].iloc[-1]} pixels; {used.name}, {used.precision}.\n"
    )
    print(text)
    if given.write:
        markers.write(DOCUMENT, BEGIN, END, text)


if __name__ == "__main__":
    main()
