"""Put the table of results/report.md into README.md, between its two markers:  python -m pipeline.readme"""

from pipeline import atomic, stage
from pipeline.errors import DataError
from pipeline.paths import Paths

BEGIN, END = "<!-- results: written by `make readme` -->\n", "<!-- end of results -->\n"


def with_results(readme: str, report: str) -> str:
    """The README with the report between its markers.

    Raises:
        DataError: the markers are not there.
    """
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise DataError(f"README.md: the markers of the results are gone: {BEGIN.strip()} and {END.strip()}")
    return f"{before}{BEGIN}{report}{END}{after}"


def main() -> None:
    stage.main(lambda _: write(Paths()), stage.parser(__doc__))


def write(paths: Paths) -> None:
    """Bring README.md up to the results of the last run."""
    readme = paths.root / "README.md"
    report = paths.report.read_text(encoding="utf-8")
    atomic.write_text(readme, with_results(readme.read_text(encoding="utf-8"), report))


if __name__ == "__main__":
    main()
