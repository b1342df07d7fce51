"""Trials and their outcomes: types, ranking and tables."""

import json
from dataclasses import asdict, dataclass, field, replace

import pandas as pd

from pipeline.core.config import OBJECTIVE_DIRECTIONS
from pipeline.core.search_space import Dimension, Value

METRICS = ("val_accuracy", "val_loss")  # of a trial
EPOCH_METRICS = ("loss", "accuracy", "val_loss", "val_accuracy")  # of each epoch of its curve

Metrics = dict[str, float]


@dataclass(frozen=True)
class Outcome:
    """The outcome of a trial, or of a finalist's fit.

    `status`: COMPLETED, PRUNED or FAILED. `curve`: the metrics of each epoch. `run_id`: the ID of its MLflow run.
    `counts`: parameters and the like, where completed.
    """

    status: str
    metrics: Metrics
    curve: list[Metrics]
    error: str | None = None
    run_id: str | None = None
    counts: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Trial:
    """One trial: its number in the search, the values of its active dimensions, its epochs, and its outcome."""

    number: int
    values: dict[str, Value]
    epochs: int
    status: str = "RUNNING"
    metrics: Metrics = field(default_factory=dict)
    curve: list[Metrics] = field(default_factory=list)
    error: str | None = None
    run_id: str | None = None
    counts: dict[str, int] = field(default_factory=dict)

    def ended(self, outcome: Outcome) -> "Trial":
        """The trial with its outcome."""
        return replace(self, **asdict(outcome))


def cost(metrics: Metrics, objective: str) -> float:
    """The objective with the sign for which lower is better."""
    return metrics[objective] if OBJECTIVE_DIRECTIONS[objective] == "min" else -metrics[objective]


def ranked(trials: list[Trial], objective: str) -> list[Trial]:
    """The completed trials, best first (ties: the lower number first), with only the best trial of each network."""
    completed = sorted((t for t in trials if t.status == "COMPLETED"), key=lambda t: cost(t.metrics, objective))
    networks: dict[str, Trial] = {}
    for trial in completed:
        networks.setdefault(json.dumps(trial.values), trial)
    return list(networks.values())


def trial_table(trials: list[Trial], dimensions: list[Dimension]) -> pd.DataFrame:
    """One row per trial: trial, status, epochs run, metrics, and a column per dimension, empty where it is inactive."""
    rows = [
        {
            "trial": trial.number,
            "status": trial.status,
            "epochs": len(trial.curve),
            **{name: trial.metrics.get(name) for name in METRICS},
            **{d.name: _cell(trial.values[d.name]) if d.name in trial.values else None for d in dimensions},
        }
        for trial in trials
    ]
    types = {"trial": int, "epochs": int, **dict.fromkeys(METRICS, float)}
    return pd.DataFrame(rows, dtype=object).astype(types)  # without dtype=object, 2 beside an empty cell becomes 2.0


def curve_table(trials: list[Trial]) -> pd.DataFrame:
    """One row per trial and epoch: trial, epoch from 1, loss, accuracy, val_loss, val_accuracy."""
    rows = [
        {"trial": trial.number, "epoch": epoch, **{name: metrics[name] for name in EPOCH_METRICS}}
        for trial in trials
        for epoch, metrics in enumerate(trial.curve, start=1)
    ]
    return pd.DataFrame(rows, columns=["trial", "epoch", *EPOCH_METRICS])


def _cell(value: Value) -> Value:
    return json.dumps(value) if isinstance(value, list | dict) else value
