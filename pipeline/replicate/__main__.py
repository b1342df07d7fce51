"""Train every network again with other seeds:  python -m pipeline.replicate

`evaluate.seeds: N` means N trainings of each network: that of its own stage, and here those with the N - 1 seeds after
`seed`, into artifacts/replicates/NAME/SEED. Replicates with the same settings, data and code are not trained again.
"""

import argparse
import json
import shutil

from pipeline.core import atomic, command, config
from pipeline.core.paths import Paths
from pipeline.engine import engine, placement


def run(arguments: argparse.Namespace) -> None:
    """Bring artifacts/replicates up to date with the parameters."""
    stopwatch, paths = command.Stopwatch(), Paths()
    params = config.load(paths)
    shutil.rmtree(paths.replicates, ignore_errors=True)  # of other parameters; DVC has done the same
    atomic.write_text(paths.replicates / "seeds.json", json.dumps(list(params.replicate_seeds)) + "\n")
    if params.replicate_seeds:
        fits = len(params.replicate_seeds) * len(params.trained)
        with placement.start(params.runtime, fits) as used:
            with stopwatch("imports"):  # after the parameters are known to be valid
                from pipeline.replicate.replicate import replicate
                from pipeline.train.train import Trainer

            trainer = Trainer.create("replicate", params, paths, used, stopwatch)
            with stopwatch("fits"):
                engine.complete(replicate(trainer))
    stopwatch.report("replicate")


def main() -> None:
    command.main(run, command.parser(__doc__))


if __name__ == "__main__":
    main()
