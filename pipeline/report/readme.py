"""Write the table of results/report.md into README.md, between its two markers:  python -m pipeline.report.readme"""

from pipeline.core import command
from pipeline.core.paths import Paths
from pipeline.report import markers

BEGIN, END = "<!-- results: written by `make readme` -->", "<!-- end of results -->"


def write(paths: Paths) -> None:
    """Update README.md with the results of the last run."""
    markers.write(paths.root / "README.md", BEGIN, END, (paths.results / "report.md").read_text(encoding="utf-8"))


def main() -> None:
    command.main(lambda _: write(Paths()), command.parser(__doc__))


if __name__ == "__main__":
    main()
