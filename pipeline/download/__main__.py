"""Download the files of the dataset that params.yaml names:  python -m pipeline.download

DATASET_MIRROR, a folder or a base URL that contains <dataset>/<file>, is tried before the sources of data/catalog.yaml.
A file is accepted only if its SHA-256 is the one in the catalog; files already in place are kept. An interrupted
download is resumed. data/raw/<dataset>.json records the source and time of each file.
"""

import os

from pipeline.core import command, config
from pipeline.core.paths import Paths


def run(paths: Paths) -> None:
    """Download the dataset that params.yaml names."""
    stopwatch = command.Stopwatch()
    dataset = config.load(paths).data.dataset
    entry = config.load_catalog(paths)[dataset]
    with stopwatch("imports"):
        from pipeline.download.download import download
    with stopwatch("data"):
        download(dataset, entry, paths, os.environ.get("DATASET_MIRROR"))
    stopwatch.report("download")


if __name__ == "__main__":
    command.main(lambda _: run(Paths()), command.parser(__doc__))
