"""Label errors: low margins for wrong labels, none where labels cannot be judged."""

import numpy as np

from pipeline.formats.images import Images
from pipeline.validate import label_errors, measurements, near_duplicates
from tests.digits import digits


def test_margins_are_low_for_wrong_labels():
    _, spectrum = measurements.measure({"train": digits()})
    labels = digits().labels.copy()
    wrong = np.arange(0, 5000, 100)
    labels[wrong] = (labels[wrong] + 1 + np.arange(50) % 9) % 10
    margins, best = label_errors.margins(spectrum, labels, 10, seed=1)
    assert (margins[wrong] < 0).mean() > 0.9
    assert (margins < 0).mean() < 0.12
    assert (best[wrong] == digits().labels[wrong]).mean() > 0.8


def test_labels_in_the_order_of_the_images_are_learned():
    order = np.argsort(np.arange(5000) % 500, kind="stable")  # 0, 1, ... 9, 0, 1, ...
    images, labels = digits().images[order], digits().labels[order]
    assert labels[:12].tolist() == [*range(10), 0, 1]
    margins, _ = label_errors.margins(measurements.measure({"train": Images(images, labels)})[1], labels, 10, seed=1)
    assert (margins > 0).mean() > 0.9


def test_labels_that_cannot_be_learned_have_no_margins():
    labels = np.random.default_rng(1).permutation(digits().labels)
    margins, _ = label_errors.margins(measurements.measure({"train": digits()})[1], labels, 10, seed=1)
    assert np.isnan(margins).all()


def test_constant_images_have_no_margins():
    spectrum = near_duplicates.frequencies(np.zeros((4, 8, 8, 1), np.uint8))
    margins, _ = label_errors.margins(spectrum, np.array([0, 1, 0, 5]), 2, seed=1)
    assert np.isnan(margins).all()


def test_labels_that_are_all_unknown_have_no_margins():
    _, spectrum = measurements.measure({"train": digits()})
    margins, best = label_errors.margins(spectrum[:100], np.full(100, 10), 10, seed=1)
    assert np.isnan(margins).all()
    assert len(best) == 100
