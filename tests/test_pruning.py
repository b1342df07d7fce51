"""The median stopping rule, against curves calculated by hand."""

from pipeline.core.sections import Pruning
from pipeline.tune.pruning import stopped_after

RULE = Pruning(min_trials=3, min_epochs=1)
COMPLETED = [[1.0, 0.5, 0.3], [2.0, 1.0, 0.6], [3.0, 2.0, 1.0]]  # means to epoch 1: 1, 2, 3; to epoch 2: 0.75, 1.5, 2.5


def test_a_trial_is_stopped_when_its_best_is_worse_than_the_median_of_the_means():
    assert stopped_after([2.1, 0.1], COMPLETED, 3, RULE) == 1
    assert stopped_after([2.0, 1.6], COMPLETED, 3, RULE) == 2
    assert stopped_after([2.0, 1.5], COMPLETED, 3, RULE) is None  # equal to the median
    assert stopped_after([1.4, 9.0], COMPLETED, 3, RULE) is None  # its best, not its last


def test_no_trial_is_stopped_too_early_or_after_its_last_epoch():
    assert stopped_after([9.0, 9.0], COMPLETED[:2], 3, RULE) is None
    assert stopped_after([9.0, 9.0], COMPLETED, 3, Pruning(min_trials=3, min_epochs=2)) == 2
    assert stopped_after([9.0], COMPLETED, 1, RULE) is None


def test_a_completed_trial_that_ended_early_counts_with_its_epochs():
    assert stopped_after([1.2, 1.1], [[1.0]] * 3, 3, Pruning(min_trials=3, min_epochs=2)) == 2
