"""What validation found, to read and to look at: tables as CSV, and one page that needs no other file.

Equal findings are equal bytes: nothing here depends on the time or the machine.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline import inspection, pages, thumbnails
from pipeline.catalog import Entry
from pipeline.config import CHECKS, Validate
from pipeline.readers import Images
from pipeline.schema import LINKS, RANKED, SPLITS

FIGURES = 6  # significant digits in the tables
ROWS = 500  # findings of one check in findings.csv
PICTURES = 24  # findings of one check that are shown as pictures
SAMPLES = 18  # images of each class that are shown
CLASSES = 50  # that are shown with images
BINS = 40
WIDTH, HEIGHT = 320, 120  # of a chart, in its own units
TRACK = 260  # pixels of the longest bar


@dataclass(frozen=True)
class Report:
    """The tables that were checked, and the findings; `write` puts them into a folder."""

    dataset: str
    entry: Entry
    published: dict[str, Images]
    rows: pd.DataFrame
    classes: pd.DataFrame
    splits: pd.DataFrame
    found: pd.DataFrame
    bounds: Validate

    def write(self, folder: Path) -> None:
        """classes.csv, splits.csv, checks.csv (how many findings), findings.csv (which), validation.html."""
        shown = self.found.groupby("check", sort=False).head(ROWS)
        rank = shown.groupby("check", sort=False).cumcount() + 1
        tables = {
            "classes": self.classes,
            "splits": self.splits,
            "checks": self.checks(),
            "findings": shown.assign(rank=rank)[
                ["severity", "check", "rank", *shown.columns.drop(["severity", "check"])]
            ],
        }
        for name, table in tables.items():
            table.to_csv(folder / f"{name}.csv", index=False, float_format=f"%.{FIGURES}g")
        (folder / "validation.html").write_text(self.page(), encoding="utf-8")

    def checks(self) -> pd.DataFrame:
        """Every check, how serious it is, and how often it failed."""
        counts = self.found["check"].value_counts()
        names = [*CHECKS, *(["table"] if "table" in counts.index else [])]
        severity = ["warning" if name in self.bounds.warnings else "error" for name in names]
        return pd.DataFrame(
            {"check": names, "severity": severity, "found": [int(counts.get(name, 0)) for name in names]}
        )

    def page(self) -> str:
        severities = set(self.found["severity"])
        verdict = "error" if "error" in severities else "warning" if severities else "passed"
        texts = {"error": "may not be trained on", "warning": "valid, with warnings", "passed": "valid"}
        return pages.render(
            "validation.html",
            dataset=self.dataset,
            entry=self.entry,
            verdict=verdict,
            verdict_text=texts[verdict],
            splits=self.splits.to_dict("records"),
            checks=self.checks().to_dict("records"),
            balance=self._balance(),
            samples=SAMPLES,
            gallery=[self._of_class(label, name) for label, name in enumerate(self.entry.classes[:CLASSES])],
            charts=[self._chart(figure) for figure in ("mean", "deviation", "ink")],
            groups=[self._group(str(check), rows) for check, rows in self.found.groupby("check", sort=False)],
        )

    def _balance(self) -> list[dict[str, Any]]:
        table = self.classes.to_dict("records")
        scale = TRACK / max([1e-9, *(row[column] for row in table for column in ("share", "expected"))])
        balance = []
        for label, name in enumerate(self.entry.classes):
            rows = [row for row in table if row["label"] == label]
            bars = [{"split": row["split"], "width": round(row["share"] * scale)} for row in rows]
            counts = [f"{row['images']:,}" for row in rows]
            expected = round(self.entry.expected_shares[label] * scale)
            balance.append({"name": name, "expected": expected, "bars": bars, "counts": counts})
        return balance

    def _of_class(self, label: int, name: str) -> dict[str, Any]:
        rows = self.rows[(self.rows["label"] == label) & (self.rows["split"] == "train")]
        spread = np.unique(np.linspace(0, len(rows) - 1, min(SAMPLES, len(rows)), dtype=int))
        samples = inspection.pixels(self.published, rows.iloc[spread])
        return {
            "name": name,
            "mean": thumbnails.thumbnail(self._mean(rows)),
            "samples": [thumbnails.thumbnail(image) for image in samples],
        }

    def _mean(self, rows: pd.DataFrame) -> np.ndarray:
        total = np.zeros(self.entry.image, np.float64)
        for chunk in inspection.chunks(len(rows), self.entry.image):
            total += inspection.pixels(self.published, rows.iloc[chunk]).sum(axis=0)
        return np.rint(total / max(len(rows), 1)).astype(np.uint8)

    def _chart(self, figure: str) -> dict[str, Any]:
        """The distribution of a figure over the images of each split, as lines of equal area."""
        low, high = float(self.rows[figure].min()), float(self.rows[figure].max())
        edges = np.linspace(low, high if high > low else low + 1, BINS + 1)
        shares = {
            split: np.histogram(self.rows.loc[self.rows["split"] == split, figure], edges)[0] / count
            for split, count in self.rows["split"].value_counts().reindex(SPLITS).dropna().items()
        }
        top = max(float(share.max()) for share in shares.values())
        across = np.linspace(WIDTH / BINS / 2, WIDTH - WIDTH / BINS / 2, BINS)
        lines = []
        for split, share in shares.items():
            down = 5 + HEIGHT * (1 - share / top)
            points = " L".join(f"{x:.0f} {y:.1f}" for x, y in zip(across, down, strict=True))
            lines.append({"split": split, "path": f"M{points}"})
        titles = {"mean": "mean of the pixels", "deviation": "deviation of the pixels", "ink": "ink"}
        return {"title": titles[figure], "lines": lines, "low": f"{low:.3g}", "high": f"{high:.3g}"}

    def _group(self, check: str, found: pd.DataFrame) -> dict[str, Any]:
        head = found.head(PICTURES)
        known = head.astype(object).where(head.notna(), None)
        about = [dict(zip(known.columns, values, strict=True)) for values in known.itertuples(index=False)]
        numbered = list(zip(head.index.tolist(), about, strict=True))
        of_images = bool(found["index"].notna().all())
        return {
            "check": check,
            "severity": about[0]["severity"],
            "found": len(found),
            "problems": list(dict.fromkeys(found["problem"])),
            "ranked": check in RANKED,
            "cards": [self._card(check, row, finding) for row, finding in numbered] if of_images else [],
            "rows": [] if of_images else [self._line(finding) for finding in about],
        }

    def _line(self, finding: dict[str, Any]) -> dict[str, Any]:
        """A finding that is about a class or a split."""
        name = "" if finding["label"] is None else self.entry.class_name(int(finding["label"]))
        return {"split": finding["split"] or "", "name": name, "column": finding["column"] or ""} | {
            "value": _short(finding["value"])
        }

    def _card(self, check: str, row: int, about: dict[str, Any]) -> dict[str, Any]:
        """The picture of an image, beside it that of the one that it is like, and what is known of it."""
        shown = [row]
        if LINKS.get(check) in ("copy_of", "near_to"):
            shown.append(int(self.rows[LINKS[check]].to_numpy()[row]))
        where = f"{about['published']} {about['index']}, labelled {self.entry.class_name(about['label'])}"
        parts = [where, about["detail"], "" if about["value"] is True else _short(about["value"])]
        return {
            "images": [
                thumbnails.thumbnail(image) for image in inspection.pixels(self.published, self.rows.loc[shown])
            ],
            "caption": "; ".join(filter(None, parts)),
        }


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float | np.floating) else str(value)
