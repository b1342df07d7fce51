"""Findings: one row for each value that failed a check of pipeline/validate/schema.py."""

from collections.abc import Iterable

import numpy as np
import pandas as pd
import pandera.pandas as pa

from pipeline.core.catalog import Entry
from pipeline.core.sections import CHECKS, CheckName
from pipeline.formats.images import Images
from pipeline.validate.schema import LINKS, RANKED

ERROR, WARNING = "error", "warning"
TABLE = "table"  # stands for every rule without a check name
COLUMNS = ["check", "severity", "split", "published", "index", "label", "column", "value", "problem", "detail"]
SHOWN = 10  # findings that are printed; the report has more


def collect(
    checked: Iterable[tuple[pd.DataFrame, pa.DataFrameSchema]], warnings: tuple[CheckName, ...]
) -> pd.DataFrame:
    """Validate tables and return the findings, errors first, and the worst first within a ranked check.

    The index is that of the row in its table; `published` and `index` identify the image.
    """
    found = pd.concat([_failures(table, rules) for table, rules in checked])
    if found.empty:
        return found
    parts = found["problem"].str.extract(r"^(\w+): (.*)$")
    found["check"] = parts[0].where(parts[0].isin(CHECKS), TABLE)
    found["problem"] = parts[1].where(parts[1].notna(), found["problem"])
    found["severity"] = np.where(found["check"].isin(warnings), WARNING, ERROR)
    order = found["check"].map({name: number for number, name in enumerate((TABLE, *CHECKS))})
    rank = found["value"].where(found["check"].isin(RANKED), 0).astype("float64")
    keys = pd.DataFrame({"severity": found["severity"], "order": order, "rank": rank}).reset_index(drop=True)
    return found.iloc[keys.sort_values(["severity", "order", "rank"], kind="stable").index]


def _failures(table: pd.DataFrame, rules: pa.DataFrameSchema) -> pd.DataFrame:
    try:
        rules.validate(table, lazy=True)
    except pa.errors.SchemaErrors as error:
        cases = error.failure_cases
        # A check of a whole table has no row.
        rows = pd.Index([-1 if pd.isna(index) else int(index) for index in cases["index"]], dtype="int64")
        known = table.reindex(index=rows, columns=["split", "published", "index", "label"])
        problems = pd.DataFrame({"column": cases["column"], "value": cases["failure_case"], "problem": cases["check"]})
        return pd.concat([known, problems.set_index(rows)], axis=1).reindex(columns=COLUMNS).astype(object)
    return pd.DataFrame(columns=COLUMNS, dtype=object)


def details(found: pd.DataFrame, rows: pd.DataFrame, published: dict[str, Images], entry: Entry) -> list[str]:
    """The file name of each image, if it has one, and the other image or label that the finding refers to."""
    column = {name: rows[name].to_numpy() for name in ("published", "index", "label", *LINKS.values())}

    def name(row: int) -> str:
        split, index = column["published"][row], column["index"][row]
        names = published[split].names
        return names[index] if names else f"{split} {index}"

    def detail(row: int, check: CheckName) -> str:
        parts = [name(row)] if published[column["published"][row]].names else []
        if check == "label_suspect":
            parts.append(f"looks like {entry.class_name(column['best_other_label'][row])}")
        elif check in LINKS:
            other = column[LINKS[check]][row]
            parts.append(f"like {name(other)}, labelled {entry.class_name(column['label'][other])}")
        return "; ".join(parts)

    of_images = found["index"].notna()
    numbered = zip(found.index, found["check"], of_images, strict=True)
    return [detail(int(row), check) if of_image else "" for row, check, of_image in numbered]


def summary(found: pd.DataFrame) -> str:
    """The number of findings of each check, and the first findings."""
    counts = found.groupby(["check", "problem"], sort=False).size().reset_index(name="found")
    lines = [f"  {row.check}: {row.problem} ({row.found:,} found)" for row in counts.itertuples()]
    first = found.head(SHOWN)[["check", "published", "index", "label", "value", "detail"]]
    return "\n".join([*lines, first.dropna(axis=1, how="all").to_string(index=False)])
