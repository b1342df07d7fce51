"""A grid of networks: one for each pair of a kind of pooling and a dropout rate, all other things as in a base network.

DVC makes the stages `grid@KIND-RATE` of the same two lists, so names are formed as DVC's `matrix` forms them.
"""

from collections.abc import Mapping
from itertools import product
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, model_validator

from models.spec import Rate, Spec
from pipeline.core import search_space

UNCHANGED = "base"  # in place of a level: that of the base network
Kind = Literal["base", "max", "average", "lp", "stochastic", "fractional_max", "gem", "blur", "strided", "none"]
Block = dict[str, Any]


def _distinct(levels: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(set(levels)) < len(levels):
        raise ValueError("a value is listed twice; list each value once")
    return levels


class Grid(Spec):
    """Kinds of pooling, times dropout rates, over a base network of `models`. Without values there is no grid."""

    base: str
    pooling: Annotated[tuple[Kind, ...], AfterValidator(_distinct)]
    # DVC writes 0 and 0.0 into names as they stand in params.yaml.
    dropout: Annotated[tuple[Literal[0] | Rate | Literal["base"], ...], AfterValidator(_distinct)]

    @model_validator(mode="after")
    def _both_or_none(self) -> "Grid":
        if bool(self.pooling) != bool(self.dropout):
            empty, other = ("dropout", "pooling") if self.pooling else ("pooling", "dropout")
            raise ValueError(
                f"{empty} is empty and {other} is not; list [{UNCHANGED}] to keep that of the base network"
            )
        return self

    def blocks(self, base: Mapping[str, Any]) -> dict[str, Block]:
        """Name -> block of configuration of every network of the grid.

        The kind of pooling is set in every block that pools; the rate wherever the base has dropout or, if it has none,
        in every block. Other settings of pooling are kept where the kind has them.
        """
        changes = [_pooling(base, kind) | _dropout(base, rate) for kind, rate in product(self.pooling, self.dropout)]
        return {name: search_space.apply(base, change) for name, change in zip(self.names, changes, strict=True)}

    @property
    def names(self) -> list[str]:
        """Names of the networks: model_2-average-0.5."""
        return [f"{self.base}-{kind}-{rate}" for kind, rate in product(self.pooling, self.dropout)]


def _pooling(base: Mapping[str, Any], kind: str) -> dict[str, Any]:
    pooled = [number for number, block in enumerate(base["blocks"]) if block["pooling"]["kind"] != "none"]
    return {} if kind == UNCHANGED else {f"blocks.{number}.pooling.kind": kind for number in pooled}


def _dropout(base: Mapping[str, Any], rate: float | str) -> dict[str, Any]:
    if rate == UNCHANGED:
        return {}
    rates = {f"blocks.{number}.dropout": block["dropout"] for number, block in enumerate(base["blocks"])}
    dropped = [key for key, own in (rates | {"head.dropout": base["head"]["dropout"]}).items() if own]
    return dict.fromkeys(dropped or rates, rate)
