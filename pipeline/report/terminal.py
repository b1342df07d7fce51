"""The end of a run in the terminal: the ranked table, warnings and next steps."""

from collections.abc import Mapping

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from pipeline.core.config import NetworkConfig
from pipeline.core.records import TrainingRecord
from pipeline.report.effects import MATTERS, Analysis
from pipeline.report.markdown import effect, spread
from pipeline.report.ranking import BEST, SHOWN, WITHIN_NOISE, WORSE, Ranking
from pipeline.report.results import Results

STYLES = {BEST: "bold green", WITHIN_NOISE: "", WORSE: "dim"}
SIGNS = {BEST: "★", WITHIN_NOISE: "≈", WORSE: "▼"}
ROWS, FACTORS = 20, 2  # networks at most; factors, where neither pooling nor dropout varies


def terminal(results: Results, page: str) -> RenderableType:
    """Headline, ranked table, warnings and next steps, for 80 columns or more.

    Args:
        page: the report's path, or the command that fetches it.
    """
    ranking = results.ranking
    hidden = len(ranking.table) - ROWS
    below = [Text(f"and {hidden} more networks: results/report.md")] if hidden > 0 else []
    warnings = [Text(f"warning: {warning}", "yellow") for warning in ranking.warnings]
    steps = Table.grid(padding=(0, 2))
    for step, command in {
        "report": page,
        "runs": "make ui",
        "a variant": f"dvc exp run --temp -S {variant(results.networks, ranking.best)}",
    }.items():
        steps.add_row(step, Text(command, overflow="fold"))
    below += [_baselines(ranking), *_effects(results.effects), Text(), *warnings, Text()]
    return Group("", Text(ranking.headline, "bold"), "", _ranked(ranking), *below, steps)


def variant(networks: Mapping[str, TrainingRecord], best: str) -> str:
    """One change of the best network, or of the network in params.yaml that it varies, as `dvc exp run -S` takes it."""
    name = best
    while (base := networks[name].base) in networks:
        name = str(base)
    network = networks[name].network
    if not isinstance(network, NetworkConfig):
        return f"++models.{name}.fit.epochs={2 * network.fit.epochs}"
    for number, block in enumerate(network.blocks):
        pooling = block.pooling
        if pooling.kind != "none" and pooling.p is None and pooling.ratio is None:  # keys that other kinds lack
            kind = "max" if pooling.kind == "average" else "average"
            return f"++models.{name}.blocks.{number}.pooling.kind={kind}"
    return f"++models.{name}.head.dropout={0.2 if network.head.dropout == 0.5 else 0.5}"


def _ranked(ranking: Ranking) -> Table:
    factors = [factor for factor in ranking.factors if factor in SHOWN] or ranking.factors[:FACTORS]
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="")
    for title in ("", "network", *factors):
        table.add_column(title, overflow="fold")
    for title in ("parameters", "accuracy", "std, pp" if ranking.seeds > 1 else "95 % interval"):
        table.add_column(title, justify="right", no_wrap=True)
    for row in ranking.table.head(ROWS).to_dict("records"):
        scores = [f"{row['parameters']:,}", f"{row['score']:.2%}", spread(row)]
        cells = [SIGNS[row["group"]], row["name"], *(row[factor] for factor in factors), *scores]
        table.add_row(*map(Text, cells), style=STYLES[row["group"]])
    return table


def _baselines(ranking: Ranking) -> Text:
    rows = ranking.baselines.to_dict("records")
    return Text("baselines: " + ", ".join(f"{row['baseline']} {row['accuracy']:.2%}" for row in rows), "dim")


def _effects(analysis: Analysis) -> list[Text]:
    """The effects of the factors that matter."""
    matter = analysis.importance.loc[analysis.importance["verdict"] == MATTERS, "dimension"]
    rows = analysis.effects[analysis.effects["dimension"].isin(matter)].to_dict("records")
    return [Text(f"effect of {row['dimension']}, {effect(row, analysis.scale)}") for row in rows]
