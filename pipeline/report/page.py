"""results/report.html: all results as one page, which needs no other file and sends no request.

Equal input gives equal bytes.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from scipy.stats import binomtest

from pipeline.core.provenance import requirements
from pipeline.html import render
from pipeline.report import comparison, figures, image_panels, search_figures, svg, tables
from pipeline.report.effects import Analysis
from pipeline.report.results import Results
from pipeline.report.search_analysis import SearchAnalysis
from pipeline.report.tables import MISSING, Table

TEMPLATE = Path(__file__).parent / "templates" / "report.html"
MODEL = "model"


def page(results: Results) -> str:
    """The page as HTML. Networks are in the order of their ranks everywhere."""
    names = results.ranking.table["name"].tolist()
    looks = svg.looks(names)
    found = {name: _ordered(table, names) for name, table in results.tables.items()}
    classes = results.info.classes
    return render.render(
        TEMPLATE,
        dataset=results.info.dataset,
        images=results.info.images,
        seeds=results.ranking.seeds,
        headline=results.ranking.headline.split("; "),
        warnings=results.ranking.warnings,
        ranked=comparison.ranked(results.ranking),
        compared=comparison.compared(results, looks),
        details=tables.metrics({name: results.metrics[name] for name in names}),
        effects=_effects(results.effects),
        search=results.search and _search(results.search),
        curves=[figures.curves(results.curves, metric, looks) for metric in ("accuracy", "loss")],
        per_class=_per_class(found["per_class"]),
        confusions={name: tables.confusion(found["confusion"], name, classes) for name in names},
        calibration=_calibration(results, names),
        reliability={name: _reliability(found["reliability"], name) for name in names},
        corruption=_corruption(found["corruption"], found["corruption_summary"]),
        shift=_shift(found["shift"], looks) if len(found["shift"]) else None,
        out_of_distribution=_out_of_distribution(found["out_of_distribution"]),
        networks=image_panels.networks(results.explanations, names),
        disagreements=image_panels.disagreements(results.explanations, names),
        cost=tables.table("Cost", found["cost"], tables.COST),
        provenance=_provenance(results),
        trainings=_trainings(results, names),
    )


def _ordered(table: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    if MODEL not in table:
        return table
    ranks = {name: rank for rank, name in enumerate(names)}
    return table.sort_values(MODEL, key=lambda models: models.map(ranks), kind="stable")


def _effects(analysis: Analysis) -> dict[str, Any]:
    found, scale = analysis.effects, analysis.scale
    texts = found[["effect", "low", "high"]].map(lambda value: MISSING if pd.isna(value) else scale.text(value))
    intervals = (texts["low"] + " to " + texts["high"]).where(found["effect"].notna(), MISSING)
    importance = analysis.importance.assign(interval=tables.intervals(analysis.importance, ".0%"))
    effects = found.assign(effect=texts["effect"], interval=intervals)
    objective = scale.objective
    return {
        "summary": analysis.summary,
        "importance": tables.table(f"Importance for {objective}", importance, tables.IMPORTANCE),
        "effects": tables.table(f"Effects on {objective}", effects, tables.EFFECTS),
        "figures": {
            "Effects": search_figures.effects(analysis),
            "Share of variance": search_figures.importance(analysis),
        },
    }


def _search(search: SearchAnalysis) -> dict[str, Any]:
    found = _effects(search)
    of_trials = {
        "Best so far": search_figures.progress(search),
        "Learning curves of the trials": search_figures.curves(search),
    }
    return found | {"figures": of_trials | found["figures"]}


def _per_class(table: pd.DataFrame) -> dict[str, Table]:
    pairs = zip(table["class"], table["support"], strict=True)
    counted = table.assign(**{"class": [f"{name} ({support:,} images)" for name, support in pairs]})
    f1 = [tables.text(value, ".4f") for value in table["f1"]]
    return {
        "table": tables.crossed("F1 by class", counted, "class", f1),
        "details": tables.table("Precision and recall by class", table, tables.PER_CLASS),
    }


def _calibration(results: Results, names: Sequence[str]) -> Table:
    rows = pd.DataFrame([{"name": name, **results.metrics[name]} for name in names])
    return tables.table("Calibration", rows, tables.CALIBRATION)


def _reliability(table: pd.DataFrame, model: str) -> list[dict[str, float]]:
    """The bins of one network in percent, with 95 % Wilson intervals. The area of a dot grows with its images' root."""
    bins = table[(table["model"] == model) & (table["count"] > 0)]
    total = int(bins["count"].sum())
    points = []
    for row in bins.to_dict("records"):
        count = int(row["count"])
        ends = binomtest(round(count * row["accuracy"]), count).proportion_ci(method="wilson")
        shares = {"x": row["confidence"], "y": row["accuracy"], "low": ends.low, "high": ends.high}
        radius = round(1 + 2.5 * (count / total) ** 0.25, 2)
        points.append({key: round(100 * share, 1) for key, share in shares.items()} | {"radius": radius})
    return points


def _corruption(table: pd.DataFrame, summary: pd.DataFrame) -> dict[str, Table]:
    named = table.assign(corruption=table["corruption"].map(tables.words))
    worst = summary.assign(worst=summary["worst"].map(tables.words, na_action="ignore"))
    errors = [tables.text(100 * error, ".1f") for error in table["error"]]
    relative = [tables.text(value, ".2f") for value in table["relative"]]
    return {
        "summary": tables.table("All corruptions", worst, tables.CORRUPTION_SUMMARY),
        "errors": tables.crossed("Error in percent by corruption", named, "corruption", errors, shaded="error"),
        "relative": tables.crossed("Relative error by corruption", named, "corruption", relative),
    }


def _shift(table: pd.DataFrame, looks: figures.Looks) -> dict[str, Any]:
    pairs = zip(table["consistency"], tables.intervals(table, ".1%"), strict=True)
    cells = [f"{tables.text(share, '.1%')} ({interval})" for share, interval in pairs]
    named = table.rename(columns={"shift": "largest shift, pixels"})
    caption = "Consistency by largest shift, with 95 % interval"
    return {
        "figure": figures.shift(table, looks),
        "table": tables.crossed(caption, named, "largest shift, pixels", cells),
    }


def _out_of_distribution(table: pd.DataFrame) -> Table:
    named = table.assign(inputs=table["against"].map(tables.words))
    auroc = [tables.text(value, ".3f") for value in table["auroc"]]
    return tables.crossed("AUROC of confidence", named, "inputs", auroc)


def _provenance(results: Results) -> dict[str, Any]:
    """Topic -> a value, or a mapping of names to values."""
    first = next(iter(results.networks.values()))
    found = {
        "data": f"{results.info.dataset}, digest {results.info.digest}",
        "images": ", ".join(f"{count:,} {split}" for split, count in results.info.images.items()),
        "seed": first.seed,
        "hardware": f"{first.device.name}, {first.device.precision}",
        "versions": ", ".join(requirements()),
    }
    return found | ({"MLflow run of the search": results.search_record.run_id} if results.search_record else {})


def _trainings(results: Results, names: Sequence[str]) -> Table:
    rows = []
    for name in names:
        record = results.networks[name]
        commit = record.origin.commit
        changed = ", with changes" * bool(record.origin.changed)
        rows.append([name, record.origin.stage, f"{commit}{changed}" if commit else MISSING, record.run_id or MISSING])
    return Table("Trainings", ("network", "DVC stage", "commit", "MLflow run"), rows)
