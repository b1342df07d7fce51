"""The report: its page, texts and plot data, rendered from stored tables of made-up results."""

import base64
import dataclasses
import io
import json
import re
import sys
from collections.abc import Callable, Sequence
from html.parser import HTMLParser
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pipeline.core import config
from pipeline.core.command import Stopwatch
from pipeline.core.config import Params
from pipeline.core.errors import DataError
from pipeline.core.explanations import Explanations, FeatureMaps, GradCam, NetworkExplanations
from pipeline.core.paths import Paths
from pipeline.core.provenance import Origin
from pipeline.core.records import Counts, Device, Scores, SearchRecord, TrainingRecord
from pipeline.html import thumbnails
from pipeline.report import figures, image_panels, markdown, results
from pipeline.report.page import MISSING, page
from pipeline.report.report import report
from pipeline.report.results import Results
from tests.conftest import ROOT, Project

CLASSES = ("cat", "<b>dog</b>", "$owl$")
MODELS = ("net_1", "<i>net")
FIRST, SECOND = MODELS
VOID = {"meta", "link", "img", "br"}
PAIR = "pair a b only_a only_b difference low high p p_adjusted sentence"
FILES = {
    *("metrics.json", "report.md", "report.html", "search.md", "best.yaml", "learning_curves.csv", "reliability.csv"),
    *("comparisons.csv", "corruption.csv", "shift.csv", "confusion.csv"),
}


def frame(columns: str, *rows: tuple) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=columns.split())


METRICS = {
    FIRST: {"accuracy": 0.9876, "accuracy_low": 0.9811, "accuracy_high": 0.9922, "loss": 0.0512, "parameters": 421642}
    | {"brier": 0.0213, "top2": 0.9954, "f1": 0.9871, "ece": 0.0117, "run_id": "abc", "own_metric": 1.25}
    | {"validation_accuracy": 0.9888},
    SECOND: {"accuracy": 0.9712, "accuracy_low": 0.9611, "accuracy_high": 0.9812, "loss": 0.25, "parameters": 101770}
    | {"f1": float("nan"), "ece": 0.02, "temperature": 1.375, "validation_accuracy": 0.98},
}
TABLES = {
    "comparisons": frame(
        PAIR, ("x", *MODELS, 9, 3, 1.64, 0.83, 2.45, 0.0021, 0.0042, f"{FIRST} is better than {SECOND}")
    ),
    "replicates": frame("model seeds mean std", (FIRST, 5, 0.9865, 0.0012)),
    "seed_comparisons": frame(
        PAIR, ("x", *MODELS, 0, 0, 1.5, -0.25, 3.25, 0.0731, 0.1462, "no difference over 5 seeds")
    ),
    "reliability": frame(
        "model lower upper count confidence accuracy",
        *((model, 0.5, 1.0, 20, 0.93, 0.9) for model in MODELS),
        (FIRST, 0.0, 0.5, 0, np.nan, np.nan),
    ),
    "per_class": frame(
        "model class precision recall f1 support",
        *((model, name, 0.9123, 0.8765, 0.8941, 1234) for model in MODELS for name in CLASSES),
    ),
    "confusion": frame(
        "model actual predicted count",
        *((model, a, b, 7 if a == b else 1) for model in MODELS for a in CLASSES for b in CLASSES),
    ),
    "cost": frame("model parameters multiply_adds latency_p50_ms", (FIRST, 421642, 4241152, 1.37)),
    "corruption": frame(
        "model corruption error relative",
        *((model, name, error, 0.87) for model in MODELS for name, error in (("fog", 0.456), ("shot_noise", 0.0))),
    ),
    "corruption_summary": frame("model clean_error mean_error mce worst", (FIRST, 0.0124, 0.1357, 0.91, "glass_blur")),
    "shift": frame(
        "model shift images consistency low high pairwise",
        *((model, k, 9, 0.973 - 0.1 * k, 0.95 - 0.1 * k, 0.99 - 0.1 * k, 1) for model in MODELS for k in (1, 2)),
    ),
    "out_of_distribution": frame("model against auroc", *((model, "uniform_noise", 0.876) for model in MODELS)),
}


def network(number: int, channels: int = 1) -> NetworkExplanations:
    rng = np.random.default_rng(number)
    predictions = frame("index label prediction confidence", (2, 0, 1, 0.99996), (1, 2, 0, 0.75))
    return NetworkExplanations(
        mistakes=predictions,
        filters=rng.normal(size=(4, 3, 3, channels)).astype(np.float32),
        maps=(
            FeatureMaps("block1", rng.random((8, 6, 10), np.float32), rng.random((4, 3, 10), np.float32)),
            FeatureMaps("block2", rng.random((4, 3, 2), np.float32), None),
        ),
        grad_cam=GradCam(predictions, rng.random((2, 8, 6), np.float32), np.zeros((2, 8, 6), np.float32)),
    )


def explanations(channels: int = 1) -> Explanations:
    rng = np.random.default_rng(0)
    images = {index: rng.integers(0, 256, (8, 6, channels), dtype=np.uint8) for index in range(4)}
    names = [f"{column} {name}" for name in MODELS for column in ("prediction", "confidence")]
    apart = pd.DataFrame([[3, 1, 0.4, 0, 0.625, 2, 1.0]], columns=["index", "label", "divergence", *names])
    networks = {name: network(number, channels) for number, name in enumerate(MODELS)}
    return Explanations(images, CLASSES, 0, networks, apart)


def store(paths: Paths, params: Params) -> None:
    """Write what the stages before the report leave."""
    for folder in (paths.validated, paths.evaluation, paths.search):
        folder.mkdir(parents=True)
    info = {
        "dataset": "<em>digits",
        "image": [8, 6, 1],
        "classes": CLASSES,
        "images": {"train": 3600},
        "digest": "0a1b",
    }
    (paths.validated / "dataset.json").write_text(json.dumps(info))
    (paths.evaluation / "metrics.json").write_text(json.dumps(METRICS))
    for name, table in TABLES.items():
        table.to_csv(paths.evaluation / f"{name}.csv", index=False)
    explanations().save(paths.evaluation / "explanations.npz")
    device = Device(kind="cpu", name="a processor", precision="float32", threads=1)
    origin = Origin(stage="train@net_1", experiment=None, baseline=None, commit="c0ffee", changed=True)
    common = {"data_digest": "0a1b", "settings_digest": "2c3d", "device": device, "run_id": None}
    for name in MODELS:
        TrainingRecord(
            **common,
            name=name,
            network=params.base,
            seed=42,
            dataset="digits",
            origin=origin,
            sha256="4e5f",
            counts=Counts(parameters=1, trainable_parameters=1, non_trainable_parameters=0, multiply_adds=1),
            validation=Scores(accuracy=0.9, loss=0.1),
            model_uri=None,
        ).write(paths.training(name))
        epochs = [(epoch, 0.5 / epoch, 1 - 0.3 / epoch, 0.6 / epoch, 0.8) for epoch in (1, 2, 3)]
        history = frame("epoch loss accuracy val_loss val_accuracy", *epochs)
        history.to_csv(paths.training(name) / "history.csv", index=False)
    SearchRecord(**common, objective="val_loss", winner=0, errors={}).write(paths.search)
    rng = np.random.default_rng(0)
    trials = pd.DataFrame({"trial": range(12), "status": "COMPLETED", "epochs": 2, "val_accuracy": 0.9})
    trials["val_loss"] = 0.1 + 0.01 * rng.random(12)
    for dimension in params.dimensions:
        trials[dimension.name] = rng.choice(np.array(dimension.extremes), 12)
    trials.to_csv(paths.search / "trials.csv", index=False)
    epochs = frame("trial epoch val_loss", *((number, epoch, 0.3 / epoch) for number in range(12) for epoch in (1, 2)))
    epochs.to_csv(paths.search / "curves.csv", index=False)
    (paths.search / "best.yaml").write_text("tuned: {}\n")


@pytest.fixture(scope="module")
def params() -> Params:
    return config.load(Paths(ROOT))


@pytest.fixture
def paths(tmp_path: Path, params: Params) -> Paths:
    store(Paths(tmp_path), params)
    return Paths(tmp_path)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory, params: Params) -> Results:
    paths = Paths(tmp_path_factory.mktemp("stored"))
    store(paths, params)
    return results.load(paths, params.dimensions)


class Page(HTMLParser):
    """A page's elements and text; fails where an element is not closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(page)
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] != "style":
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def values(self, attribute: str) -> list[str]:
        return [value for _, attributes in self.elements if (value := attributes.get(attribute)) is not None]


@pytest.fixture(scope="module")
def text(found: Results) -> str:
    return page(found)


@pytest.fixture(scope="module")
def html(text: str) -> Page:
    return Page(text)


def test_the_page_refers_to_nothing_outside(text: str, html: Page):
    assert "http" not in text
    assert "@import" not in text
    assert not html.all("script")
    for address in html.values("src"):
        assert address.startswith("data:image/")
    for address in html.values("href") + html.values("xlink:href"):
        assert address.startswith(("#", "data:,")), address
    assert all(place.startswith("#") for place in re.findall(r"url\(([^)]*)\)", text))


def test_references_within_the_page_have_one_target(text: str, html: Page):
    places = html.values("id")
    assert len(places) == len(set(places))
    named = {address[1:] for address in html.values("href") + html.values("xlink:href") if address.startswith("#")}
    assert named | set(re.findall(r"url\(#([^)]*)\)", text)) <= set(places)


def test_images_have_texts_and_tables_have_heads(html: Page):
    assert len(html.all("img")) > 20
    assert all(image["alt"] for image in html.all("img"))
    assert len(html.all("svg")) == 14
    assert all(figure["role"] == "img" and figure["aria-label"] for figure in html.all("svg"))
    assert all(head["scope"] in ("row", "col") for head in html.all("th"))
    assert len(html.all("table")) == len(html.all("caption"))


def test_figures_have_the_colours_of_the_page(text: str):
    drawn = "".join(re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL))
    used = set(re.findall(r"var\(--(\w+)\)", drawn))
    assert {"ink", "soft", "line", "heat", "series1", "series2"} <= used
    assert not re.findall(r"#[0-9a-f]{6}\b(?!\))", re.sub(r'(id|href)="[^"]*"', "", drawn)), "a colour of its own"
    light, dark = text.split("@media (prefers-color-scheme: dark)")[:2]
    for variable in figures.VARIABLES.values():
        assert f"--{variable}: #" in light
        assert f"--{variable}: #" in dark


@pytest.mark.parametrize(
    "shown",
    [
        *("98.76%", "98.11% to 99.22%", "0.0512", "421,642", "0.0213", "99.54%", "0.9871", "0.0117", "1.375", "1.25"),
        *("is better than <i>net", "+1.64", "+0.83 to +2.45", "0.0021", "0.0042", "simultaneous 95 % interval, pp"),
        *(
            "98.65%",
            "0.12",
            "no difference over 5 seeds",
            "-0.25 to +3.25",
            "0.1462",
            "(1,234 images)",
            "4,241,152",
            "1.37",
        ),
        *("0.9123", "0.8765", "0.8941", "45.60%", "45.6", "0.87", "87.3% (85.0% to 89.0%)", "0.876", "0a1b"),
        *("99.99%", "75.00%", "62.50%", "100%", "image 3", "8 x 6", "4 x 3"),
        *("cat", "<b>dog</b>", "$owl$", "<em>digits", "shot noise", "uniform noise", "1.24%", "13.57%", "0.91"),
        *(
            "glass blur",
            "c0ffee, with changes",
            "a processor, float32",
            "train: 3600",
            "12 trials",
            "share of variance",
        ),
        *("head.dropout", "+0.05", "not shown"),
    ],
)
def test_results_are_on_the_page(html: Page, shown: str):
    assert shown in html.text


def test_a_missing_value_is_a_dash(html: Page):
    assert f"<i>net97.12%96.11% to 98.12%0.2500{MISSING}0.0200101,770" in html.text
    assert not re.search(r"\bnan\b", html.text)


def test_names_are_escaped(text: str):
    assert not re.findall(r"<b>dog|<i>net|<em>", text)


def test_every_section_is_linked_in_order(html: Page):
    sections = [attributes["id"] for attributes in html.all("section")]
    assert [link["href"] for link in html.all("a")] == [f"#{section}" for section in sections]
    assert (sections[0], sections[-1], len(sections)) == ("results", "provenance", 11)


def test_seeds_and_shifts_are_optional(found: Results):
    tables = {name: table for name, table in found.tables.items() if name not in results.TABLES_OF_SEEDS}
    text = Page(page(dataclasses.replace(found, tables=tables | {"shift": TABLES["shift"].head(0)}))).text
    assert "Over several seeds" not in text
    assert "Shifted images" not in text
    assert "seeds" not in markdown.comparison(dataclasses.replace(found, tables=tables))


def test_all_files_are_written_and_equal_input_gives_equal_bytes(paths: Paths, params: Params, text: str):
    comparison = report(paths, params, Stopwatch())
    first = {path.name: path.read_bytes() for path in paths.results.iterdir()}
    assert set(first) == FILES
    assert first["report.html"] == text.encode()
    assert first["report.md"] == comparison.encode()
    for name in ("metrics.json", "confusion.csv"):
        assert first[name] == (paths.evaluation / name).read_bytes()
    with matplotlib.rc_context({"lines.linewidth": 9, "font.size": 20}):
        report(paths, params, Stopwatch())
    assert {path.name: path.read_bytes() for path in paths.results.iterdir()} == first


def test_the_texts(found: Results):
    comparison, search = markdown.comparison(found), markdown.search(found.search)
    assert "| net_1 | 421,642 | 98.88% | 98.76% (98.11 to 99.22) | 0.0512 | 0.9871 | 1.17% |\n" in comparison
    assert "<em>digits (3,600 train images); one seed; a processor, float32.\n" in comparison
    assert "\n- net_1 is better than <i>net.\n" in comparison
    assert "| net_1 | 5 | 98.65% | 0.12 |\n" in comparison
    assert "11 dimensions, 12 trials; objective val_loss, lower is better.\n" in search
    assert re.search(
        r"\n\| `head\.pooling` \| not shown \| \d+% \(\d+% to \d+%\) \| global_average instead of flatten: ", search
    )


def pairs(count: int, different: int) -> pd.DataFrame:
    """Pairs of networks; the later ones of those that differ do so by more."""
    rows = [
        ("x", f"a{k}", f"b{k}", 9, 3, k / 10, 0.1, 9.0, 0.01, 0.04 if k < different else 0.2, f"sentence {k}")
        for k in range(count)
    ]
    return frame(PAIR, *rows)


@pytest.mark.parametrize(
    ("count", "different", "listed", "last"),
    [
        (6, 2, range(6), None),
        (253, 100, range(99, 93, -1), "100 of 253 pairs of networks differ, of which those with the 6 largest "),
        (10, 2, (1, 0), "2 of 10 pairs of networks differ; no difference can be shown between the others; the table "),
        (10, 0, (), "0 of 10 pairs of networks differ; no difference can be shown between the others; the table "),
        (10, 10, range(9, 3, -1), "10 of 10 pairs of networks differ, of which those with the 6 largest differences "),
    ],
)
def test_many_pairs_are_summarized(found: Results, count: int, different: int, listed: Sequence[int], last: str | None):
    table = pairs(count, different)
    sentences = results.sentences(table)
    assert sentences[: len(listed)] == [f"sentence {k}" for k in listed]
    assert len(sentences) == len(listed) + (last is not None)
    assert last is None or sentences[-1].startswith(last)
    many = dataclasses.replace(found, tables={**found.tables, "comparisons": table, "seed_comparisons": table})
    assert markdown.comparison(many).count("\n- ") == 2 * len(sentences)


def test_the_page_has_the_sentences_of_few_pairs_and_all_pairs_in_its_table(found: Results):
    many = dataclasses.replace(found, tables={**found.tables, "comparisons": pairs(28, 3)})
    text = Page(page(many)).text
    assert "sentence 2" in text
    assert "sentence 3" not in text
    assert "a27, b27" in text


def test_equal_differences_over_seeds_have_no_interval(found: Results):
    table = TABLES["seed_comparisons"].assign(low=np.nan, high=np.nan)
    shown = dataclasses.replace(found, tables={**found.tables, "seed_comparisons": table})
    assert f"+1.50{MISSING}0.0731" in Page(page(shown)).text
    assert "nan" not in re.sub(r"[a-z]nan|nan[a-z]", "", page(shown).partition("<svg")[0])
    assert not re.search(r"\bnan\b", Page(page(shown)).text)


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
        ("artifacts/train/net_1/record.json", "dvc repro train@net_1"),
        ("artifacts/tune/record.json", "dvc repro tune"),
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
    trials["head.pooling"] = ["none", "null", "NA"] * 4
    trials.to_csv(paths.search / "trials.csv", index=False)
    assert list(results.load(paths, params.dimensions).search.trials["head.pooling"][:3]) == ["none", "null", "NA"]


def test_the_command_loads_neither_tensorflow_nor_mlflow(project: Project):
    params = config.load(project.paths)
    store(project.paths, params)
    heavy = "import runpy, sys; runpy.run_module('pipeline.report', run_name='__main__'); "
    check = "assert not {'tensorflow', 'keras', 'mlflow'} & set(sys.modules)"
    done = project.run(sys.executable, "-c", f"import sys; sys.argv = ['report']; {heavy}{check}")
    assert "| net_1 | 421,642 |" in done.stdout
    assert str(project.paths.results / "report.html") in done.stdout
    assert {path.name for path in project.paths.results.iterdir()} == FILES


def test_a_network_with_the_images_of_another_is_shown_once(found: Results):
    both = dataclasses.replace(
        explanations(),
        networks={"base": network(1), "tuned": network(1), "other": network(2)},
        disagreements=explanations().disagreements.head(0),
    )
    assert [each["twin"] for each in image_panels.networks(both)] == [None, "base", None]
    assert "Same as base." in Page(page(dataclasses.replace(found, explanations=both))).text


def test_networks_without_convolutions_and_colour_images(found: Results):
    dense = NetworkExplanations(network(0).mistakes.head(0), None, (), None)
    mixed = dataclasses.replace(explanations(3), networks={FIRST: dense, SECOND: network(0, 3)})
    text = Page(page(dataclasses.replace(found, explanations=mixed))).text
    assert "No convolutions." in text
    assert "No errors." in text


def test_sheets_show_every_tile_in_its_place():
    tiles = np.zeros((3, 2, 2, 3), np.uint8)
    tiles[1, 0, 0], tiles[2] = (255, 0, 0), (0, 0, 255)
    sheet = decoded(thumbnails.sheet(tiles, columns=2, side=4, gap=1))
    assert sheet.shape == (9, 9, 4)
    assert (sheet[:2, 5:7] == (255, 0, 0, 255)).all()
    assert (sheet[5:, :4] == (0, 0, 255, 255)).all()
    assert not sheet[5:, 5:, 3].any()
    assert not sheet[:, 4, 3].any()


def test_grad_cam_covers_its_image_where_it_is_strong():
    image, heat = np.full((2, 2, 1), 200, np.uint8), np.array([[0.0, 0.0], [0.0, 3.0]])
    overlay = decoded(image_panels.grad_cam(image, heat, largest=3.0))
    assert (overlay[0, 0, :3] == 200).all()
    assert overlay[-1, -1, 2] < 100  # yellow
    assert (decoded(image_panels.grad_cam(image, heat * 0, largest=0.0))[..., :3] == 200).all()


def test_filters_are_white_at_0_red_above_and_blue_below():
    kernels = np.array([0.0, 1.0, -1.0]).reshape(3, 1, 1, 1)
    colours = decoded(image_panels.filters(kernels))[0, ::28, :3].astype(int)
    assert (colours[0] > 240).all()
    assert colours[1, 0] > 2 * colours[1, 2]
    assert colours[2, 2] > 2 * colours[2, 0]


def decoded(address: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))))


HUNDRED = [f"class {number}" for number in range(100)]
FIGURES: dict[str, Callable[[], str]] = {
    "one network, one epoch": lambda: figures.curves(
        frame("model split epoch loss accuracy", ("net", "training", 1, 0.0, 1.0), ("net", "validation", 1, 0.1, 0.9)),
        "loss",
    ),
    "many classes": lambda: figures.confusion(
        frame("model actual predicted count", *(("net", name, name, 1) for name in HUNDRED)), "net", HUNDRED
    ),
    "no errors": lambda: figures.corruptions(frame("model corruption error relative", ("net", "fog", 0.0, np.nan))),
    "an alphabet that Matplotlib's font lacks": lambda: figures.accuracy({"ひらがな": {"accuracy": 0.5}}),
    "eight networks": lambda: figures.shift(
        frame("model shift consistency low high", *((f"net {n}", k, 0.9, 0.8, 0.95) for n in range(8) for k in (1, 2)))
    ),
}


@pytest.mark.parametrize("figure", FIGURES.values(), ids=FIGURES.keys())
def test_figures_of_unusual_data_are_complete(figure: Callable[[], str]):
    svg = figure()
    assert "nan" not in svg
    assert len(svg) < 150_000
    Page(svg)


def test_a_reliability_diagram_excludes_empty_bins():
    table = TABLES["reliability"]
    assert figures.reliability(table, FIRST) == figures.reliability(table[table["count"] > 0], FIRST)
