"""Run the pipeline on all of MNIST, and write docs/mnist.md from its results:  make mnist

  DATASET_MIRROR=../shared/datasets make mnist

The pipeline runs in a clone of the last commit in .bench/mnist, whose params.yaml is changed by benchmarks/mnist.yaml.
After an interruption, the same command goes on there, with the commit that began. Remove the folder to begin anew.
"""

import os
import subprocess
import sys
from pathlib import Path

from benchmarks.project import ROOT, clone, create, mirror, parser, yaml

FOLDER = ROOT / ".bench" / "mnist"
CHANGES = ROOT / "benchmarks" / "mnist.yaml"


def prepare(folder: Path) -> None:
    """Clone the last commit, and change its params.yaml."""
    clone(folder)
    changes, gallery = yaml.load(CHANGES), yaml.load(ROOT / "models" / "gallery.yaml")
    networks = {name: gallery[name] for name in changes.pop("gallery")}
    create(folder, changes | {"models": networks})


def run(folder: Path) -> None:
    """Run the pipeline, or what is left of it."""
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    if source := mirror():
        environment["DATASET_MIRROR"] = source
    done = subprocess.run([sys.executable, "-m", "pipeline.repro"], cwd=folder, env=environment, check=False)
    if done.returncode:
        sys.exit(done.returncode)


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--folder", type=Path, default=FOLDER, help="where the pipeline runs")
    given = arguments.parse_args()
    if not given.folder.exists():
        prepare(given.folder)
    run(given.folder)


if __name__ == "__main__":
    main()
