"""Loading of the results, and the texts and files of the report, from stored tables of made-up results."""

import dataclasses
import io
import json
import re
import sys
from itertools import combinations
from pathlib import Path

import matplotlib
import pandas as pd
import pytest
from rich.console import Console

from pipeline.core import config, records
from pipeline.core.command import Stopwatch
from pipeline.core.config import Params
from pipeline.core.errors import DataError
from pipeline.core.paths import Paths
from pipeline.report import effects, markdown, results
from pipeline.report.report import report
from pipeline.report.results import Results
from pipeline.report.terminal import terminal
from tests.conftest import ROOT, Project
from tests.stored_results import FIRST, METRICS, frame, store

FILES = {
    *(
        "metrics.json",
        "ranking.json",
        "report.md",
        "report.html",
        "search.md",
        "best.yaml",
        "learning_curves.csv",
        "reliability.csv",
    ),
    *("comparisons.csv", "corruption.csv", "shift.csv", "confusion.csv"),
}
OVER_SEEDS = ("seeds", "replicates", "seed_comparisons")


@pytest.fixture(scope="module")
def params() -> Params:
    return config.load(Paths(ROOT))


@pytest.fixture
def paths(tmp_path: Path, params: Params) -> Paths:
    store(Paths(tmp_path), params)
    return Paths(tmp_path)


def load(paths: Paths, params: Params) -> Results:
    return results.load(paths, params.dimensions)


def printed(found: Results) -> str:
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(terminal(found, "results/report.html"))
    return console.export_text()


def test_all_files_are_written_and_equal_input_gives_equal_bytes(paths: Paths, params: Params):
    found = report(paths, params, Stopwatch())
    first = {path.name: path.read_bytes() for path in paths.results.iterdir()}
    assert set(first) == FILES
    assert first["report.md"] == markdown.comparison(found).encode()
    for name in ("metrics.json", "confusion.csv"):
        assert first[name] == (paths.evaluation / name).read_bytes()
    assert first["best.yaml"] == (paths.search / "best.yaml").read_bytes()
    assert (
        pd.read_csv(paths.results / "comparisons.csv")["sentence"].tolist() == found.ranking.pairs["sentence"].tolist()
    )
    with matplotlib.rc_context({"lines.linewidth": 9, "font.size": 20}):
        report(paths, params, Stopwatch())
    assert {path.name: path.read_bytes() for path in paths.results.iterdir()} == first


def test_the_texts_over_seeds(paths: Paths, params: Params):
    found = load(paths, params)
    text, shown = markdown.comparison(found), printed(found)
    for each in (text, shown):
        assert "best: net_1 (98.65 %, 3 seeds); within noise: <i>net" in each
    assert "\n| best | net_1 | max | 0·0.3·0.4·0.25 | 421,642 | 98.88% | 98.65% ± 0.12 | 0.0500 |\n" in text
    assert "\n| baseline | linear classifier |  |  |  | 90.00% | 91.75% | 0.2900 |\n" in text
    assert "\n- net_1: pooling max·max·max → flatten | dropout 0·0.3·0.4·0.25\n" in text
    assert "\n- no difference can be shown between net_1 and <i>net over 3 seeds (+1.50 pp, simultaneous 95 % " in text
    assert "Not shown to beat the baseline linear classifier: <i>net.\n" in text
    assert "<em>digits (3,600 train, 1,000 test images); a processor, float32." in text
    assert "The networks differ in several factors at once (dropout, " in text
    assert re.search(r"421,642 +98.65% +± 0.12\n", shown)
    assert "++models.net_1.blocks.0.pooling.kind=average" in shown
    assert not re.search(r"\bnan\b", text + shown)
    row = ("dropout", "0.5", "0.2", 9, -0.01, -0.02, -0.005, 0.01)
    shares = ("dropout", 1, 0.6, 0.2, 0.8, 0.01, 0.01, effects.MATTERS)
    effect = "0.5 instead of 0.2: -1.00 pp (-2.00 pp to -0.50 pp)"
    known = dataclasses.replace(
        found.effects,
        effects=frame("dimension change reference trials effect low high p", row),
        importance=frame("dimension effects share low high p p_adjusted verdict", shares),
    )
    found = dataclasses.replace(found, effects=known)
    assert f"\n| `dropout` | matters | 60% (20% to 80%) | {effect} |\n" in markdown.comparison(found)
    assert f"\neffect of dropout, {effect}\n" in printed(found)
    search = markdown.search(found.search)
    assert "5 dimensions, 12 trials; objective val_loss, lower is better.\n" in search
    assert re.search(
        r"\n\| `blocks\.2\.pooling\.kind` \| not shown \| \d+% \(\d+% to \d+%\) \| gem instead of max: ", search
    )


def test_the_texts_of_one_seed_without_a_search(paths: Paths, params: Params):
    for name in OVER_SEEDS:
        (paths.evaluation / f"{name}.csv").unlink()
    records.write_no_search(paths)
    found = report(paths, params.model_copy(update={"tune": None}), Stopwatch())
    text = (paths.results / "report.md").read_text(encoding="utf-8")
    assert text.startswith("best: net_1 (98.76 %, one seed); worse: <i>net.\n")
    assert "\n| best | net_1 | max | 0·0.3·0.4·0.25 | 421,642 | 98.88% | 98.76% (98.11 to 99.22) | 0.0512 |\n" in text
    assert "\n- net_1 is better than <i>net by 1.64 pp, simultaneous 95 % interval 0.83 to 2.45, p = 0.0042.\n" in text
    assert "\n- One seed: " in text
    assert "95 % interval" in printed(found)
    assert (found.search, found.search_record) == (None, None)
    assert (paths.results / "search.md").read_text() == "No search: `tune` is null in params.yaml.\n"
    assert (paths.results / "best.yaml").read_text() == "# No search: `tune` is null in params.yaml.\n"


def test_sentences_on_many_pairs_are_a_count():
    pairs = list(combinations("abcde", 2))
    table = pd.DataFrame(pairs, columns=["a", "b"]).assign(
        p_adjusted=[0.04] * 2 + [0.2] * 8, sentence=[f"sentence {k}" for k in range(10)], same=False
    )
    assert results.sentences(table.head(6)) == [f"sentence {k}" for k in range(6)]
    assert results.sentences(table) == [
        "2 of 10 pairs of networks differ; no difference can be shown between the others; results/comparisons.csv has "
        "all pairs"
    ]
    assert results.sentences(table.tail(8)) == ["no difference can be shown between any two networks (8 pairs)"]
    table.loc[1, "same"] = True  # c predicts as a does
    assert results.sentences(table) == [f"sentence {k}" for k, pair in enumerate(pairs) if "c" not in pair]


def test_after_a_failure_the_old_files_stay(paths: Paths, params: Params, monkeypatch: pytest.MonkeyPatch):
    report(paths, params, Stopwatch())
    before = {path.name: path.read_bytes() for path in paths.results.iterdir()}
    (paths.evaluation / "metrics.json").write_text(json.dumps(METRICS | {FIRST: METRICS[FIRST] | {"loss": 0.1}}))
    write_text = Path.write_text

    def fail_late(path: Path, *arguments: str, **options: str) -> int:
        if path.name == "report.html":
            raise OSError("no space left on device")
        return write_text(path, *arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_text", fail_late)
        with pytest.raises(OSError, match="no space"):
            report(paths, params, Stopwatch())
    assert {path.name: path.read_bytes() for path in paths.results.iterdir()} == before


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("data/validated/dataset.json", "dvc repro validate"),
        ("artifacts/evaluation/metrics.json", "dvc repro evaluate"),
        ("artifacts/evaluation/explanations.npz", "dvc repro evaluate"),
        ("artifacts/evaluation/cost.csv", "cost.csv: not found"),
        ("artifacts/train/net_1/record.json", "net_1/record.json: not found"),
        ("artifacts/tune/record.json", "tune/record.json: not found"),
    ],
)
def test_a_missing_file_is_named(paths: Paths, params: Params, file: str, message: str):
    (paths.root / file).unlink()
    with pytest.raises(DataError, match=message):
        results.load(paths, params.dimensions)


def test_results_of_other_data_or_another_space_are_refused(paths: Paths, params: Params):
    trials = pd.read_csv(paths.search / "trials.csv")
    trials.drop(columns="head.dropout").to_csv(paths.search / "trials.csv", index=False)
    with pytest.raises(DataError, match=r"another space, without head\.dropout; run `dvc repro tune`"):
        results.load(paths, params.dimensions)
    info = paths.validated / "dataset.json"
    info.write_text(info.read_text().replace("0a1b", "beef"))
    with pytest.raises(DataError, match="net_1: trained on other data"):
        results.load(paths, params.dimensions)


def test_words_for_nothing_are_levels_of_a_search(paths: Paths, params: Params):
    trials = pd.read_csv(paths.search / "trials.csv")
    trials["blocks.2.pooling.kind"] = ["none", "null", "NA"] * 4
    trials.to_csv(paths.search / "trials.csv", index=False)
    search = load(paths, params).search
    assert search
    assert list(search.trials["blocks.2.pooling.kind"][:3]) == ["none", "null", "NA"]


def test_the_command_loads_neither_tensorflow_nor_mlflow(project: Project):
    params = config.load(project.paths)
    store(project.paths, params)
    heavy = "import runpy, sys; runpy.run_module('pipeline.report', run_name='__main__'); "
    check = "assert not {'tensorflow', 'keras', 'mlflow'} & set(sys.modules)"
    done = project.run(sys.executable, "-c", f"import sys; sys.argv = ['report']; {heavy}{check}")
    assert "best: net_1 (98.65 %, 3 seeds)" in done.stdout
    assert "report.html" in done.stdout
    assert {path.name for path in project.paths.results.iterdir()} == FILES
