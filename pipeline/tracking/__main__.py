"""Mark the runs of killed processes as KILLED:  python -m pipeline.tracking"""

from pipeline import tracking
from pipeline.core import command
from pipeline.core.paths import Paths
from pipeline.tracking.store import connect


def close_killed_runs(_: object) -> None:
    with connect(Paths()):
        print(f"runs marked as killed: {tracking.close_killed_runs()}")


if __name__ == "__main__":
    command.main(close_killed_runs, command.parser(__doc__))
