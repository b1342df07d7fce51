"""The validation report: tables as CSV, and one page that needs no other file.

Equal findings give equal bytes: nothing depends on the time or the machine.
"""

import math
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.core.catalog import Entry
from pipeline.core.dataset import SPLITS
from pipeline.core.sections import CHECKS, CheckName
from pipeline.formats.images import Images
from pipeline.html.render import render
from pipeline.html.thumbnails import thumbnail
from pipeline.validate import measurements
from pipeline.validate.findings import ERROR, TABLE, WARNING
from pipeline.validate.measurements import Tables
from pipeline.validate.schema import LINKS, RANKED

PAGE = "validation.html"
DIGITS = 6  # significant digits in the tables
ROWS = 500  # findings of one check in findings.csv
PICTURES = 24  # findings of one check shown as pictures
SAMPLES = 18  # images shown of each class
CLASSES = 50  # shown with images
BINS = 40
WIDTH, HEIGHT = 320, 120  # of a chart, in its own units
TRACK = 260  # pixels of the longest bar
CHARTS = {"mean": "mean of the pixels", "std": "standard deviation of the pixels", "ink": "ink"}


@dataclass(frozen=True)
class ValidationReport:
    """The findings of validation, with the tables they refer to."""

    dataset: str
    entry: Entry
    published: dict[str, Images]
    tables: Tables
    found: pd.DataFrame
    warnings: tuple[CheckName, ...]

    def write(self, folder: Path) -> None:
        """Write classes.csv, splits.csv, checks.csv (counts of findings), findings.csv and validation.html."""
        shown = self.found.groupby("check", sort=False).head(ROWS)
        columns = ["severity", "check", "rank", *shown.columns.drop(["severity", "check"])]
        tables = {
            "classes": self.tables.classes,
            "splits": self.tables.splits,
            "checks": self.checks(),
            "findings": shown.assign(rank=shown.groupby("check", sort=False).cumcount() + 1)[columns],
        }
        for name, table in tables.items():
            table.to_csv(folder / f"{name}.csv", index=False, float_format=f"%.{DIGITS}g")
        (folder / PAGE).write_text(self.page(), encoding="utf-8")

    def checks(self) -> pd.DataFrame:
        """Every check, its severity, and its number of findings."""
        counts = self.found["check"].value_counts()
        names = [*CHECKS, *([TABLE] if TABLE in counts.index else [])]
        severity = [WARNING if name in self.warnings else ERROR for name in names]
        return pd.DataFrame(
            {"check": names, "severity": severity, "found": [int(counts.get(name, 0)) for name in names]}
        )

    def page(self) -> str:
        """The page as HTML."""
        severities = set(self.found["severity"])
        verdict = ERROR if ERROR in severities else WARNING if severities else "passed"
        texts = {ERROR: "invalid", WARNING: "valid, with warnings", "passed": "valid"}
        return render(
            Path(__file__).parent / "templates" / PAGE,
            dataset=self.dataset,
            entry=self.entry,
            verdict=verdict,
            verdict_text=texts[verdict],
            splits=self.tables.splits.to_dict("records"),
            checks=self.checks().to_dict("records"),
            classes=self.tables.classes.to_dict("records"),
            scale=TRACK / max(1e-9, self.tables.classes[["share", "expected"]].to_numpy().max()),
            samples=SAMPLES,
            gallery=self._gallery(),
            charts=[self._chart(column, title) for column, title in CHARTS.items()],
            groups=[self._group(check) for check in self.found["check"].unique()],
        )

    def _gallery(self) -> list[dict[str, Any]]:
        """Name, mean and samples of the training images of each class that is shown."""
        shown = self.entry.classes[:CLASSES]
        images = self.tables.images
        images = images[(images["split"] == "train") & images["label"].between(0, len(shown) - 1)]
        total = np.zeros((len(shown), math.prod(self.entry.image)))
        for chunk in measurements.chunks(len(images), self.entry.image):  # all classes in one pass over the images
            rows = images.iloc[chunk]
            pixels = measurements.pixels(self.published, rows).reshape(len(rows), -1).astype(np.float32)
            total += np.eye(len(shown), dtype=np.float32)[rows["label"]].T @ pixels
        gallery = []
        for label, name in enumerate(shown):
            rows = images[images["label"] == label]
            spread = np.unique(np.linspace(0, len(rows) - 1, min(SAMPLES, len(rows)), dtype=int))
            mean = np.rint(total[label] / max(len(rows), 1)).astype(np.uint8).reshape(self.entry.image)
            gallery.append({"name": name, "mean": thumbnail(mean), "samples": self._thumbnails(rows.iloc[spread])})
        return gallery

    def _thumbnails(self, rows: pd.DataFrame) -> list[str]:
        return [thumbnail(image) for image in measurements.pixels(self.published, rows)]

    def _chart(self, column: str, title: str) -> dict[str, Any]:
        """The distribution of a column over the images of each split, as lines of equal area."""
        values, split = self.tables.images[column], self.tables.images["split"]
        low, high = float(values.min()), float(values.max())
        edges = np.linspace(low, high if high > low else low + 1, BINS + 1)
        shares = {
            name: np.histogram(values[split == name], edges)[0] / count
            for name, count in split.value_counts().reindex(SPLITS).dropna().items()
        }
        top = max(float(share.max()) for share in shares.values())
        across = np.linspace(WIDTH / BINS / 2, WIDTH - WIDTH / BINS / 2, BINS)
        lines = []
        for name, share in shares.items():
            down = 5 + HEIGHT * (1 - share / top)
            points = " L".join(f"{x:.0f} {y:.1f}" for x, y in zip(across, down, strict=True))
            lines.append({"split": name, "path": f"M{points}"})
        return {"title": title, "lines": lines, "low": f"{low:.3g}", "high": f"{high:.3g}"}

    def _group(self, check: CheckName) -> dict[str, Any]:
        found = self.found[self.found["check"] == check]
        head = found.head(PICTURES)
        shown = head.astype(object).where(head.notna(), None).to_dict("records")
        of_images = bool(found["index"].notna().all())
        cards = [self._card(row, finding) for row, finding in zip(head.index, shown, strict=True) if of_images]
        return {
            "check": check,
            "severity": shown[0]["severity"],
            "found": len(found),
            "problems": list(dict.fromkeys(found["problem"])),
            "ranked": check in RANKED,
            "cards": cards,
            "rows": [] if of_images else [self._line(finding) for finding in shown],
        }

    def _line(self, finding: dict[Hashable, Any]) -> dict[str, str]:
        """A finding on a class or a split."""
        name = "" if finding["label"] is None else self.entry.class_name(int(finding["label"]))
        known = {column: finding[column] or "" for column in ("split", "column")}
        return known | {"name": name, "value": _short(finding["value"])}

    def _card(self, row: int, finding: dict[Hashable, Any]) -> dict[str, Any]:
        """A finding on an image: its picture, that of the image it resembles, and a caption."""
        shown, link = [row], LINKS.get(finding["check"])
        if link in ("copy_of", "near_to"):
            shown.append(int(self.tables.images[link].to_numpy()[row]))
        identity = f"{finding['published']} {finding['index']}, labelled {self.entry.class_name(finding['label'])}"
        parts = [identity, finding["detail"], "" if finding["value"] is True else _short(finding["value"])]
        images = self._thumbnails(self.tables.images.loc[shown])
        return {"images": images, "caption": "; ".join(filter(None, parts))}


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float | np.floating) else str(value)
