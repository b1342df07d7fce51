"""Choosing among finalists: the best trials of a search, each trained again with seeds that the search did not use.

The score of the best of many trials is optimistically biased; a mean over fresh seeds is not. Among the finalists whose
mean is within one standard error of the best mean, the smallest network wins: the one-standard-error rule (Breiman et
al. 1984, section 3.4.3).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Verdict:
    """The winner, the mean score of each finalist, and the standard error of these means."""

    winner: int
    means: dict[int, float]
    standard_error: float


def seeds(seed: int, count: int) -> list[int]:
    """Derive seeds from 0 to 2**31 - 1 from that of the project."""
    return [int(state >> 1) for state in np.random.SeedSequence(seed).generate_state(count)]


def verdict(scores: Mapping[int, Sequence[float]], parameters: Mapping[int, int]) -> Verdict:
    """Choose among finalists by the one-standard-error rule.

    The standard error is that of a finalist's mean, from the variance within finalists, pooled over them. With one
    score per finalist it is unknown and taken as 0.

    Args:
        scores: the scores of each finalist, equally many; lower is better.
        parameters: the number of parameters of each finalist's network.
    """
    means = {finalist: float(np.mean(values)) for finalist, values in scores.items()}
    count = min(map(len, scores.values()))
    variances = [np.var(values, ddof=1) for values in scores.values()] if count > 1 else [0.0]
    error = float(np.sqrt(np.mean(variances) / count))
    close = [finalist for finalist, mean in means.items() if mean <= min(means.values()) + error]
    return Verdict(min(close, key=lambda finalist: (parameters[finalist], means[finalist])), means, error)
