"""The evaluation as one page, results/report.html: figures, plots, failures, robustness, cost, and where it comes from.

The page needs no other file and sends no request. Equal input is equal bytes.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from pipeline import atomic, look_pictures, pages, report_plots

if TYPE_CHECKING:
    from pipeline.looking import Pictures

MISSING = "—"
# Key of a network's figures -> its title and format. The first ones are the headline, the others under "all figures".
HEADLINE = ("accuracy", "loss", "f1", "ece", "parameters")
FIGURES = {
    "accuracy": ("test accuracy", ".2%"),
    "loss": ("test loss", ".4f"),
    "f1": ("F1 (macro)", ".4f"),
    "ece": ("calibration error", ".4f"),
    "parameters": ("parameters", ",.0f"),
    "accuracy_low": ("test accuracy, 95 % interval from", ".2%"),
    "accuracy_high": ("test accuracy, 95 % interval to", ".2%"),
    "top2": ("right class among the two most likely", ".2%"),
    "brier": ("Brier score", ".4f"),
    "precision": ("precision (macro)", ".4f"),
    "recall": ("recall (macro)", ".4f"),
    "ece_equal_mass": ("calibration error, bins of equal mass", ".4f"),
    "temperature": ("temperature", ".3f"),
    "loss_calibrated": ("test loss at that temperature", ".4f"),
    "ece_calibrated": ("calibration error at that temperature", ".4f"),
    "validation_accuracy": ("validation accuracy", ".2%"),
    "validation_loss": ("validation loss", ".4f"),
    "trainable_parameters": ("trainable parameters", ",.0f"),
    "non_trainable_parameters": ("parameters that are not trainable", ",.0f"),
}
COST = {
    "parameters": ("parameters", ",.0f"),
    "multiply_adds": ("multiply-adds of an image", ",.0f"),
    "file_bytes": ("file, bytes", ",.0f"),
    "latency_p50_ms": ("one image, median, ms", ".2f"),
    "latency_p95_ms": ("one image, 95th percentile, ms", ".2f"),
    "images_per_second": ("images a second, in batches", ",.0f"),
    "peak_memory_mb": ("peak memory, MB", ",.0f"),
}


@dataclass(frozen=True)
class Table:
    """Cells as text; the first column names the rows, and numbers stand to the right."""

    caption: str
    head: tuple[str, ...]
    rows: list[list[str]]


@dataclass(frozen=True)
class Report:
    """What evaluation found. A part that is None is left out of the page, a figure that is missing is a dash.

    figures: network -> its figures by name, all numbers, accuracy and the like as shares.
    comparisons: a, b, difference, low, high (percentage points), p, p_adjusted, sentence.
    replicates: model, seeds, mean, deviation (of accuracy, as shares).
    reliability: model, lower, upper, count, confidence, accuracy.
    per_class: model, class, precision, recall, f1, support.
    confusion: network -> actual, then a column of counts for each predicted class.
    cost: model and the columns of COST.
    corruption: model, corruption, error, relative (to the reference network).
    shift: model, shift (pixels), consistency, low, high.
    foreign: model, inputs, auroc.
    curves: model, split (training or validation), epoch, loss, accuracy.
    provenance: what it is about -> a value, or a mapping of names to values.
    """

    dataset: str
    figures: Mapping[str, Mapping[str, Any]] | None = None
    comparisons: pd.DataFrame | None = None
    replicates: pd.DataFrame | None = None
    reliability: pd.DataFrame | None = None
    per_class: pd.DataFrame | None = None
    confusion: Mapping[str, pd.DataFrame] | None = None
    cost: pd.DataFrame | None = None
    corruption: pd.DataFrame | None = None
    shift: pd.DataFrame | None = None
    foreign: pd.DataFrame | None = None
    curves: pd.DataFrame | None = None
    pictures: "Pictures | None" = None
    provenance: Mapping[str, Any] | None = None

    def write(self, target: Path) -> None:
        atomic.write_text(target, self.page())

    def page(self) -> str:
        return pages.render(
            "report.html",
            dataset=self.dataset,
            results=self._results(),
            comparisons=self._comparisons(),
            replicates=self._replicates(),
            curves=self._curves(),
            calibration=self._calibration(),
            classes=self._classes(),
            confusion=[
                (model, report_plots.confusion(table, model)) for model, table in (self.confusion or {}).items()
            ],
            looks=look_pictures.looks(self.pictures) if self.pictures else [],
            disagreements=look_pictures.disagreements(self.pictures) if self.pictures else [],
            corruption=self._corruption(),
            shift=None if self.shift is None else report_plots.shift(self.shift),
            shifts=None if self.shift is None else _shifts(self.shift),
            foreign=None if self.foreign is None else _foreign(self.foreign),
            cost=None if self.cost is None else _cost(self.cost),
            provenance=self._provenance(),
        )

    def _results(self) -> dict[str, Any] | None:
        if not self.figures:
            return None
        known = {key for row in self.figures.values() for key, value in row.items() if _is_number(value)}
        headline = [key for key in HEADLINE if key in known]
        every = [key for key in FIGURES if key in known] + sorted(known - set(FIGURES))
        rows = [[name, *(_figure(key, row) for key in headline)] for name, row in self.figures.items()]
        head = ["network", *(FIGURES[key][0] for key in headline)]
        if {"accuracy", "accuracy_low", "accuracy_high"} <= known:
            head.insert(2, "95 % interval")
            for cells, row in zip(rows, self.figures.values(), strict=True):
                cells.insert(2, _interval(row.get("accuracy_low"), row.get("accuracy_high"), ".2%"))
        details = [
            [FIGURES.get(key, (key.replace("_", " "),))[0], *(_figure(key, row) for row in self.figures.values())]
            for key in every
        ]
        return {
            "table": Table("Networks", tuple(head), rows),
            "details": Table("All figures", ("figure", *self.figures), details),
            "plot": report_plots.accuracy(self.figures) if "accuracy" in known else None,
        }

    def _comparisons(self) -> dict[str, Any] | None:
        if self.comparisons is None or self.comparisons.empty:
            return None
        rows = [
            [
                f"{row['a']}, {row['b']}",
                _text(row["difference"], "+.2f"),
                _interval(row["low"], row["high"], "+.2f"),
                _text(row["p"], ".4f"),
                _text(row["p_adjusted"], ".4f"),
            ]
            for row in self.comparisons.to_dict("records")
        ]
        head = ("networks", "difference, pp", "interval, pp", "p", "p, corrected")
        return {
            "sentences": self.comparisons["sentence"].tolist(),
            "plot": report_plots.differences(self.comparisons),
            "table": Table("Pairs of networks", head, rows),
        }

    def _replicates(self) -> Table | None:
        if self.replicates is None:
            return None
        rows = [
            [row["model"], _text(row["seeds"], ",.0f"), _text(row["mean"], ".2%"), _text(row["deviation"], ".2%")]
            for row in self.replicates.to_dict("records")
        ]
        return Table("Accuracy over seeds", ("network", "seeds", "mean", "standard deviation"), rows)

    def _curves(self) -> list[Markup]:
        if self.curves is None:
            return []
        return [report_plots.curves(self.curves, figure) for figure in ("accuracy", "loss")]

    def _calibration(self) -> list[tuple[str, Markup]]:
        if self.reliability is None:
            return []
        models = dict.fromkeys(self.reliability["model"])
        return [(model, report_plots.reliability(self.reliability, model)) for model in models]

    def _classes(self) -> dict[str, Table] | None:
        if self.per_class is None:
            return None
        table = self.per_class
        models = list(dict.fromkeys(table["model"]))
        support = table.drop_duplicates("class").set_index("class")["support"]
        wide = table.pivot(index="class", columns="model", values="f1")
        return {
            "table": Table(
                "F1 by class",
                ("class", "images", *models),
                [
                    [str(name), f"{support[name]:,}", *(_text(wide.loc[name, model], ".4f") for model in models)]
                    for name in support.index
                ],
            ),
            "details": Table(
                "Precision and recall by class",
                ("network, class", "precision", "recall"),
                [
                    [f"{row['model']}, {row['class']}", _text(row["precision"], ".4f"), _text(row["recall"], ".4f")]
                    for row in table.to_dict("records")
                ],
            ),
        }

    def _corruption(self) -> dict[str, Any] | None:
        if self.corruption is None:
            return None
        rows = [
            [
                f"{row['model']}, {str(row['corruption']).replace('_', ' ')}",
                _text(row["error"], ".2%"),
                _text(row["relative"], ".2f"),
            ]
            for row in self.corruption.to_dict("records")
        ]
        return {
            "plot": report_plots.corruptions(self.corruption),
            "table": Table("Errors by corruption", ("network, corruption", "error", "relative"), rows),
        }

    def _provenance(self) -> list[tuple[str, list[tuple[str, str]]]]:
        """What -> pairs of name and value; a single value has no name."""
        return [
            (what, [(str(name), str(each)) for name, each in value.items()])
            if isinstance(value, Mapping)
            else (what, [("", str(value))])
            for what, value in (self.provenance or {}).items()
        ]


def _shifts(table: pd.DataFrame) -> Table:
    models = list(dict.fromkeys(table["model"]))
    rows = [
        [
            f"{pixels} pixel{'s' if pixels != 1 else ''}",
            *(
                f"{_text(row['consistency'], '.1%')} ({_interval(row['low'], row['high'], '.1%')})"
                for row in group.set_index("model").reindex(models).to_dict("records")
            ),
        ]
        for pixels, group in table.groupby("shift")
    ]
    return Table("Consistency by shift, with 95 % interval", ("shift of up to", *models), rows)


def _foreign(table: pd.DataFrame) -> Table:
    models, inputs = (list(dict.fromkeys(table[column])) for column in ("model", "inputs"))
    wide = table.pivot(index="inputs", columns="model", values="auroc")
    rows = [
        [str(name).replace("_", " "), *(_text(wide.loc[name, model], ".3f") for model in models)] for name in inputs
    ]
    return Table("Area under the ROC curve", ("inputs", *models), rows)


def _cost(table: pd.DataFrame) -> Table:
    columns = [column for column in COST if column in table]
    rows = [
        [row["model"], *(_text(row[column], COST[column][1]) for column in columns)] for row in table.to_dict("records")
    ]
    return Table("Cost", ("network", *(COST[column][0] for column in columns)), rows)


def _figure(key: str, row: Mapping[str, Any]) -> str:
    return _text(row.get(key), FIGURES[key][1] if key in FIGURES else ".4g")


def _text(value: Any, form: str) -> str:
    return format(value, form) if _is_number(value) and math.isfinite(value) else MISSING


def _interval(low: Any, high: Any, form: str) -> str:
    ends = [_text(low, form), _text(high, form)]
    return MISSING if MISSING in ends else " to ".join(ends)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
