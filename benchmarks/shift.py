"""Does pooling make a network indifferent to shifts?  nice python benchmarks/shift.py [--seeds 3] [--epochs 6]

Trains Model 1 of params.yaml on data/validated with each kind of pooling in place of its own, asks each network about
shifted test images, and writes the table into docs/robustness.md after each of them. The test images choose nothing.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from models.spec import Pooling  # noqa: E402
from pipeline import config, markers  # noqa: E402
from pipeline.config import Model  # noqa: E402
from pipeline.paths import Paths  # noqa: E402

TARGET = ROOT / "docs" / "robustness.md"
BEGIN, END = "<!-- shifts: written by `python benchmarks/shift.py` -->", "<!-- end of shifts -->"
KINDS = ("max", "average", "strided", "fractional_max", "lp", "stochastic", "gem", "blur", "none")
SHIFT = 1 / 7  # of the height and width, to either side: 4 of 28 pixels


def variants(base: Model, epochs: int) -> Iterator[tuple[str, Model]]:
    """Three networks that tell what else could make the difference, and the network with each kind of pooling."""
    base = base.model_copy(update={"fit": base.fit.model_copy(update={"epochs": epochs})})
    augmentation = base.fit.augmentation.model_copy(update={"shift": SHIFT})
    yield (
        "max, shifted in training",
        base.model_copy(update={"fit": base.fit.model_copy(update={"augmentation": augmentation})}),
    )
    yield (
        "max, then global average",
        base.model_copy(update={"head": base.head.model_copy(update={"pooling": "global_average"})}),
    )
    yield "no convolutions, no pooling", base.model_copy(update={"blocks": ()})
    for kind in KINDS:
        pooling = Pooling(kind=kind)
        yield (
            kind,
            base.model_copy(
                update={"blocks": tuple(block.model_copy(update={"pooling": pooling}) for block in base.blocks)}
            ),
        )


def table(rows: pd.DataFrame) -> str:
    """Means over the seeds in Markdown, with standard deviations where there are several; the most consistent first."""
    from pipeline import robustness

    means = rows.groupby(["model", "shift"], sort=False, as_index=False)["consistency"].mean()
    order = robustness.most_consistent(means)
    shifts = list(order.columns)
    lines = [
        f"| pooling | seeds | test accuracy | {' | '.join(f'{shift} px' for shift in shifts)} |",
        "|---|---|---|" + "---|" * len(shifts),
    ]
    for model in order.index:
        own = rows[rows["model"] == model]
        cells = [str(own["seed"].nunique()), spread(own[own["shift"] == shifts[0]]["accuracy"])]
        cells += [spread(own[own["shift"] == shift]["consistency"]) for shift in shifts]
        lines.append(f"| {model} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def spread(values: pd.Series) -> str:
    return f"{values.mean():.1%}" + (f" ± {100 * values.std():.1f}" if len(values) > 1 else "")


def measured(seeds: int, epochs: int) -> Iterator[tuple[pd.DataFrame, str]]:
    """After each network: all rows so far (model, shift, consistency, accuracy, seed), and how they came about."""
    paths = Paths(ROOT)
    params = config.load(paths)
    from pipeline import runtime

    used = runtime.start(params.runtime)
    from pipeline import dataset, metrics, prediction, robustness, training

    card = dataset.load_card(paths)
    train, validation, test = (dataset.load(paths, name) for name in ("train", "validation", "test"))
    rows = []
    for seed in range(1, seeds + 1):
        for name, network in variants(params.model("model_1"), epochs):
            fitted = training.fit(network, card, train, validation, seed=seed, precision=used.precision)

            predict = prediction.predictor(fitted.model)
            accuracy = metrics.scores(predict(test.images), test.labels)["accuracy"]
            found = robustness.shift_consistency({name: predict}, test.images, params.seed, limit=None)
            rows.append(found.assign(accuracy=accuracy, seed=seed))
            print(f"seed {seed}: {name}: {accuracy:.2%}, {found['consistency'].round(3).tolist()}", flush=True)
            about = (
                f"Model 1, {epochs} epochs on {len(train.labels):,} images of {card.dataset}; accuracy on "
                f"{len(test.labels):,} test images, consistency on the {found['images'].iloc[0]} of them with a border "
                f"of {found['shift'].iloc[-1]} pixels; {used.name}, {used.precision}.\n"
            )
            yield pd.concat(rows, ignore_index=True), about


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=6)
    arguments = parser.parse_args()
    for rows, about in measured(arguments.seeds, arguments.epochs):
        markers.write(TARGET, BEGIN, END, f"{table(rows)}\n{about}")


if __name__ == "__main__":
    main()
