"""One network trained for good: fitted, saved, written down, and recorded as one MLflow run."""

import json
from dataclasses import asdict
from pathlib import Path

import keras
import numpy as np
import pandas as pd

from models import inference, layers
from pipeline import artifacts, atomic, config, dataset, provenance, tracking, training
from pipeline.config import Model, Params
from pipeline.dataset import Card, Split
from pipeline.paths import Paths
from pipeline.runtime import Runtime
from pipeline.stage import Stopwatch

EXAMPLE = 2  # images that are logged as the example of a model's input


def layer_table(network: Model, card: Card) -> pd.DataFrame:
    """One row per layer: name, kind, output shape, parameters, non-trainable parameters, multiply-adds of one image."""
    return pd.DataFrame(
        {
            "layer": row.layer.name,
            "kind": type(row.layer).__name__,
            "output": "x".join(map(str, row.output_shape)),
            "parameters": row.parameters,
            "non_trainable": row.non_trainable,
            "multiply_adds": row.multiply_adds,
        }
        for row in layers.trace(network, card.image, len(card.classes))
    )


def counts(table: pd.DataFrame) -> dict[str, int]:
    """Parameters in all, trainable and not, and multiply-adds of one image."""
    total, fixed = int(table["parameters"].sum()), int(table["non_trainable"].sum())
    return {
        "parameters": total,
        "trainable_parameters": total - fixed,
        "non_trainable_parameters": fixed,
        "multiply_adds": int(table["multiply_adds"].sum()),
    }


def record_settings(run: tracking.Run, network: Model, params: Params, card: Card, runtime: Runtime) -> None:
    """What a run is about: configuration, counts, layers, data."""
    table = layer_table(network, card)
    settings = {"seed": params.seed, "data": params.data.model_dump(), **network.model_dump(mode="json")}
    run.params(config.flatten(settings) | {"device": runtime.device, "precision": runtime.precision})
    run.metrics(counts(table))
    run.table("layers", table)
    run.dataset(card, "training")


def record_model(run: tracking.Run, name: str, model: keras.Model, saved: Path, train: Split, card: Card) -> None:
    """A trained network, saved as that file, with what its inputs and outputs look like and mean."""
    example = train.images[:EXAMPLE].astype(np.float32) / 255
    answer = inference.probabilities(model, example)
    run.model(name, saved, example, answer, {"dataset": card.dataset, "classes": card.classes})


def complete(
    name: str, network: Model, params: Params, paths: Paths, runtime: Runtime, stage: str, stopwatch: Stopwatch
) -> None:
    """Train a network with the project's parameters; write its model, its history and run.json."""
    with stopwatch("data"):
        card = dataset.load_card(paths)
        train, validation = dataset.load(paths, "train"), dataset.load(paths, "validation")
    settings = provenance.digest(network.model_dump(mode="json"), params.seed, asdict(runtime))
    checkpoint = f"{name}-{provenance.digest(settings, card.digest, provenance.code_digest())}.npz"
    tags = {"params.digest": settings, "device": runtime.name}
    with tracking.run(paths, card, name, stage, stopwatch, tags=tags) as run:
        record_settings(run, network, params, card, runtime)
        if paths.validation.is_dir():  # to look at, not to depend on: another page must not mean another training
            run.file(paths.validation)
        with stopwatch("fit"):
            fitted = training.fit(
                network,
                card,
                train,
                validation,
                seed=params.seed,
                precision=runtime.precision,
                on_epoch=run.epoch,
                checkpoint=paths.unfinished / "train" / checkpoint,
                title=name,
            )
        run.metrics({f"validation_{figure}": value for figure, value in fitted.validation.items()})
        with stopwatch("writing"):
            sha256 = artifacts.save(fitted.model, paths.model(name))
        record_model(run, name, fitted.model, paths.model(name), train, card)
        about = {
            "model": name,
            "run_id": run.id,
            "model_uri": run.model_uri,
            "sha256": sha256,
            "dataset": card.dataset,
            "data": card.digest,
            "params": settings,
            "network": network.model_dump(mode="json"),
            **provenance.commit(paths.root),
            **provenance.dvc(stage),
            **asdict(runtime),
            "validation": fitted.validation,
            "parameters": counts(layer_table(network, card)),
        }
        with stopwatch("writing"), atomic.folder(paths.training(name)) as folder:
            history = pd.DataFrame(fitted.history)
            history.insert(0, "epoch", range(1, len(history) + 1))
            history.to_csv(folder / "history.csv", index=False)
            (folder / "run.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
