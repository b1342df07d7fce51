"""Put the table of results/report.md into README.md, between its two markers:  python -m pipeline.readme"""

from pipeline import markers, stage
from pipeline.paths import Paths

BEGIN, END = "<!-- results: written by `make readme` -->", "<!-- end of results -->"


def write(paths: Paths) -> None:
    """Bring README.md up to the results of the last run."""
    markers.write(paths.root / "README.md", BEGIN, END, paths.report.read_text(encoding="utf-8"))


def main() -> None:
    stage.main(lambda _: write(Paths()), stage.parser(__doc__))


if __name__ == "__main__":
    main()
