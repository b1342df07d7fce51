"""Tables of the page: cells as text, in the form in which templates/tables.html draws them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

MISSING = "—"
DARKEST = 70  # percent of the colour in a shaded cell, which keeps its text readable
NUMBERED = 20  # classes of a confusion matrix at most
P = "p"  # the number format of p-values
Columns = Mapping[str, tuple[str, str]]  # key -> title and number format, "" for text
METRICS: Columns = {
    "accuracy": ("test accuracy", ".2%"),
    "accuracy_low": ("test accuracy, lower end of the 95 % interval", ".2%"),
    "accuracy_high": ("test accuracy, upper end of the 95 % interval", ".2%"),
    "accuracy_mean": ("test accuracy, mean over seeds", ".2%"),
    "accuracy_std": ("test accuracy, standard deviation over seeds", ".4f"),
    "loss": ("test loss", ".4f"),
    "top2": ("top-2 accuracy", ".2%"),
    "brier": ("Brier score", ".4f"),
    "f1": ("F1 (macro)", ".4f"),
    "precision": ("precision (macro)", ".4f"),
    "recall": ("recall (macro)", ".4f"),
    "ece": ("calibration error (ECE)", ".4f"),
    "ece_equal_mass": ("calibration error, equal-mass bins", ".4f"),
    "temperature": ("temperature", ".3f"),
    "loss_calibrated": ("test loss after temperature scaling", ".4f"),
    "ece_calibrated": ("calibration error after temperature scaling", ".4f"),
    "error_confidence_mean": ("confidence of errors, mean", ".4f"),
    "error_confidence_median": ("confidence of errors, median", ".4f"),
    "error_confidence_p90": ("confidence of errors, 90th percentile", ".4f"),
    "error_auroc": ("error-detection AUROC", ".4f"),
    "corruption_error": ("mean error under corruptions", ".2%"),
    "corruption_mce": ("mean corruption error relative to the reference (mCE)", ".4f"),
    "validation_accuracy": ("validation accuracy", ".2%"),
    "validation_loss": ("validation loss", ".4f"),
    "parameters": ("parameters", ",.0f"),
    "trainable_parameters": ("trainable parameters", ",.0f"),
    "non_trainable_parameters": ("non-trainable parameters", ",.0f"),
    "multiply_adds": ("multiply-adds per image", ",.0f"),
}
CALIBRATION: Columns = {
    "name": ("network", ""),
    **{key: METRICS[key] for key in ("ece", "ece_equal_mass", "temperature", "ece_calibrated", "error_auroc")},
}
COST: Columns = {
    "model": ("network", ""),
    "parameters": ("parameters", ",.0f"),
    "multiply_adds": ("multiply-adds per image", ",.0f"),
    "file_bytes": ("file size, bytes", ",.0f"),
    "latency_p50_ms": ("latency of one image, median, ms", ".2f"),
    "latency_p95_ms": ("95th percentile, ms", ".2f"),
    "images_per_second": ("images per second, in batches", ",.0f"),
    "peak_memory_mb": ("peak memory, MB", ",.0f"),
}
CORRUPTION_SUMMARY: Columns = {
    "model": ("network", ""),
    "clean_error": ("clean error", ".2%"),
    "mean_error": ("mean error", ".2%"),
    "mce": ("mean relative error (mCE)", ".2f"),
    "worst": ("worst corruption", ""),
}
REPLICATES: Columns = {
    "model": ("network", ""),
    "seeds": ("seeds", ",.0f"),
    "mean": ("mean accuracy", ".2%"),
    "std": ("standard deviation, pp", ".2f"),
}
PAIRS: Columns = {
    "a": ("first", ""),
    "b": ("second", ""),
    "difference": ("difference (first minus second), pp", "+.2f"),
    "interval": ("simultaneous 95 % interval, pp", ""),
    "p": ("p", P),
    "p_adjusted": ("p, adjusted", P),
}
PER_CLASS: Columns = {
    "model": ("network", ""),
    "class": ("class", ""),
    "precision": ("precision", ".4f"),
    "recall": ("recall", ".4f"),
}
IMPORTANCE: Columns = {
    "dimension": ("factor", ""),
    "share": ("share of variance", ".0%"),
    "interval": ("95 % interval", ""),
    "p": ("p", P),
    "p_adjusted": ("p, adjusted", P),
    "verdict": ("verdict", ""),
}
EFFECTS: Columns = {
    "dimension": ("factor", ""),
    "change": ("value", ""),
    "reference": ("reference", ""),
    "effect": ("effect", ""),
    "interval": ("95 % interval", ""),
    "p": ("p", P),
    "trials": ("runs", ",.0f"),
}


@dataclass(frozen=True)
class Table:
    """Cells as text. The first column names the rows; `shades` are percentages of a colour behind the others."""

    caption: str
    head: tuple[str, ...]
    rows: list[list[str]]
    shades: list[list[int]] | None = None


def table(caption: str, values: pd.DataFrame, columns: Columns) -> Table:
    """Format the columns that the table of values has."""
    present = {key: column for key, column in columns.items() if key in values}
    rows = [[text(row[key], form) for key, (_, form) in present.items()] for row in values.to_dict("records")]
    return Table(caption, tuple(title for title, _ in present.values()), rows)


def crossed(caption: str, values: pd.DataFrame, key: str, cells: Sequence[str], shaded: str | None = None) -> Table:
    """A table of networks by `key`, with the longer of the two down its side.

    Args:
        values: a row per network (column `model`) and `key`.
        cells: the text of each row of `values`.
        shaded: a column of `values`, from 0 upwards, that shades the cells.
    """
    models, keys = list(dict.fromkeys(values["model"])), list(dict.fromkeys(values[key]))
    down, across, corner = (models, keys, "network") if len(models) >= len(keys) else (keys, models, key)
    columns = {"index": key, "columns": "model"} if down is keys else {"index": "model", "columns": key}

    def wide(column: str) -> pd.DataFrame:
        return values.assign(cell=list(cells)).pivot(**columns, values=column).reindex(index=down, columns=across)

    texts = wide("cell").fillna(MISSING)
    shades = None
    if shaded:
        shades = _shades(wide(shaded).to_numpy(float))
    rows = [[str(name), *row] for name, *row in texts.itertuples()]
    return Table(caption, (corner, *map(str, across)), rows, shades)


def confusion(table_of_counts: pd.DataFrame, model: str, classes: Sequence[str]) -> Table:
    """Counts, a row per actual and a column per predicted class; of many classes, the most frequent errors.

    Errors are shaded by their share of the images of their class.
    """
    found = table_of_counts[table_of_counts["model"] == model]
    wide = found.pivot(index="actual", columns="predicted", values="count")
    counts = wide.reindex(index=list(classes), columns=list(classes)).fillna(0).to_numpy(int)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    np.fill_diagonal(shares, 0)
    caption = f"Confusion matrix of {model}"
    if len(classes) <= NUMBERED:
        texts = [[f"{count:,}" if count else "" for count in row] for row in counts]
        rows = [[name, *row] for name, row in zip(classes, texts, strict=True)]
        return Table(caption, ("actual", *classes), rows, _shades(shares))
    places = np.argsort(-np.where(shares > 0, counts, 0), axis=None, kind="stable")[:NUMBERED]
    errors = [np.unravel_index(place, counts.shape) for place in places]
    rows = [
        [classes[actual], classes[predicted], f"{counts[actual, predicted]:,}", f"{shares[actual, predicted]:.1%}"]
        for actual, predicted in errors
        if shares[actual, predicted] > 0
    ]
    return Table(f"{caption}: the most frequent errors", ("actual", "predicted", "images", "of the class"), rows)


def metrics(found: Mapping[str, Mapping[str, Any]]) -> Table:
    """All metrics of all networks."""
    known = {key for row in found.values() for key, value in row.items() if is_number(value)}
    titles = {key: METRICS[key] for key in METRICS if key in known}
    titles |= {key: (words(key), ".4g") for key in sorted(known - set(METRICS))}
    pairs = [(name, title) for title, _ in titles.values() for name in found]
    values = pd.DataFrame(pairs, columns=["model", "metric"])
    cells = [text(row.get(key), form) for key, (_, form) in titles.items() for row in found.values()]
    return crossed("All metrics", values, "metric", cells)


def _shades(values: np.ndarray) -> list[list[int]]:
    shares = np.nan_to_num(values / max(float(np.nanmax(values)), 1e-12))
    return np.rint(DARKEST * shares).astype(int).tolist()


def words(name: str) -> str:
    return name.replace("_", " ")


def text(value: Any, form: str) -> str:
    if isinstance(value, str):
        return value or MISSING
    if not is_number(value) or not math.isfinite(value):
        return MISSING
    if form == P:
        return "< 0.001" if value < 0.001 else f"{value:.3f}"
    return format(value, form)


def intervals(values: pd.DataFrame, form: str) -> list[str]:
    return [interval(low, high, form) for low, high in zip(values["low"], values["high"], strict=True)]


def interval(low: Any, high: Any, form: str) -> str:
    ends = [text(low, form), text(high, form)]
    return MISSING if MISSING in ends else " to ".join(ends)


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
