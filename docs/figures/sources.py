"""Record what the pictures in docs/images were made from:  python docs/figures/sources.py report.png

Run it in the project's folder after drawing a picture. docs/images/sources.json then has the digests of its sources; a
test compares them with the committed files, and so fails when a picture is older than what it shows.
"""

import argparse
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from ruamel.yaml import YAML

RECORD = Path("docs/images/sources.json")
SOURCES = {
    "corruptions.png": ("data/validated", "docs/figures/corruptions.py", "pipeline/evaluate/corruptions.py"),
    "mlflow.png": ("results/metrics.json",),
    "mnist_effects.png": ("docs/mnist_report.html",),
    "mnist_errors.png": ("docs/mnist_report.html",),
    "pooling.png": ("docs/figures/pooling.py", "models/pooling.py", "models/power_mean.py"),
    "report.png": ("results/report.html",),
    "validation.png": ("artifacts/validation",),
}


def digests(picture: str, read: Callable[[str], str]) -> dict[str, str]:
    """Source -> digest: MD5 in dvc.lock of an output that DVC keeps, else SHA-256 of the file.

    Args:
        read: returns the text of a file of the project.
    """
    stages = YAML(typ="safe", pure=True).load(read("dvc.lock"))["stages"].values()
    kept = {output["path"]: output["md5"] for stage in stages for output in stage["outs"]}
    return {
        source: kept.get(source) or hashlib.sha256(read(source).encode()).hexdigest() for source in SOURCES[picture]
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", nargs="+", choices=sorted(SOURCES), help="pictures that were drawn again")
    known = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.is_file() else {}
    for picture in parser.parse_args().pictures:
        known[picture] = digests(picture, lambda file: Path(file).read_text(encoding="utf-8"))
    RECORD.write_text(json.dumps(dict(sorted(known.items())), indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
