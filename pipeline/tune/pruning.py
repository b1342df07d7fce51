"""Stopping trials early: the median stopping rule of Golovin et al. (2017), "Google Vizier", section 3.2.1."""

from collections.abc import Sequence

import numpy as np

from pipeline.core.sections import Pruning

Curve = Sequence[float]  # the objective after each epoch; lower is better


def stopped_after(curve: Curve, completed: Sequence[Curve], epochs: int, rule: Pruning) -> int | None:
    """The first epoch of a trial's curve after which the rule stops it, or None.

    A trial is stopped after epoch s if its best value up to s is worse than the median, over the completed trials, of
    their mean values over the epochs 1 to s.

    Args:
        completed: the curves of the completed trials that were begun before this one.
        epochs: the full number of epochs of the trial; it is not stopped after the last.
    """
    if len(completed) < rule.min_trials:
        return None
    for epoch in range(rule.min_epochs, min(len(curve), epochs - 1) + 1):
        if min(curve[:epoch]) > np.median([np.mean(other[:epoch]) for other in completed]):
            return epoch
    return None
