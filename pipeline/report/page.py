"""results/report.html: all results as one page, which needs no other file and sends no request.

Equal input gives equal bytes.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.core.provenance import requirements
from pipeline.html import render
from pipeline.report import figures, image_panels, search_figures
from pipeline.report.results import Results, sentences
from pipeline.report.search_analysis import SearchAnalysis

TEMPLATE = Path(__file__).parent / "templates" / "report.html"
MISSING = "—"
Columns = Mapping[str, tuple[str, str]]  # key -> title and number format, "" for text
METRICS = {
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
HEADLINE = {
    "name": ("network", ""),
    "accuracy": METRICS["accuracy"],
    "interval": ("95 % interval", ""),
    **{key: METRICS[key] for key in ("loss", "f1", "ece", "parameters")},
}
COST = {
    "model": ("network", ""),
    "parameters": ("parameters", ",.0f"),
    "multiply_adds": ("multiply-adds per image", ",.0f"),
    "file_bytes": ("file size, bytes", ",.0f"),
    "latency_p50_ms": ("latency of one image, median, ms", ".2f"),
    "latency_p95_ms": ("95th percentile, ms", ".2f"),
    "images_per_second": ("images per second, in batches", ",.0f"),
    "peak_memory_mb": ("peak memory, MB", ",.0f"),
}
CORRUPTION = {"name": ("network, corruption", ""), "error": ("error", ".2%"), "relative": ("relative error", ".2f")}
CORRUPTION_SUMMARY = {
    "model": ("network", ""),
    "clean_error": ("clean error", ".2%"),
    "mean_error": ("mean error", ".2%"),
    "mce": ("mean relative error (mCE)", ".2f"),
    "worst": ("worst corruption", ""),
}
REPLICATES = {
    "model": ("network", ""),
    "seeds": ("seeds", ",.0f"),
    "mean": ("mean accuracy", ".2%"),
    "std": ("standard deviation, pp", ".2f"),
}
PAIRS = {
    "name": ("networks", ""),
    "difference": ("difference, pp", "+.2f"),
    "interval": ("simultaneous 95 % interval, pp", ""),
    "p": ("p", ".4f"),
    "p_adjusted": ("p, adjusted", ".4f"),
}
PER_CLASS = {"name": ("network, class", ""), "precision": ("precision", ".4f"), "recall": ("recall", ".4f")}
IMPORTANCE = {
    "dimension": ("dimension", ""),
    "share": ("share of variance", ".0%"),
    "interval": ("95 % interval", ""),
    "p": ("p", ".4f"),
    "p_adjusted": ("p, adjusted", ".4f"),
    "verdict": ("verdict", ""),
}
EFFECTS = {
    "dimension": ("dimension", ""),
    "change": ("value", ""),
    "reference": ("reference", ""),
    "effect": ("effect", ""),
    "interval": ("95 % interval", ""),
    "p": ("p", ".4f"),
    "trials": ("trials", ",.0f"),
}


@dataclass(frozen=True)
class Table:
    """Cells as text. The first column names the rows."""

    caption: str
    head: tuple[str, ...]
    rows: list[list[str]]


def page(results: Results) -> str:
    """The page as HTML."""
    tables, classes = results.tables, results.info.classes
    return render.render(
        TEMPLATE,
        dataset=results.info.dataset,
        results=_metrics(results.metrics),
        pairs=_pairs(tables["comparisons"], "images"),
        seeds=_seeds(tables["replicates"], tables["seed_comparisons"]) if "replicates" in tables else None,
        curves=[figures.curves(results.curves, metric) for metric in ("accuracy", "loss")],
        calibration={name: figures.reliability(tables["reliability"], name) for name in results.metrics},
        confusion={name: figures.confusion(tables["confusion"], name, classes) for name in results.metrics},
        per_class=_per_class(tables["per_class"]),
        networks=image_panels.networks(results.explanations),
        disagreements=image_panels.disagreements(results.explanations),
        corruption=_corruption(tables["corruption"], tables["corruption_summary"]),
        shift=_shift(tables["shift"]) if len(tables["shift"]) else None,
        out_of_distribution=_out_of_distribution(tables["out_of_distribution"]),
        cost=_table("Cost", tables["cost"], COST),
        search=_search(results.search),
        provenance=_provenance(results),
    )


def _metrics(metrics: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    known = {key for row in metrics.values() for key, value in row.items() if _is_number(value)}
    rows = [
        {"name": name, "interval": _interval(row.get("accuracy_low"), row.get("accuracy_high"), ".2%"), **row}
        for name, row in metrics.items()
    ]
    titles = {key: METRICS[key] for key in METRICS if key in known}
    titles |= {key: (_words(key), ".4g") for key in sorted(known - set(METRICS))}
    details = [
        [title, *(_text(row.get(key), form) for row in metrics.values())] for key, (title, form) in titles.items()
    ]
    return {
        "table": _table("Networks", pd.DataFrame(rows), HEADLINE),
        "details": Table("All metrics", ("metric", *metrics), details),
        "figure": figures.accuracy(metrics),
    }


def _pairs(table: pd.DataFrame, over: str) -> dict[str, Any]:
    shown = table.assign(name=table["a"] + ", " + table["b"], interval=_intervals(table, "+.2f"))
    return {
        "sentences": sentences(table),
        "figure": figures.differences(table, f"Differences in accuracy over {over}, with simultaneous 95 % intervals"),
        "table": _table(f"Pairs of networks, over {over}", shown, PAIRS),
    }


def _seeds(replicates: pd.DataFrame, comparisons: pd.DataFrame) -> dict[str, Any]:
    shown = replicates.assign(std=100 * replicates["std"])
    return {"table": _table("Accuracy over seeds", shown, REPLICATES), "pairs": _pairs(comparisons, "seeds")}


def _per_class(table: pd.DataFrame) -> dict[str, Table]:
    pairs = zip(table["class"], table["support"], strict=True)
    counted = table.assign(**{"class": [f"{name} ({support:,} images)" for name, support in pairs]})
    named = table.assign(name=table["model"] + ", " + table["class"])
    return {
        "table": _by_model("F1 by class", counted, "class", [_text(f1, ".4f") for f1 in table["f1"]]),
        "details": _table("Precision and recall by class", named, PER_CLASS),
    }


def _corruption(table: pd.DataFrame, summary: pd.DataFrame) -> dict[str, Any]:
    shown = table.assign(name=table["model"] + ", " + table["corruption"].map(_words))
    worst = summary.assign(worst=summary["worst"].map(_words, na_action="ignore"))
    return {
        "figure": figures.corruptions(table),
        "summary": _table("All corruptions", worst, CORRUPTION_SUMMARY),
        "table": _table("Error by corruption", shown, CORRUPTION),
    }


def _shift(table: pd.DataFrame) -> dict[str, Any]:
    pairs = zip(table["consistency"], _intervals(table, ".1%"), strict=True)
    cells = [f"{_text(share, '.1%')} ({interval})" for share, interval in pairs]
    named = table.rename(columns={"shift": "largest shift, pixels"})
    caption = "Consistency by largest shift, with 95 % interval"
    return {"figure": figures.shift(table), "table": _by_model(caption, named, "largest shift, pixels", cells)}


def _out_of_distribution(table: pd.DataFrame) -> Table:
    named = table.assign(inputs=table["against"].map(_words))
    return _by_model("AUROC of confidence", named, "inputs", [_text(auroc, ".3f") for auroc in table["auroc"]])


def _search(search: SearchAnalysis) -> dict[str, Any]:
    found, scale = search.effects, search.scale
    texts = found[["effect", "low", "high"]].map(lambda value: MISSING if math.isnan(value) else scale.text(value))
    intervals = (texts["low"] + " to " + texts["high"]).where(found["effect"].notna(), MISSING)
    effects = found.assign(effect=texts["effect"], interval=intervals)
    importance = search.importance.assign(interval=_intervals(search.importance, ".0%"))
    return {
        "summary": search.summary,
        "importance": _table("Dimensions", importance, IMPORTANCE),
        "effects": _table("Effects", effects, EFFECTS),
        "figures": {
            "Effects": search_figures.effects(search),
            "Share of variance": search_figures.importance(search),
            "Learning curves of the trials": search_figures.curves(search),
        },
    }


def _provenance(results: Results) -> dict[str, Any]:
    """Topic -> a value, or a mapping of names to values."""
    networks = results.networks
    first = next(iter(networks.values()))
    origins = {name: network.origin for name, network in networks.items()}
    return {
        "data": f"{results.info.dataset}, digest {results.info.digest}",
        "images": results.info.images,
        "seed": first.seed,
        "hardware": f"{first.device.name}, {first.device.precision}",
        "versions": ", ".join(requirements()),
        "commit": {
            name: f"{origin.commit}{', with changes' * bool(origin.changed)}"
            for name, origin in origins.items()
            if origin.commit
        },
        "DVC stage": {name: origin.stage for name, origin in origins.items()},
        "MLflow run": {name: network.run_id for name, network in networks.items()}
        | {"search": results.search_record.run_id},
    }


def _table(caption: str, table: pd.DataFrame, columns: Columns) -> Table:
    """The columns that the table has, as text."""
    present = {key: column for key, column in columns.items() if key in table}
    rows = [[_text(row[key], form) for key, (_, form) in present.items()] for row in table.to_dict("records")]
    return Table(caption, tuple(title for title, _ in present.values()), rows)


def _by_model(caption: str, table: pd.DataFrame, rows: str, cells: list[str]) -> Table:
    """A column per network; `rows` is the column that names the rows."""
    models = list(dict.fromkeys(table["model"]))
    wide = table.assign(cell=cells).pivot(index=rows, columns="model", values="cell")
    wide = wide.reindex(index=list(dict.fromkeys(table[rows])), columns=models)
    return Table(caption, (rows, *models), [[str(name), *row] for name, *row in wide.itertuples()])


def _words(name: str) -> str:
    return name.replace("_", " ")


def _text(value: Any, form: str) -> str:
    if isinstance(value, str):
        return value
    return format(value, form) if _is_number(value) and math.isfinite(value) else MISSING


def _intervals(table: pd.DataFrame, form: str) -> list[str]:
    return [_interval(low, high, form) for low, high in zip(table["low"], table["high"], strict=True)]


def _interval(low: Any, high: Any, form: str) -> str:
    ends = [_text(low, form), _text(high, form)]
    return MISSING if MISSING in ends else " to ".join(ends)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
