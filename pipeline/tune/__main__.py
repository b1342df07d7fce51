"""Search dropout, pooling and whatever else `tune.space` lists:  python -m pipeline.tune

The base network's own values are the first trial. The best trials are trained again with other seeds, and the winner is
then trained like any network of params.yaml, under the name `tuned`; its block is written to artifacts/tune/best.yaml,
ready to be pasted under `models`. A killed search resumes with the trials that are left when it is started again.
"""

import argparse

from pipeline.core import command, config
from pipeline.core.paths import Paths
from pipeline.core.records import write_no_search
from pipeline.engine import engine, placement
from pipeline.runtime.startup import load_tensorflow


def run(arguments: argparse.Namespace) -> None:
    """Search, and train the winner."""
    stopwatch, paths = command.Stopwatch(), Paths()
    params = config.load(paths)
    if params.tune is None:
        write_no_search(paths)
        print("tune is null in params.yaml: no search")
        return
    with placement.start(params.runtime, params.tune.side_by_side) as used:
        with stopwatch("imports"):  # after the parameters are known to be valid
            load_tensorflow()  # before Keras Tuner does
            from pipeline.train.train import Trainer
            from pipeline.tune.tune import tune

        engine.complete(tune(Trainer.create("tune", params, paths, used, stopwatch)))
    stopwatch.report("tune")


def main() -> None:
    command.main(run, command.parser(__doc__))


if __name__ == "__main__":
    main()
