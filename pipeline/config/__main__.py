"""Check params.yaml and data/catalog.yaml:  python -m pipeline.config

As the first stage of the pipeline it refuses wrong parameters before DVC removes the output of any other stage.
"""

from pipeline.core import atomic, command, config
from pipeline.core.paths import Paths


def check(paths: Paths) -> None:
    """Load the parameters and write a file of constant content, on which the other stages depend."""
    networks = ", ".join(config.load(paths).models)
    atomic.write_text(paths.checked, "params.yaml was valid when this stage ran.\n")
    print(f"params.yaml is valid: {networks}")


if __name__ == "__main__":
    command.main(lambda _: check(Paths()), command.parser(__doc__))
