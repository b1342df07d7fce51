"""Made-up results, stored as the stages before the report leave them."""

import json

import numpy as np
import pandas as pd

from pipeline.core.config import Params
from pipeline.core.explanations import Explanations, FeatureMaps, GradCam, NetworkExplanations
from pipeline.core.paths import Paths
from pipeline.core.provenance import Origin
from pipeline.core.records import Counts, Device, Scores, SearchRecord, TrainingRecord

CLASSES = ("cat", "<b>dog</b>", "$owl$")
MODELS = ("net_1", "<i>net")
FIRST, SECOND = MODELS
PAIR = "pair a b only_a only_b same difference low high p p_adjusted"
SEED_PAIR = "pair a b seeds same difference low high p p_adjusted"


def frame(columns: str, *rows: tuple) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=columns.split())


METRICS = {
    FIRST: {"accuracy": 0.9876, "accuracy_low": 0.9811, "accuracy_high": 0.9922, "loss": 0.0512, "parameters": 421642}
    | {"brier": 0.0213, "top2": 0.9954, "f1": 0.9871, "ece": 0.0117, "run_id": "abc", "own_metric": 1.25}
    | {"validation_accuracy": 0.9888, "multiply_adds": 4241152, "summary": "pooling max"},
    SECOND: {"accuracy": 0.9712, "accuracy_low": 0.9611, "accuracy_high": 0.9812, "loss": 0.25, "parameters": 101770}
    | {"f1": float("nan"), "ece": 0.02, "temperature": 1.375, "validation_accuracy": 0.98}
    | {"multiply_adds": 101632, "summary": "pooling max"},
}
TABLES = {
    "comparisons": frame(PAIR, ("x", *MODELS, 9, 3, False, 1.64, 0.83, 2.45, 0.0021, 0.0042)),
    "baselines": frame(
        "baseline validation_accuracy accuracy loss",
        ("majority class", 0.101, 0.1135, 2.3),
        ("linear classifier", 0.9, 0.9175, 0.29),
    ),
    "baseline_comparisons": frame(
        PAIR,
        *(
            ("x", model, baseline, 90, 3, False, difference, difference - 1, difference + 1, 0.001, p)
            for model, baseline, difference, p in (
                (FIRST, "majority class", 87.41, 0.001),
                (FIRST, "linear classifier", 7.01, 0.002),
                (SECOND, "majority class", 85.77, 0.001),
                (SECOND, "linear classifier", 5.37, 0.06),
            )
        ),
    ),
    "seeds": frame(
        "model seed accuracy loss",
        *(
            (model, 42 + k, 0.9865 + (k - 1) * 0.0012 - 0.015 * (model == SECOND), 0.05)
            for model in MODELS
            for k in range(3)
        ),
    ),
    "replicates": frame("model seeds mean std", (FIRST, 3, 0.9865, 0.0012), (SECOND, 3, 0.9715, 0.0012)),
    "seed_comparisons": frame(SEED_PAIR, ("x", *MODELS, 3, False, 1.5, -0.25, 3.25, 0.0731, 0.1462)),
    "reliability": frame(
        "model lower upper count confidence accuracy",
        *((model, 0.5, 1.0, 20, 0.93, 0.9) for model in MODELS),
        (FIRST, 0.0, 0.5, 0, np.nan, np.nan),
    ),
    "per_class": frame(
        "model class precision recall f1 support",
        *((model, name, 0.9123, 0.8765, 0.8941, 1234) for model in MODELS for name in CLASSES),
    ),
    "confusion": frame(
        "model actual predicted count",
        *((model, a, b, 7 if a == b else 1) for model in MODELS for a in CLASSES for b in CLASSES),
    ),
    "cost": frame("model parameters multiply_adds latency_p50_ms", (FIRST, 421642, 4241152, 1.37)),
    "corruption": frame(
        "model corruption error relative",
        *((model, name, error, 0.87) for model in MODELS for name, error in (("fog", 0.456), ("shot_noise", 0.0))),
    ),
    "corruption_summary": frame("model clean_error mean_error mce worst", (FIRST, 0.0124, 0.1357, 0.91, "glass_blur")),
    "shift": frame(
        "model shift images consistency low high pairwise",
        *((model, k, 9, 0.973 - 0.1 * k, 0.95 - 0.1 * k, 0.99 - 0.1 * k, 1) for model in MODELS for k in (1, 2)),
    ),
    "out_of_distribution": frame("model against auroc", *((model, "uniform_noise", 0.876) for model in MODELS)),
}


def explained(number: int, channels: int = 1) -> NetworkExplanations:
    rng = np.random.default_rng(number)
    predictions = frame("index label prediction confidence", (2, 0, 1, 0.99996), (1, 2, 0, 0.75))
    return NetworkExplanations(
        mistakes=predictions,
        filters=rng.normal(size=(4, 3, 3, channels)).astype(np.float32),
        maps=(
            FeatureMaps("block1", rng.random((8, 6, 10), np.float32), rng.random((4, 3, 10), np.float32)),
            FeatureMaps("block2", rng.random((4, 3, 2), np.float32), None),
        ),
        grad_cam=GradCam(predictions, rng.random((2, 8, 6), np.float32), np.zeros((2, 8, 6), np.float32)),
    )


def explanations(channels: int = 1) -> Explanations:
    rng = np.random.default_rng(0)
    images = {index: rng.integers(0, 256, (8, 6, channels), dtype=np.uint8) for index in range(4)}
    names = [f"{column} {name}" for name in MODELS for column in ("prediction", "confidence")]
    apart = pd.DataFrame([[3, 1, 0.4, 0, 0.625, 2, 1.0]], columns=["index", "label", "divergence", *names])
    networks = {name: explained(number, channels) for number, name in enumerate(MODELS)}
    return Explanations(images, CLASSES, 0, networks, apart)


def store(paths: Paths, params: Params) -> None:
    """Write what the stages before the report leave."""
    for folder in (paths.validated, paths.evaluation, paths.search):
        folder.mkdir(parents=True)
    info = {
        "dataset": "<em>digits",
        "image": [8, 6, 1],
        "classes": CLASSES,
        "images": {"train": 3600, "test": 1000},
        "digest": "0a1b",
    }
    (paths.validated / "dataset.json").write_text(json.dumps(info))
    (paths.evaluation / "metrics.json").write_text(json.dumps(METRICS))
    for name, table in TABLES.items():
        table.to_csv(paths.evaluation / f"{name}.csv", index=False)
    explanations().save(paths.evaluation / "explanations.npz")
    device = Device(kind="cpu", name="a processor", precision="float32", threads=1)
    origin = Origin(stage="train@net_1", experiment=None, baseline=None, commit="c0ffee", changed=True)
    common = {"data_digest": "0a1b", "settings_digest": "2c3d", "device": device, "run_id": None}
    for name, network in {FIRST: params.base, SECOND: params.models["model_1"]}.items():
        TrainingRecord(
            **common,
            name=name,
            network=network,
            base=None,
            seed=42,
            dataset="digits",
            origin=origin,
            key="5f6a",
            sha256="4e5f",
            counts=Counts(parameters=1, trainable_parameters=1, non_trainable_parameters=0, multiply_adds=1),
            validation=Scores(accuracy=0.9, loss=0.1),
            model_uri=None,
        ).write(paths.training(name))
        epochs = [(epoch, 0.5 / epoch, 1 - 0.3 / epoch, 0.6 / epoch, 0.8) for epoch in (1, 2, 3)]
        history = frame("epoch loss accuracy val_loss val_accuracy", *epochs)
        history.to_csv(paths.training(name) / "history.csv", index=False)
    SearchRecord(**common, objective="val_loss", winner=0, errors={}).write(paths.search)
    rng = np.random.default_rng(0)
    trials = pd.DataFrame({"trial": range(12), "status": "COMPLETED", "epochs": 2, "val_accuracy": 0.9})
    trials["val_loss"] = 0.1 + 0.01 * rng.random(12)
    for dimension in params.dimensions:
        trials[dimension.name] = rng.choice(np.array(dimension.extremes), 12)
    trials.to_csv(paths.search / "trials.csv", index=False)
    epochs = frame("trial epoch val_loss", *((number, epoch, 0.3 / epoch) for number in range(12) for epoch in (1, 2)))
    epochs.to_csv(paths.search / "curves.csv", index=False)
    (paths.search / "best.yaml").write_text("tuned: {}\n")
