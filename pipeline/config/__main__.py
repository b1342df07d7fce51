"""Check params.yaml and data/catalog.yaml:  python -m pipeline.config

As the first stage of the pipeline it refuses wrong parameters before DVC removes the output of any other stage.
"""

import json

from pipeline.core import atomic, command, config, own_files
from pipeline.core.paths import Paths


def check(paths: Paths) -> None:
    """Load the parameters and write the files on which other stages depend.

    One has a constant content. Another has the base network of the search, so that a change of another network does
    not repeat the search. A folder has a file for each network with the digests of its files in own_networks/, so that
    a change of such a file trains that network again, and no other.
    """
    params = config.load(paths)
    digests = {name: own_files.digests(network, paths.own_networks) for name, network in params.models.items()}
    base = params.base.model_dump(mode="json") if params.tune else None
    if params.tune and (files := own_files.digests(params.base, paths.own_networks)):
        base = {"network": base, "files": files}
    atomic.write_text(paths.search_base, json.dumps(base, indent=2) + "\n")
    with atomic.folder(paths.network_files) as folder:
        for name, files in digests.items():
            (folder / name).write_text(json.dumps(files, indent=2) + "\n", encoding="utf-8")
    atomic.write_text(paths.checked, "params.yaml was valid when this stage ran.\n")
    print(f"params.yaml is valid: {', '.join(params.networks)}")


if __name__ == "__main__":
    command.main(lambda _: check(Paths()), command.parser(__doc__))
