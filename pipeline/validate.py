"""Check the data, fix the splits and write arrays that training reads as they are:  python -m pipeline.validate

Everything that is found is collected in results/validation: tables, and validation.html to look at. Errors then stop
the stage, and data/validated stays as it was; warnings do not.
"""

from pipeline import config, stage
from pipeline.paths import Paths


def run(paths: Paths) -> None:
    """Validate the dataset that params.yaml names."""
    stopwatch = stage.Stopwatch()
    params = config.load(paths)
    entry = config.load_catalog(paths)[params.data.dataset]
    with stopwatch("imports"):  # after the parameters are known to be good
        from pipeline import validation
    with stopwatch("data"):
        validation.validate(params, entry, paths)
    stopwatch.report("validate")


def main() -> None:
    stage.main(lambda _: run(Paths()), stage.parser(__doc__))


if __name__ == "__main__":
    main()
