"""The page of the report, rendered from stored tables of made-up results."""

import base64
import dataclasses
import io
import re
import shutil
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pipeline.core import config
from pipeline.core.config import Params
from pipeline.core.explanations import NetworkExplanations
from pipeline.core.paths import Paths
from pipeline.html import thumbnails
from pipeline.report import (
    comparison,
    figures,
    image_panels,
    markdown,
    network_effects,
    ranking,
    results,
    search_figures,
    svg,
    tables,
)
from pipeline.report.page import page
from pipeline.report.results import Results
from pipeline.report.tables import MISSING
from tests.conftest import ROOT
from tests.stored_results import CLASSES, FIRST, SECOND, TABLES, explained, explanations, frame, store

VOID = {"meta", "link", "img", "br"}
VOTE = ("prediction", "confidence")
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def params() -> Params:
    return config.load(Paths(ROOT))


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory, params: Params) -> Results:
    paths = Paths(tmp_path_factory.mktemp("stored"))
    store(paths, params)
    return results.load(paths, params.dimensions)


def crowd(found: Results, count: int) -> Results:
    """The results of many networks, `net 0` the best, each a copy of the first one but for its accuracy."""
    names = [f"net {number}" for number in range(count)]
    networks = {name: found.networks[FIRST].model_copy(update={"name": name}) for name in names}
    metrics = {name: {**found.metrics[FIRST], "accuracy": 0.99 - k / 1000} for k, name in enumerate(names)}
    copied = {
        key: pd.concat([table[table["model"] == FIRST].assign(model=name) for name in names], ignore_index=True)
        for key, table in {**found.tables, "curves": found.curves}.items()
        if "model" in table and key not in results.TABLES_OF_SEEDS
    }
    rows = [
        (
            "x",
            a,
            b,
            9,
            3,
            (i, j) == (0, 1),
            (j - i) / 10,
            (j - i) / 10 - 1,
            (j - i) / 10 + 1,
            0.01,
            1 / (1 + (j - i) ** 3),
        )
        for i, a in enumerate(names)
        for j, b in enumerate(names)
        if i < j
    ]
    baselines = found.tables["baseline_comparisons"]
    copied["comparisons"] = frame("pair a b only_a only_b same difference low high p p_adjusted", *rows)
    copied["baselines"] = found.tables["baselines"]
    copied["baseline_comparisons"] = pd.concat([baselines[baselines["a"] == FIRST].assign(a=name) for name in names])
    curves = copied.pop("curves")
    made = explanations()
    votes = {f"{column} {name}": made.disagreements[f"{column} {FIRST}"] for name in names for column in VOTE}
    votes["prediction net 7"] = made.disagreements[f"prediction {SECOND}"]
    explained_all = dataclasses.replace(
        made,
        networks={name: explained(number) for number, name in enumerate(names)},
        disagreements=made.disagreements[["index", "label", "divergence"]].assign(**votes),
    )
    accuracies = pd.DataFrame({"accuracy": {name: row["accuracy"] for name, row in metrics.items()}})
    return dataclasses.replace(
        found,
        networks=networks,
        metrics=metrics,
        tables=copied,
        curves=curves,
        explanations=explained_all,
        ranking=ranking.rank(networks, metrics, copied, 1000, None),
        effects=network_effects.analyze(networks, accuracies),
        search=None,
        search_record=None,
    )


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
        if self._open and self._open[-1] not in ("style", "script"):
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def elements_with(self, attribute: str, value: str) -> list[dict[str, str | None]]:
        return [attributes for _, attributes in self.elements if attributes.get(attribute) == value]

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
    assert html.all("script") == [{}]
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
    assert len(html.all("svg")) == 10
    assert all(figure["role"] == "img" and figure["aria-label"] for figure in html.all("svg"))
    assert all(head["scope"] in ("row", "col") for head in html.all("th"))
    regions = [each["aria-label"] for each in html.elements_with("role", "region")]
    assert len(html.all("table")) == len(html.all("caption")) == len(regions) == len(set(regions))
    assert all(each["tabindex"] == "0" for each in html.elements_with("role", "region"))


def test_figures_have_the_colours_of_the_page(text: str):
    drawn = "".join(re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL))
    used = set(re.findall(r"var\(--(\w+)\)", drawn))
    assert {"ink", "soft", "line", "series1", "series2"} <= used
    assert not re.findall(r"#[0-9a-f]{6}\b(?!\))", re.sub(r'(id|href)="[^"]*"', "", drawn)), "a colour of its own"
    light, dark = text.split("@media (prefers-color-scheme: dark)")[:2]
    for variable in svg.VARIABLES.values():
        assert f"--{variable}: #" in light
        assert f"--{variable}: #" in dark


@pytest.mark.parametrize(
    "shown",
    [
        *("best: net_1 (98.65 %, 3 seeds)", "within noise: <i>net", "3 seeds are few", "98.65 % (98.35 to 98.95)"),
        *("98.76%", "98.11%", "0.0512", "421,642", "0.0213", "99.54%", "0.9871", "0.0117", "1.375", "1.25"),
        *("no difference can be shown between net_1 and <i>net", "+1.64", "+0.83 to +2.45", "0.004"),
        *("simultaneous 95 % interval, pp", "majority class", "91.75 %", "is better than linear classifier by 7.01 pp"),
        *("98.65%", "0.12", "-0.25 to +3.25", "0.146", "(1,234 images)", "4,241,152", "1.37"),
        *("0.9123", "0.8765", "0.8941", "45.6", "0.87", "87.3% (85.0% to 89.0%)", "0.876", "0a1b"),
        *("99.99%", "75.00%", "62.50%", "100%", "image 3", "8 x 6", "4 x 3"),
        *("cat", "<b>dog</b>", "$owl$", "<em>digits", "shot noise", "uniform noise", "1.24%", "13.57%", "0.91"),
        *("glass blur", "c0ffee, with changes", "a processor, float32", "3,600 train, 1,000 test", "12 trials"),
        *("share of variance", "head.dropout", "blocks.2.dropout+0.1", "not shown"),
    ],
)
def test_results_are_on_the_page(html: Page, shown: str):
    assert shown in html.text


def test_a_missing_value_is_a_dash(html: Page):
    assert f"F1 (macro)0.9871{MISSING}" in html.text
    assert not re.search(r"\bnan\b", html.text)


def test_names_are_escaped(text: str):
    assert not re.findall(r"<b>dog|<i>net|<em>", text)


def test_every_section_is_linked_in_order(html: Page):
    sections = ["ranking", *(each["id"] for each in html.elements_with("class", "content"))]
    links = [f"#{section}" for section in sections]
    assert [link["href"] for link in html.all("a")] == 2 * links  # beside the page, and above it on a phone
    assert (sections[1], sections[-1], len(sections)) == ("comparison", "provenance", 11)


def test_seeds_shifts_and_the_search_are_optional(found: Results):
    kept = {name: table for name, table in found.tables.items() if name not in results.TABLES_OF_SEEDS}
    kept["shift"] = TABLES["shift"].head(0)
    ranked = ranking.rank(found.networks, found.metrics, kept, 1000)
    one = dataclasses.replace(found, tables=kept, ranking=ranked, search=None, search_record=None)
    text = Page(page(one)).text
    assert "best: net_1 (98.76 %, one seed)" in text
    assert "over seeds" not in text
    assert "Shifted images" not in text
    assert "No search: tune is null in params.yaml." in text
    assert "over seeds" not in markdown.comparison(one)


def test_a_single_network_has_no_pairs(found: Results):
    text = Page(page(crowd(found, 1))).text
    assert "best: net 0" in text
    assert "Table of pairs" not in text
    assert "Differences from the best network" not in text


def test_equal_differences_over_seeds_have_no_interval(found: Results):
    table = TABLES["seed_comparisons"].assign(low=np.nan, high=np.nan)
    kept = {**found.tables, "seed_comparisons": table}
    ranked = ranking.rank(found.networks, found.metrics, kept, 1000)
    shown = page(dataclasses.replace(found, tables=kept, ranking=ranked))
    assert f"+1.50{MISSING}0.0730.146" in Page(shown).text
    assert not re.search(r"\bnan\b", shown)


def test_the_ranked_table_marks_the_groups_and_scales_the_intervals(found: Results):
    shown = comparison.ranked(found.ranking)
    best, other = shown["networks"]
    assert (best["group"], best["sign"], other["group"], other["sign"]) == ("best", "★", "within noise", "≈")
    assert (other["left"], round(best["left"] + best["width"])) == (0.0, 100)
    assert best["left"] < best["dot"] < best["left"] + best["width"]
    assert shown["head"][:5] == ["pooling", "dropout", "parameters", "multiply-adds", "latency, ms"]
    assert len(shown["head"]) <= 7


def test_many_networks_have_a_matrix_and_the_differences_from_the_best(found: Results):
    nine = crowd(found, 9)
    shown = comparison.compared(nine, svg.looks(nine.ranking.table["name"].tolist()))
    assert shown["sentences"] is None
    rows = {name: dict(zip(shown["names"], cells, strict=True)) for name, cells in shown["matrix"]}
    assert list(rows) == shown["names"] == [f"net {number}" for number in range(9)]
    assert rows["net 0"]["net 0"].text == ""
    assert rows["net 0"]["net 1"].text == "="  # the same predictions
    better, worse = rows["net 2"]["net 8"], rows["net 8"]["net 2"]
    assert (better.text, better.significant, worse.text, worse.significant) == ("+0.60", True, "-0.60", True)
    assert better.shade == -worse.shade > 0
    assert worse.title == "net 8 - net 2: -0.60 pp (-1.60 to +0.40), adjusted p 0.005"
    assert not rows["net 2"]["net 3"].significant
    assert shown["figure"].count(">net ") == 8
    html = Page(page(nine))
    assert "+0.60*" in html.text
    assert "cat: 8 networks$owl$: 1 network" in html.text  # of the image on which they disagree
    assert html.text.count("5 more networks") == 2


def test_a_network_looks_the_same_in_all_figures_and_dashes_are_training(found: Results):
    looks = svg.looks([FIRST, SECOND])
    assert len({look.colour for look in svg.looks("abcdefgh").values()}) == 8
    many = svg.looks("abcdefghi")
    assert [look.distinct for look in many.values()] == [True] * 5 + [False] * 4
    assert "4 others" in figures.shift(crowd(found, 9).tables["shift"], svg.looks([f"net {n}" for n in range(9)]))
    curves, shift = figures.curves(found.curves, "loss", looks), figures.shift(found.tables["shift"], looks)
    assert curves.count("stroke-dasharray") == len(looks)
    assert "stroke-dasharray" not in shift
    for drawn in (curves, shift):
        for name, look in looks.items():
            lines = re.findall(rf"<title>{re.escape(html_text(name))}</title>(.*?)</g>", drawn, flags=re.DOTALL)
            assert lines
            assert all(f"var(--{svg.VARIABLES[look.colour]})" in line for line in lines)


def test_the_best_value_so_far_is_that_of_full_trials(found: Results):
    assert found.search
    assert "best so far" in str(search_figures.progress(found.search))
    nothing = dataclasses.replace(found.search, trials=found.search.trials.assign(basis="unused"))
    assert search_figures.progress(nothing) is None


def test_tables_run_along_their_longer_side():
    values = frame("model class value", *((name, kind, 1.0) for name in "abc" for kind in ("x", "y")))
    cells = [f"{name}{kind}" for name in "abc" for kind in "xy"]
    long = tables.crossed("", values, "class", cells, shaded="value")
    assert (long.head, long.rows[2]) == (("network", "x", "y"), ["c", "cx", "cy"])
    assert long.shades == [[tables.DARKEST] * 2] * 3
    assert tables.crossed("", values.head(2), "class", cells[:2]).rows == [["x", "ax"], ["y", "ay"]]


def test_confusion_of_many_classes_is_a_list_of_errors():
    few = tables.confusion(TABLES["confusion"], FIRST, CLASSES)
    assert (few.rows[0], few.shades) == (["cat", "7", "1", "1"], [[0, 70, 70], [70, 0, 70], [70, 70, 0]])
    hundred = [f"class {number}" for number in range(100)]
    counts = [("net", name, name, 9) for name in hundred] + [("net", "class 3", "class 5", 1)]
    many = tables.confusion(frame("model actual predicted count", *counts), "net", hundred)
    assert many.rows == [["class 3", "class 5", "1", "10.0%"]]
    assert many.shades is None


@pytest.mark.skipif(not BROWSER, reason="needs Chromium")
def test_tables_are_sorted_and_filtered_in_a_browser(text: str, tmp_path: Path):
    script = """
        const tables = [...document.querySelectorAll("table")];
        const table = tables.find(each => each.caption.textContent === "F1 by class");
        const [head] = table.tHead.rows[0].cells, states = [];
        for (let k = 0; k < 3; k++) {
          head.querySelector("button").click();
          states.push(head.ariaSort + " " + [...table.tBodies[0].rows].map(row => row.textContent[0]).join(""));
        }
        const input = document.querySelector("details:has(#comparison) input");
        input.value = "top-2";
        input.dispatchEvent(new Event("input"));
        const rows = input.closest("details").querySelectorAll("tbody tr:not([hidden]) th");
        states.push([...rows].map(each => each.textContent));
        document.body.textContent = `|${states.join("|")}|`;
    """
    (tmp_path / "page.html").write_text(text.replace("</body>", f"<script>{script}</script></body>"), encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
    done = subprocess.run([str(BROWSER), *options, f"file://{tmp_path}/page.html"], capture_output=True, text=True)
    states = done.stdout.partition("<body>")[2].split("|")[1:-1]
    assert states[:3] == ["ascending &lt;$c", "descending c$&lt;", "null c&lt;$"]
    assert states[3] == "top-2 accuracy"


def test_a_network_with_the_images_of_another_is_shown_once(found: Results):
    both = dataclasses.replace(
        explanations(),
        networks={"base": explained(1), "tuned": explained(1), "other": explained(2)},
        disagreements=explanations().disagreements.head(0),
    )
    assert [each["twin"] for each in image_panels.networks(both, [*both.networks])] == [None, "base", None]
    twins = dataclasses.replace(both, networks={FIRST: explained(1), SECOND: explained(1)})
    assert f"Same as {FIRST}." in Page(page(dataclasses.replace(found, explanations=twins))).text


def test_networks_without_convolutions_and_colour_images(found: Results):
    dense = NetworkExplanations(explained(0).mistakes.head(0), None, (), None)
    mixed = dataclasses.replace(explanations(3), networks={FIRST: dense, SECOND: explained(0, 3)})
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


def html_text(name: str) -> str:
    return name.replace("<", "&lt;").replace(">", "&gt;")


def decoded(address: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))))


LOOKS = svg.looks([f"net {number}" for number in range(8)])
FIGURES: dict[str, Callable[[], str]] = {
    "one network, one epoch": lambda: figures.curves(
        frame("model split epoch loss accuracy", ("net", "training", 1, 0.0, 1.0), ("net", "validation", 1, 0.1, 0.9)),
        "loss",
        svg.looks(["net"]),
    ),
    "an alphabet that Matplotlib's font lacks": lambda: figures.differences(
        frame("network difference low high", ("ひらがな", 0.5, np.nan, np.nan)), svg.looks(["ひらがな"]), "title"
    ),
    "eight networks": lambda: figures.shift(
        frame("model shift consistency low high", *((name, k, 0.9, 0.8, 0.95) for name in LOOKS for k in (1, 2))), LOOKS
    ),
}


@pytest.mark.parametrize("figure", FIGURES.values(), ids=FIGURES.keys())
def test_figures_of_unusual_data_are_complete(figure: Callable[[], str]):
    svg = figure()
    assert "nan" not in svg
    assert len(svg) < 150_000
    Page(svg)


def test_a_reliability_diagram_excludes_empty_bins(html: Page):
    assert len(html.elements_with("class", "diagram")) == 2
    assert [(dot["cx"], dot["cy"]) for dot in html.all("circle")] == [("93.0", "10.0")] * 2
