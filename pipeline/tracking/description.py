"""Description of a run: its kind, and its network in one line."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.core import summary
from pipeline.core.config import AnyNetwork

Kind = Literal["network", "trial", "finalist", "replicate", "search", "project"]
KIND = "convpipe.kind"  # of a run
NOTE = "mlflow.note.content"  # what the UI shows as the description, in Markdown
SHOWN = ("pooling", "dropout")  # factors that are parameters of their own, beside the complete configuration


def tags(kind: Kind, *paragraphs: str) -> dict[str, str]:
    """The tags of a run: its kind and its description. Empty paragraphs are left out."""
    return {KIND: kind, NOTE: "\n\n".join(filter(None, paragraphs))}


def params(network: AnyNetwork) -> dict[str, str]:
    """The parameters that compare networks at a glance: summary, pooling, dropout."""
    factors = summary.factors(network)
    return {"summary": summary.summary(network)} | {factor: factors[factor] for factor in SHOWN if factors[factor]}


@dataclass(frozen=True)
class Description:
    """One fit.

    base: name and configuration of the network that this one varies, if any.
    changes: of a DVC experiment; "" if there are none.
    record: the file with the results.
    """

    kind: Kind
    network: AnyNetwork
    base: tuple[str, AnyNetwork] | None
    changes: str
    record: Path

    @property
    def params(self) -> dict[str, str]:
        return params(self.network)

    @property
    def tags(self) -> dict[str, str]:
        varied = ""
        if self.base:
            name, base = self.base
            varied = f"Differences from {name}: {summary.differences(self.network, base) or 'none'}."
        changed = f"Changed in the DVC experiment: {self.changes}." if self.changes else ""
        return tags(self.kind, summary.summary(self.network), varied, changed, f"Record: `{self.record.as_posix()}`")
