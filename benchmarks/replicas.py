"""Measure what `runtime.replicas` does to accuracy: the networks of params.yaml, paired over seeds.

  python -m benchmarks.replicas --seeds 20 --replicas 2 4

Trains on data/validated (`dvc repro validate`) and scores the validation images; the test images are not read. One
replica normalises a batch as a whole, as synchronised batch normalization among several replicas would: the differences
are also those between statistics per replica and synchronised statistics.
"""
# ruff: noqa: E402  load_tensorflow has to come before what imports TensorFlow

from dataclasses import replace

import numpy as np
from scipy.stats import t

from pipeline.runtime.startup import load_tensorflow

load_tensorflow()

import keras

from benchmarks.project import ROOT, parser
from pipeline.core import config, dataset
from pipeline.core.paths import Paths
from pipeline.runtime import device
from pipeline.train.fit import FitSpec, fit


def interval(differences: np.ndarray) -> str:
    """The mean difference and its 95 % interval by Student's t."""
    mean = differences.mean()
    half = t.ppf(0.975, len(differences) - 1) * differences.std(ddof=1) / np.sqrt(len(differences))
    return f"{mean:+.3f} ({mean - half:+.3f} to {mean + half:+.3f})"


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--models", nargs="+", help="networks of params.yaml; all unless given")
    arguments.add_argument("--seeds", type=int, default=10)
    arguments.add_argument("--replicas", type=int, nargs="+", default=[2], help="compared with 1")
    given = arguments.parse_args()
    paths = Paths(ROOT)
    params = config.load(paths)
    used = device.start(params.runtime)
    data = dataset.load_training(paths)
    lines = ["| | replicas | accuracy, % | loss | accuracy - that of 1, points | loss - that of 1 |"]
    lines.append("|---|---|---|---|---|---|")
    for model in given.models or params.models:
        scores: dict[int, list[tuple[float, float]]] = {count: [] for count in (1, *given.replicas)}
        for seed in range(1, given.seeds + 1):
            spec = FitSpec(params.network(model), seed, used.precision)
            for count, found in scores.items():
                keras.utils.clear_session()
                validation = fit(replace(spec, replicas=count), data).validation
                found.append((100 * validation.accuracy, validation.loss))
                print(model, "seed", seed, "replicas", count, *found[-1], flush=True)
        one = np.array(scores[1])
        for count, found in scores.items():
            accuracy, loss = np.array(found).T
            cells = [interval(accuracy - one[:, 0]), interval(loss - one[:, 1])] if count > 1 else ["", ""]
            lines.append(f"| {model} | {count} | {accuracy.mean():.2f} | {loss.mean():.4f} | {cells[0]} | {cells[1]} |")
    print(f"\n{used.name}, {used.precision}; {data.info.dataset}, {given.seeds} seeds\n\n" + "\n".join(lines))


if __name__ == "__main__":
    main()
