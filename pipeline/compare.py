"""Compare the experiments of `dvc exp run`:  python -m pipeline.compare

A row for the workspace, the last commit and each experiment on it: what it changed, its best network, and how
certain that is. The highest accuracy comes first.
"""

import argparse
import json
import subprocess
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.core import command
from pipeline.core.errors import UserError

RANKING = "results/ranking.json"
PARAMS = "params.yaml"
ACCURACY = "accuracy"
CHANGES = 6  # of an experiment, at most
WIDTH = 40  # characters of a value
RATIOS = {"experiment": 3, "changed": 5, "best network": 6, "within noise": 3}  # of the widths of columns
ABBREVIATED = 7  # characters of a commit
Row = dict[str, str]


def run(arguments: argparse.Namespace) -> None:
    """Print the table."""
    done = subprocess.run(["dvc", "exp", "show", "--json", "--num", str(arguments.num)], capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"dvc exp show failed:\n{done.stderr.strip()}")
    Console(highlight=False).print(table(json.loads(done.stdout)))


def table(shown: list[dict[str, Any]]) -> Table:
    """The table of what `dvc exp show --json` has found."""
    rows = sorted(_rows(shown), key=lambda row: float(row[ACCURACY].partition("%")[0] or -1), reverse=True)
    drawn = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold", expand=True)
    for title in rows[0]:
        drawn.add_column(title, ratio=RATIOS.get(title), no_wrap=title == ACCURACY, overflow="fold")
    for row in rows:
        drawn.add_row(*map(Text, row.values()))
    return drawn


def changes(new: Any, old: Any, key: str = "") -> Iterator[str]:
    """The differences of two parameter files, as they are written after -S."""
    if isinstance(new, dict) and isinstance(old, dict):
        for name in new | old:
            path = f"{key}.{name}" if key else name
            if name not in new:
                yield f"~{path}"
            elif name not in old:
                yield f"+{path}={_text(new[name])}"
            else:
                yield from changes(new[name], old[name], path)
    elif isinstance(new, list) and isinstance(old, list) and len(new) == len(old) and key:
        for number, pair in enumerate(zip(new, old, strict=True)):
            yield from changes(*pair, f"{key}.{number}")
    elif new != old:
        yield f"{key}={_text(new)}"


def _rows(shown: list[dict[str, Any]]) -> Iterator[Row]:
    workspace, *commits = shown
    yield _row("workspace", workspace, commits[0] if commits else workspace)
    for commit in commits:
        yield _row(commit["name"] or commit["rev"][:ABBREVIATED], commit, commit)
        for experiment in commit["experiments"] or []:
            tip, executor = experiment["revs"][0], experiment["executor"] or {}
            yield _row(experiment["name"] or tip["rev"][:ABBREVIATED], tip, commit, executor.get("state") or "")


def _row(name: str, revision: dict[str, Any], base: dict[str, Any], state: str = "") -> Row:
    ranking, changed = _data(revision, "metrics", RANKING), list(changes(_params(revision), _params(base)))
    ends = [ranking[end] for end in ("accuracy_low", "accuracy_high") if ranking.get(end) is not None]
    interval = " to ".join(f"{100 * end:.2f}" for end in ends)
    more = [f"and {len(changed) - CHANGES} more"] if len(changed) > CHANGES else []
    return {
        "experiment": name,
        "changed": "\n".join([*changed[:CHANGES], *more]) if _params(revision) else "",
        "best network": "\n".join([ranking["network"], *ranking["summary"].split(" | ")]) if ranking else state,
        ACCURACY: f"{ranking['accuracy']:.2%}\n{interval}" if ranking else "",
        "within noise": (ranking["within_noise"] or "none") if ranking else "",
    }


def _params(revision: dict[str, Any]) -> dict[str, Any]:
    return _data(revision, "params", PARAMS)


def _data(revision: dict[str, Any], kind: str, file: str) -> dict[str, Any]:
    return (((revision["data"] or {}).get(kind) or {}).get(file) or {}).get("data") or {}


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False).replace('"', "")
    return text if len(text) <= WIDTH else f"{text[: WIDTH - 1]}…"


def main() -> None:
    parser = command.parser(__doc__)
    parser.add_argument("-n", "--num", type=int, default=1, help="commits whose experiments are shown (1: the last)")
    command.main(run, parser)


if __name__ == "__main__":
    main()
