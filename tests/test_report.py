"""The page of the evaluation, built from made-up figures and pictures."""

import base64
import dataclasses
import io
import re
from collections.abc import Callable
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pipeline import look_pictures, report_plots, thumbnails
from pipeline.looking import Explained, Look, Maps, Pictures
from pipeline.report import MISSING, Report

CLASSES = ("cat", "<b>dog</b>", "$owl$")
MODELS = ("net_1", "<i>net</i>")
VOID = {"meta", "link", "img", "br"}


def frame(columns: str, *rows: tuple) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=columns.split())


def look(number: int, channels: int = 1) -> Look:
    rng = np.random.default_rng(number)
    answers = frame("index truth answer confidence", (2, 0, 1, 0.99996), (1, 2, 0, 0.75))
    return Look(
        mistakes=answers,
        filters=rng.normal(size=(4, 3, 3, channels)).astype(np.float32),
        maps=(
            Maps("block1", rng.random((8, 6, 10), np.float32), rng.random((4, 3, 10), np.float32)),
            Maps("block2", rng.random((4, 3, 2), np.float32), None),
        ),
        explained=Explained(answers, rng.random((2, 8, 6), np.float32), np.zeros((2, 8, 6), np.float32)),
    )


def shown(channels: int = 1) -> Pictures:
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 6, channels), dtype=np.uint8)
    names = [f"{column} {name}" for name in MODELS for column in ("answer", "confidence")]
    apart = pd.DataFrame([[3, 1, 0.4, 0, 0.625, 2, 1.0]], columns=["index", "truth", "divergence", *names])
    looks = {name: look(number, channels) for number, name in enumerate(MODELS)}
    return Pictures(images, CLASSES, 0, looks, apart)


def report() -> Report:
    first, second = MODELS
    counts = pd.DataFrame([[7, 1, 0], [0, 8, 2], [0, 0, 9]], columns=CLASSES)
    counts.insert(0, "actual", CLASSES)
    bins = [(model, 0.5, 1.0, 20, 0.93, 0.9) for model in MODELS] + [(first, 0.0, 0.5, 0, np.nan, np.nan)]
    return Report(
        dataset="<em>digits</em>",
        figures={
            first: {
                "accuracy": 0.9876,
                "accuracy_low": 0.9811,
                "accuracy_high": 0.9922,
                "loss": 0.0512,
                "parameters": 421642,
            }
            | {"brier": 0.0213, "top2": 0.9954, "f1": 0.9871, "ece": 0.0117, "run_id": "abc", "own_figure": 1.25},
            second: {"accuracy": 0.9712, "loss": float("nan"), "parameters": 101770, "temperature": 1.375},
        },
        comparisons=frame(
            "a b difference low high p p_adjusted sentence",
            (first, second, 1.64, 0.83, 2.45, 0.0021, 0.0042, f"{first} is better than {second} by 1.64 pp"),
        ),
        replicates=frame("model seeds mean deviation", (first, 5, 0.9865, 0.0012)),
        seed_comparisons=frame(
            "a b difference low high p p_adjusted sentence",
            (first, second, 1.5, -0.25, 3.25, 0.0731, 0.1462, "no difference can be shown over 5 seeds"),
        ),
        reliability=frame("model lower upper count confidence accuracy", *bins),
        per_class=frame(
            "model class precision recall f1 support",
            *(
                (model, name, 0.9123, 0.8765, 0.8941 + number, 1234)
                for number, model in enumerate(MODELS)
                for name in CLASSES
            ),
        ),
        confusion=dict.fromkeys(MODELS, counts),
        cost=frame("model parameters multiply_adds latency_p50_ms", (first, 421642, 4241152, 1.37)),
        corruption=frame(
            "model corruption error relative",
            *((model, name, error, 0.87) for model in MODELS for name, error in (("fog", 0.456), ("shot_noise", 0.0))),
        ),
        corruption_summary=frame("model clean_error mean_error mce worst", (first, 0.0124, 0.1357, 0.91, "glass_blur")),
        shift=frame(
            "model shift consistency low high",
            *((model, k, 0.973 - 0.1 * k, 0.95 - 0.1 * k, 0.99 - 0.1 * k) for model in MODELS for k in (1, 2)),
        ),
        foreign=frame("model against auroc", *((model, "uniform_noise", 0.876) for model in MODELS)),
        curves=frame(
            "model split epoch loss accuracy",
            *(
                (m, split, e, 0.5 / e, 1 - 0.3 / e)
                for m in MODELS
                for split in ("training", "validation")
                for e in (1, 2, 3)
            ),
        ),
        pictures=shown(),
        provenance={"data": "0a1b2c", "versions": {"keras": "3.15.1", "numpy": "2.3"}, "seed": 42},
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
        if self._open and self._open[-1] != "style":
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def values(self, attribute: str) -> list[str]:
        return [value for _, attributes in self.elements if (value := attributes.get(attribute)) is not None]


@pytest.fixture(scope="module")
def text() -> str:
    return report().page()


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


def test_the_page_needs_nothing_from_elsewhere(text: str, page: Page):
    assert "http" not in text
    assert "@import" not in text
    assert not page.all("script")
    for address in page.values("src"):
        assert address.startswith("data:image/")
    for address in page.values("href") + page.values("xlink:href"):
        assert address.startswith(("#", "data:,")), address
    assert all(place.startswith("#") for place in re.findall(r"url\(([^)]*)\)", text))


def test_whatever_is_referred_to_is_there_once(text: str, page: Page):
    places = page.values("id")
    assert len(places) == len(set(places))
    named = {address[1:] for address in page.values("href") + page.values("xlink:href") if address.startswith("#")}
    assert named | set(re.findall(r"url\(#([^)]*)\)", text)) <= set(places)


def test_every_picture_has_a_text_and_every_table_its_heads(page: Page):
    assert len(page.all("img")) > 20
    assert all(picture["alt"] for picture in page.all("img"))
    assert len(page.all("svg")) == 11
    assert all(plot["role"] == "img" and plot["aria-label"] for plot in page.all("svg"))
    assert all(head["scope"] in ("row", "col") for head in page.all("th"))
    assert len(page.all("table")) == len(page.all("caption"))


def test_plots_have_the_colours_of_the_page(text: str):
    drawn = "".join(re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL))
    used = set(re.findall(r"var\(--(\w+)\)", drawn))
    assert {"ink", "soft", "line", "heat", "series1", "series2"} <= used
    assert not re.findall(r"#[0-9a-f]{6}\b(?!\))", re.sub(r'(id|href)="[^"]*"', "", drawn)), "a colour of its own"
    light, dark = text.split("@media (prefers-color-scheme: dark)")[:2]
    for variable in report_plots.VARIABLES.values():
        assert f"--{variable}: #" in light
        assert f"--{variable}: #" in dark


@pytest.mark.parametrize(
    "found",
    [
        *("98.76%", "98.11% to 99.22%", "0.0512", "421,642", "0.0213", "99.54%", "0.9871", "0.0117", "1.375", "1.25"),
        *("is better than <i>net</i> by 1.64 pp", "+1.64", "+0.83 to +2.45", "0.0021", "0.0042"),
        *(
            "98.65%",
            "0.12",
            "no difference can be shown over 5 seeds",
            "-0.25 to +3.25",
            "0.1462",
            "0.9123",
            "0.8765",
            "0.8941",
            "1,234",
            "4,241,152",
            "1.37",
        ),
        *("45.60%", "45.6", "0.87", "87.3% (85.0% to 89.0%)", "0.876", "0a1b2c", "keras: 3.15.1", "42"),
        *("99.99%", "75.00%", "62.50%", "100%", "image 3", "8 x 6", "4 x 3"),
        *(
            "cat",
            "<b>dog</b>",
            "$owl$",
            "<em>digits</em>",
            "shot noise",
            "uniform noise",
            "1.24%",
            "13.57%",
            "0.91",
            "glass blur",
        ),
    ],
)
def test_every_figure_is_on_the_page(page: Page, found: str):
    assert found in page.text


def test_what_is_missing_or_not_a_number_is_a_dash(page: Page):
    assert f"<i>net</i>97.12%{MISSING}{MISSING}{MISSING}{MISSING}101,770" in page.text
    assert "nan" not in page.text


def test_names_cannot_change_the_page(text: str):
    assert not re.findall(r"<b>dog|<i>net|<em>", text)


SECTIONS = {
    "figures": ["results"],
    "comparisons": ["differences"],
    "replicates": ["differences"],
    "seed_comparisons": ["differences"],
    "curves": ["learning"],
    "reliability": ["calibration"],
    "per_class": ["classes"],
    "confusion": ["classes"],
    "pictures": ["failures", "insides"],
    "corruption": ["robustness"],
    "corruption_summary": ["robustness"],
    "shift": ["robustness"],
    "foreign": ["robustness"],
    "cost": ["cost"],
    "provenance": ["provenance"],
}


def sections(page: Page) -> list[str | None]:
    return [attributes["id"] for attributes in page.all("section")]


@pytest.mark.parametrize("part", SECTIONS)
def test_a_part_can_be_there_by_itself(part: str):
    page = Page(Report("digits", **{part: getattr(report(), part)}).page())
    assert sections(page) == SECTIONS[part]
    assert [link["href"] for link in page.all("a")] == [f"#{section}" for section in SECTIONS[part]]


def test_sections_stand_in_the_order_of_reading(page: Page):
    assert sections(page) == list(dict.fromkeys(name for names in SECTIONS.values() for name in names))


def test_without_parts_there_is_a_title():
    assert sections(Page(Report("digits").page())) == []
    assert sections(Page(Report("digits", figures={}, shift=pd.DataFrame(), cost=pd.DataFrame()).page())) == []


def test_equal_input_gives_equal_bytes(text: str, tmp_path):
    report().write(tmp_path / "report.html")
    assert (tmp_path / "report.html").read_bytes() == text.encode()


def test_a_network_that_shows_the_same_as_another_is_shown_once():
    both = dataclasses.replace(shown(), looks={"base": look(1), "tuned": look(1), "other": look(2)})
    found = look_pictures.looks(both)
    assert [each["twin"] for each in found] == [None, "base", None]
    alone = dataclasses.replace(
        report(), pictures=dataclasses.replace(both, disagreements=shown().disagreements.head(0))
    )
    assert "The same as base." in Page(alone.page()).text


def test_networks_without_convolutions_and_colour_images():
    dense = Look(look(0).mistakes.head(0), None, (), None)
    mixed = dataclasses.replace(shown(3), looks={MODELS[0]: dense, MODELS[1]: look(0, 3)})
    page = Page(Report("digits", pictures=mixed).page())
    assert "It has no convolutions." in page.text
    assert "No wrong answer." in page.text


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
    found = decoded(look_pictures.grad_cam(image, heat, largest=3.0))
    assert (found[0, 0, :3] == 200).all()
    assert found[-1, -1, 2] < 100  # yellow
    assert (decoded(look_pictures.grad_cam(image, heat * 0, largest=0.0))[..., :3] == 200).all()


def test_filters_are_white_at_0_red_above_and_blue_below():
    kernels = np.array([0.0, 1.0, -1.0]).reshape(3, 1, 1, 1)
    found = decoded(look_pictures.filters(kernels))[0, ::28, :3].astype(int)
    assert (found[0] > 240).all()
    assert found[1, 0] > 2 * found[1, 2]
    assert found[2, 2] > 2 * found[2, 0]


def decoded(address: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))))


PLOTS: dict[str, Callable[[], str]] = {
    "one network, one epoch": lambda: report_plots.curves(
        frame("model split epoch loss accuracy", ("net", "training", 1, 0.0, 1.0), ("net", "validation", 1, 0.1, 0.9)),
        "loss",
    ),
    "many classes": lambda: report_plots.confusion(
        pd.DataFrame(np.eye(100, dtype=int)).rename(columns=str).assign(actual=[f"class {n}" for n in range(100)]),
        "net",
    ),
    "no errors": lambda: report_plots.corruptions(
        frame("model corruption error relative", ("net", "fog", 0.0, np.nan))
    ),
    "an alphabet that Matplotlib's font lacks": lambda: report_plots.accuracy({"ひらがな": {"accuracy": 0.5}}),
    "eight networks": lambda: report_plots.shift(
        frame("model shift consistency low high", *((f"net {n}", k, 0.9, 0.8, 0.95) for n in range(8) for k in (1, 2)))
    ),
}


@pytest.mark.parametrize("plot", PLOTS.values(), ids=PLOTS.keys())
def test_plots_of_unusual_data_are_whole(plot: Callable[[], str]):
    svg = plot()
    assert "nan" not in svg
    assert len(svg) < 150_000
    Page(svg)


def test_a_reliability_diagram_has_intervals_and_leaves_out_empty_bins():
    low, high = report_plots._wilson(np.array([0.9]), np.array([20.0]))
    assert (low[0], high[0]) == (pytest.approx(0.699, abs=5e-4), pytest.approx(0.972, abs=5e-4))  # by the formula
    table = report().reliability
    assert table is not None
    full = report_plots.reliability(table, MODELS[0])
    assert full == report_plots.reliability(table[table["count"] > 0], MODELS[0])
