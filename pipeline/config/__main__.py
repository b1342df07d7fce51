"""Check params.yaml and data/catalog.yaml:  python -m pipeline.config

As the first stage of the pipeline it refuses wrong parameters before DVC removes the output of any other stage.
"""

import json

from pipeline.core import atomic, command, config
from pipeline.core.paths import Paths


def check(paths: Paths) -> None:
    """Load the parameters and write the files on which other stages depend.

    One has a constant content; the other has the base network of the search, so that a change of another network does
    not repeat the search.
    """
    params = config.load(paths)
    base = params.base.model_dump(mode="json") if params.tune else None
    atomic.write_text(paths.search_base, json.dumps(base, indent=2) + "\n")
    atomic.write_text(paths.checked, "params.yaml was valid when this stage ran.\n")
    print(f"params.yaml is valid: {', '.join(params.networks)}")


if __name__ == "__main__":
    command.main(lambda _: check(Paths()), command.parser(__doc__))
