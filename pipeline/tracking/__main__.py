"""Mark runs of killed processes as KILLED, and send what was kept while MLflow failed:  python -m pipeline.tracking"""

from pipeline import tracking
from pipeline.core import command
from pipeline.core.paths import Paths
from pipeline.tracking import store


def run(_: object) -> None:
    paths = Paths()
    killed, sent = store.attempt(store.name(paths), tracking.catch_up, paths, opening=True)
    print(f"runs marked as killed: {killed}; runs sent that were kept: {sent}")


if __name__ == "__main__":
    command.main(run, command.parser(__doc__))
