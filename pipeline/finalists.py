"""Choosing among finalists: the best trials of a search, each trained again with seeds that the search did not use.

The best of many trials owes its figure to luck as well; a fresh mean owes it none. Of the means that cannot be told
from the best one, the smallest network's wins: the one-standard-error rule (Breiman et al. 1984, section 3.4.3).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Verdict:
    """The winner, each finalist's mean score, and the standard error of such a mean."""

    winner: int
    means: dict[int, float]
    standard_error: float


def seeds(seed: int, count: int) -> list[int]:
    """Seeds derived from the project's, from 0 to 2**31 - 1."""
    return [int(state >> 1) for state in np.random.SeedSequence(seed).generate_state(count)]


def verdict(scores: Mapping[int, Sequence[float]], parameters: Mapping[int, int]) -> Verdict:
    """Choose among finalists.

    The standard error is that of a mean of as many scores as each finalist has, from the variance within finalists,
    pooled over them; of one score each, it is unknown and counts as 0.

    Args:
        scores: by finalist, lower is better; as many for each.
        parameters: of each finalist's network.
    """
    means = {finalist: float(np.mean(values)) for finalist, values in scores.items()}
    count = min(map(len, scores.values()))
    variances = [np.var(values, ddof=1) for values in scores.values()] if count > 1 else [0.0]
    error = float(np.sqrt(np.mean(variances) / count))
    close = [finalist for finalist, mean in means.items() if mean <= min(means.values()) + error]
    return Verdict(min(close, key=lambda finalist: (parameters[finalist], means[finalist])), means, error)
