"""Where everything lies, relative to the project's folder. dvc.yaml names the same paths; a test compares them."""

import os
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Paths:
    """The places of one project folder; the default is the folder that the command was started in."""

    root: Path = field(default_factory=Path.cwd)

    @property
    def params(self) -> Path:
        return self.root / "params.yaml"

    @property
    def catalog(self) -> Path:
        return self.root / "data" / "catalog.yaml"

    def raw(self, dataset: str) -> Path:
        """The files of one dataset, as published."""
        return self.root / "data" / "raw" / dataset

    def manifest(self, dataset: str) -> Path:
        """Where the raw files came from, and when. DVC does not track it: equal data would differ by its time."""
        return self.root / "data" / "raw" / f"{dataset}.json"

    def unfinished_download(self, dataset: str) -> Path:
        """What has been received of files that are not complete, on the file system of the complete ones."""
        return self.root / "data" / "raw" / ".unfinished" / dataset

    @property
    def home(self) -> Path:
        """What the paths of sources are relative to: the person's own project, also where DVC works on a copy of it."""
        return Path(os.environ.get("DVC_ROOT") or self.root)

    @property
    def validated(self) -> Path:
        """Arrays ready to train on: a folder per split, and dataset.json."""
        return self.root / "data" / "validated"

    def split(self, name: str) -> Path:
        return self.validated / name

    @property
    def validation(self) -> Path:
        """What validation found."""
        return self.root / "results" / "validation"

    def model(self, name: str) -> Path:
        return self.root / "artifacts" / "models" / f"{name}.keras"

    @property
    def replicates(self) -> Path:
        """The same networks trained with other seeds."""
        return self.root / "artifacts" / "replicates"

    def replicate(self, name: str, seed: int) -> Path:
        """One of them: model.keras, run.json."""
        return self.replicates / name / str(seed)

    def training(self, name: str) -> Path:
        """What the training of one network leaves: history.csv, run.json."""
        return self.root / "results" / "train" / name

    @property
    def search(self) -> Path:
        """What the search leaves: trials.csv, best.yaml, run.json."""
        return self.root / "results" / "tune"

    @property
    def metrics(self) -> Path:
        return self.root / "results" / "metrics.json"

    @property
    def report(self) -> Path:
        """The comparison of all networks, to read."""
        return self.root / "results" / "report.md"

    @property
    def page(self) -> Path:
        """All that evaluation found, as one page."""
        return self.root / "results" / "report.html"

    @property
    def evaluation(self) -> Path:
        """Tables and the data of the plots, over all networks."""
        return self.root / "results" / "evaluation"

    @property
    def unfinished(self) -> Path:
        """Work that a stage can take up again after it was killed. No output of any stage: DVC leaves it alone."""
        return self.root / ".cache"
