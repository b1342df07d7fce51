"""Mark the runs whose process was killed as such:  python -m pipeline.tracking"""

from pipeline import stage, tracking
from pipeline.paths import Paths
from pipeline.tracking.store import connect


def close_killed_runs(_: object) -> None:
    with connect(Paths()):
        print(f"runs marked as killed: {tracking.close_killed_runs()}")


if __name__ == "__main__":
    stage.main(close_killed_runs, stage.parser(__doc__))
