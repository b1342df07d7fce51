"""Check the dataset, fix its splits and write arrays ready for training:  python -m pipeline.validate

All findings are written to artifacts/validation: tables, and validation.html to look at. Errors then fail the stage
before data/validated is replaced; warnings do not.
"""

from pipeline.core import command, config
from pipeline.core.paths import Paths


def run(paths: Paths) -> None:
    """Validate the dataset that params.yaml names."""
    stopwatch = command.Stopwatch()
    params = config.load(paths)
    entry = config.load_catalog(paths)[params.data.dataset]
    with stopwatch("imports"):
        from pipeline.validate.validate import validate
    with stopwatch("data"):
        validate(params, entry, paths)
    stopwatch.report("validate")


if __name__ == "__main__":
    command.main(lambda _: run(Paths()), command.parser(__doc__))
