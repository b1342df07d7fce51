"""The recipe for MNIST: its size, the command that measures it, and the table of docs/recipe.md."""

import re
import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest

from benchmarks import recipe
from pipeline.report import markers

from .conftest import ROOT, Project


@pytest.mark.parametrize("name", recipe.NETWORKS)
def test_document_shows_the_recorded_results_of_these_settings(name: str, tmp_path: Path):
    rows = recipe.finished(recipe.file(name), recipe.digest(recipe.block(name, {}), recipe.DATA))
    assert rows["parameters"].max() <= 840_586  # of Model 2
    written = Path(shutil.copy(recipe.DOCUMENT, tmp_path))
    markers.write(written, recipe.BEGIN.format(name), recipe.END.format(name), recipe.text(name, rows))
    assert written.read_text(encoding="utf-8") == recipe.DOCUMENT.read_text(encoding="utf-8"), (
        f"run `python -m benchmarks.recipe --network {name}`"
    )


def test_mean_and_standard_deviation_of_the_table():
    rows = pd.DataFrame(
        {
            "seed": [1, 2],
            "test_accuracy": [0.996, 0.998],
            "test_loss": [0.02, 0.01],
            "test_images": 10_000,
            "train_images": 58_800,
            "parameters": 608_618,
            "seconds": 600,
            "processor_seconds": [1_000, 1_100],
            "device": "a processor",
            "precision": "float32",
        }
    )
    assert "| 1 | 99.60% | 40 | 0.0200 | 10.0 | 16.7 |" in recipe.table(rows)
    assert "| mean ± standard deviation | 99.700% ± 0.14 | 30.0 | 0.0150 | 10.0 | 17.5 |" in recipe.table(rows)


def test_gain_is_paired_by_seed():
    rows = pd.DataFrame({"seed": [1, 2, 3], "test_accuracy": [0.997, 0.998, 0.996]})
    others = pd.DataFrame({"seed": [3, 2, 1, 4], "test_accuracy": [0.996, 0.997, 0.995, 0.9]})
    # Differences of 0.2, 0.1 and 0 points: Student's t of two degrees of freedom, 4.303, times 0.1 / sqrt(3).
    assert "Against `other`, paired by seed: +0.100 pp of test accuracy (-0.148 to +0.348, 3 seeds)." in recipe.gain(
        rows, others, "other"
    )
    assert recipe.gain(rows.head(1), others, "other") == ""


@pytest.mark.pipeline
def test_command_keeps_finished_seeds_and_refuses_results_of_other_settings(project: Project):
    (project.root / "docs").mkdir()
    shutil.copyfile(ROOT / "docs" / "recipe.md", project.root / "docs" / "recipe.md")
    (project.root / "benchmarks").mkdir()
    for name in ("project.py", "recipe.py"):
        shutil.copyfile(ROOT / "benchmarks" / name, project.root / "benchmarks" / name)
    command = [sys.executable, "-m", "benchmarks.recipe", "--dataset", "mnist_5k", "--limit", "600", "--epochs"]
    project.run(*command, "1", "--seeds", "1")
    file = project.root / "benchmarks" / "recipe.csv"
    rows = pd.read_csv(file)
    rows["test_loss"] = 77.0  # another run would have another loss
    rows.to_csv(file, index=False)
    shown = project.run(*command, "1", "--seeds", "2").stdout
    assert pd.read_csv(file)["seed"].tolist() == [1, 2]
    assert "| 77.0000 |" in shown
    assert re.search(r"\| 77.0000 \|.*\n\| 2 \|", (project.root / "docs" / "recipe.md").read_text(encoding="utf-8"))
    rows["test_accuracy"] = 1.0
    pd.concat([rows, rows.assign(seed=2)]).to_csv(project.root / "earlier.csv", index=False)
    shown = project.run(*command, "1", "--seeds", "2", "--against", "earlier.csv").stdout
    assert re.search(r"Against `earlier`, paired by seed: -\d+\.\d+ pp of test accuracy \(.*, 2 seeds\)", shown)
    refused = project.run(*command, "1", "--against", "absent.csv", check=False)
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    assert "absent.csv: no such file" in refused.stderr
    refused = project.run(*command, "2", check=False)
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    assert "benchmarks/recipe.csv: contains results of other settings" in refused.stderr
