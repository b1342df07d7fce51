"""Model 2 with every kind of pooling and every head, in float32 and bfloat16: does each of them train, save and load?

  python benchmarks/kinds.py [--epochs 15] [--only lp gem ...]

Trains on data/validated (`dvc repro validate`) with the settings of params.yaml, and prints validation and test
accuracy. Every network is saved, and all of them are loaded in a fresh process, whose predictions have to be equal;
and, where JAX is installed, in one with KERAS_BACKEND=jax, which has to predict the same but for rounding.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from models import inference  # noqa: E402
from models.spec import POOLING_KEYS, Head  # noqa: E402
from pipeline import config, space  # noqa: E402
from pipeline.paths import Paths  # noqa: E402

BASE = "model_2"
ROUNDING = {"float32": 1e-4, "bfloat16": 0.1}  # of a probability, between backends
HEADS = get_args(Head.model_fields["pooling"].annotation)


def variants(base: config.Model, epochs: int) -> dict[str, config.Model]:
    """The base with each kind of pooling in all blocks, and with each head; equal ones once.

    Without any pooling its dense layer would have 51 million parameters: `none` is in the last block alone. A head that
    takes the maximum, or nearly so, learns slowly behind dropout: the last block goes without.
    """
    block = space.apply(base.model_dump(mode="json"), {"fit.epochs": epochs})
    every = range(len(base.blocks))
    pooled = {
        kind: space.apply(
            block, {f"blocks.{n}.pooling": {"kind": kind} for n in (every[-1:] if kind == "none" else every)}
        )
        for kind in POOLING_KEYS
    }
    heads = {
        f"head {head}": space.apply(
            block,
            {"head.pooling": head} | ({f"blocks.{every[-1]}.dropout": 0.0} if head in ("global_max", "gem") else {}),
        )
        for head in HEADS
        if head != base.head.pooling
    }
    return {name: config.model_from(changed) for name, changed in (pooled | heads).items()}


def train_all(epochs: int, only: list[str] | None, folder: Path) -> pd.DataFrame:
    """Train each network in both precisions; leaves NAME.keras and its predictions NAME.npy in the folder."""
    from pipeline import artifacts, dataset, metrics, prediction, training

    paths = Paths(ROOT)
    params = config.load(paths)
    card = dataset.load_card(paths)
    splits = {name: dataset.load(paths, name) for name in ("train", "validation", "test")}
    rows = []
    for name, network in variants(params.model(BASE), epochs).items():
        if only and name not in only:
            continue
        for precision in ("float32", "bfloat16"):
            fitted = training.fit(
                network, card, splits["train"], splits["validation"], seed=params.seed, precision=precision
            )
            probabilities = prediction.predictor(fitted.model)(splits["test"].images)
            artifacts.save(fitted.model, folder / f"{name}-{precision}.keras")
            np.save(folder / f"{name}-{precision}.npy", probabilities)
            test = metrics.scores(probabilities, splits["test"].labels)
            row = {"variant": name, "precision": precision, "validation": fitted.validation["accuracy"]}
            rows.append(row | {"test": test["accuracy"]})
            print(f"{name} {precision}: validation {row['validation']:.2%}, test {test['accuracy']:.2%}", flush=True)
    return pd.DataFrame(rows)


def differences(folder: Path) -> dict[str, float]:
    """How far each saved network, loaded here, is from what it predicted when it was saved: of any probability."""
    import keras

    from pipeline import artifacts

    images = np.load(Paths(ROOT).split("test") / "images.npy")

    def predictions(path: Path) -> np.ndarray:
        model = artifacts.load(path, artifacts.digest(path))
        if keras.backend.backend() == "jax":
            return inference.probabilities(model, images.astype(np.float32) / 255)
        from pipeline import prediction

        return prediction.predictor(model)(images)

    return {
        path.stem: float(np.abs(predictions(path) - np.load(path.with_suffix(".npy"))).max())
        for path in sorted(folder.glob("*.keras"))
    }


def compare(folder: Path) -> None:
    """Load the networks of a folder with the Keras backend of this process; ends it where predictions differ."""
    import keras

    backend = keras.backend.backend()
    found = differences(folder)
    bounds = {name: ROUNDING[name.rpartition("-")[2]] if backend == "jax" else 0.0 for name in found}
    if different := {name: value for name, value in found.items() if value > bounds[name]}:
        sys.exit(f"{backend}: other predictions after loading: {different}")
    print(f"{backend}: all {len(found)} load in a fresh process and predict the same (to {max(found.values()):.1g})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--only", nargs="+", metavar="VARIANT", help="some of the variants, by name")
    parser.add_argument("--load", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.load:
        if os.environ.get("KERAS_BACKEND") != "jax":
            start()
        compare(arguments.load)
        return
    start()
    with tempfile.TemporaryDirectory() as folder:
        table = train_all(arguments.epochs, arguments.only, Path(folder))
        for backend in ("tensorflow", *(["jax"] if find_spec("jax") else [])):
            environment = os.environ | {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
            subprocess.run([sys.executable, __file__, "--load", folder], check=True, env=environment)
    print(table.to_string(index=False, formatters={"validation": "{:.2%}".format, "test": "{:.2%}".format}))


def start() -> None:
    from pipeline import runtime

    runtime.start(config.load(Paths(ROOT)).runtime)


if __name__ == "__main__":
    main()
