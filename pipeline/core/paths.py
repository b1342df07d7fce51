"""Paths of the project's files. dvc.yaml names the same paths; a test compares them."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from models.own_code import FOLDER

MODEL = "model.keras"  # in the folder of each training
TUNED = "tuned"  # the name of the search's winner, which no network of params.yaml may take


@dataclass(frozen=True)
class Paths:
    """Paths below one project folder, by default the working directory."""

    root: Path = field(default_factory=Path.cwd)

    @property
    def params(self) -> Path:
        return self.root / "params.yaml"

    @property
    def catalog(self) -> Path:
        return self.root / "data" / "catalog.yaml"

    @property
    def own_networks(self) -> Path:
        """The user's own code and starting weights."""
        return self.root / FOLDER

    @property
    def network_files(self) -> Path:
        """Another output of the stage `config`: for each network, the SHA-256 of its files in own_networks/."""
        return self.root / "artifacts" / "networks"

    @property
    def checked(self) -> Path:
        """The output of the stage `config`: the same content for all valid parameters."""
        return self.root / "artifacts" / "params-checked.txt"

    @property
    def search_base(self) -> Path:
        """Another output of the stage `config`: the base network of the search as JSON, or null."""
        return self.root / "artifacts" / "search-base.json"

    def raw(self, dataset: str) -> Path:
        """The files of one dataset, as published."""
        return self.root / "data" / "raw" / dataset

    def manifest(self, dataset: str) -> Path:
        """Source and time of each raw file. Not tracked by DVC: equal data would differ by its time."""
        return self.root / "data" / "raw" / f"{dataset}.json"

    def unfinished_download(self, dataset: str) -> Path:
        """Partially downloaded files, on the file system of the complete ones."""
        return self.root / "data" / "raw" / ".unfinished" / dataset

    @property
    def home(self) -> Path:
        """The folder that paths of sources are relative to: the user's project, also where DVC runs a copy of it."""
        return Path(os.environ.get("DVC_ROOT") or self.root)

    @property
    def validated(self) -> Path:
        """Validated arrays: a folder per split, and dataset.json."""
        return self.root / "data" / "validated"

    def split(self, name: str) -> Path:
        return self.validated / name

    @property
    def validation(self) -> Path:
        """The findings of validation: tables, and validation.html."""
        return self.root / "artifacts" / "validation"

    @property
    def trainings(self) -> Path:
        """The networks of params.yaml."""
        return self.root / "artifacts" / "train"

    def training(self, name: str) -> Path:
        """The output of one training: model.keras, history.csv and record.json."""
        return (self.search if name == TUNED else self.trainings) / name

    def model(self, name: str) -> Path:
        return self.training(name) / MODEL

    @property
    def search(self) -> Path:
        """The output of the search: its winner, trials.csv, curves.csv, finalists.csv, best.yaml and record.json."""
        return self.root / "artifacts" / "tune"

    @property
    def replicates(self) -> Path:
        """The networks trained with other seeds."""
        return self.root / "artifacts" / "replicates"

    def replicate(self, name: str, seed: int) -> Path:
        """One of them: model.keras, history.csv and record.json."""
        return self.replicates / name / str(seed)

    @property
    def evaluation(self) -> Path:
        """The output of the evaluation: metrics.json, tables and explanations.npz."""
        return self.root / "artifacts" / "evaluation"

    @property
    def results(self) -> Path:
        """The report, and the tables that Git keeps."""
        return self.root / "results"

    @property
    def resumable(self) -> Path:
        """Work that a killed or repeated stage resumes from. Not an output, so DVC does not remove it."""
        return self.root / ".cache"
