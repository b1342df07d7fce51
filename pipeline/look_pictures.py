"""What `looking` found as pictures for a page, in colours that do not depend on telling red from green."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import colormaps

from pipeline import thumbnails

if TYPE_CHECKING:
    from pipeline.looking import Explained, Look, Maps, Pictures

FILTERS = 32  # of the first convolution that are shown
CHANNELS = 8  # feature maps of each block that are shown
COLUMNS = 4
TILE = 56  # pixels a side
FILTER = 24
STRONGEST = 0.65  # opacity of the largest value of a Grad-CAM over the image


def looks(shown: "Pictures") -> list[dict[str, Any]]:
    """For each network the pictures of its mistakes, filters, feature maps and Grad-CAM, or an earlier one like it."""
    seen: dict[str, Look] = {}
    found = []
    for name, look in shown.looks.items():
        twin = next((other for other, known in seen.items() if _equal(known, look)), None)
        found.append({"name": name, "twin": twin} | ({} if twin else _look(look, shown)))
        seen[name] = look
    return found


def disagreements(shown: "Pictures") -> list[dict[str, Any]]:
    """The images that networks answer differently, with the answer of each."""
    return [
        {
            "image": thumbnails.thumbnail(shown.images[row["index"]]),
            "index": row["index"],
            "truth": shown.classes[row["truth"]],
            "answers": [
                (name, shown.classes[row[f"answer {name}"]], _percent(row[f"confidence {name}"]))
                for name in shown.looks
            ],
        }
        for row in shown.disagreements.to_dict("records")
    ]


def filters(kernels: np.ndarray) -> str:
    """Kernels (n, height, width, 1 or 3) on one scale: blue is negative, red positive; three channels as colours."""
    shown = kernels[:FILTERS]
    scaled = shown / max(float(np.abs(shown).max()), 1e-12) / 2 + 0.5
    tiles = colormaps["RdBu_r"](scaled[..., 0])[..., :3] if shown.shape[3] == 1 else scaled
    return thumbnails.sheet(_bytes(tiles), COLUMNS * 2, FILTER)


def feature_maps(maps: "Maps") -> tuple[str, str | None]:
    """The channels that vary most over the image, before and after pooling; a channel has one scale in both."""
    chosen = np.sort(np.argsort(-maps.before.std(axis=(0, 1)), kind="stable")[:CHANNELS])
    both = [values[..., chosen] for values in (maps.before, maps.after) if values is not None]
    low = np.min([values.min(axis=(0, 1)) for values in both], axis=0)
    high = np.max([values.max(axis=(0, 1)) for values in both], axis=0)
    sheets = []
    for values in both:
        scaled = (values - low) / np.maximum(high - low, 1e-12)
        tiles = _bytes(colormaps["viridis"](np.moveaxis(scaled, 2, 0))[..., :3])
        sheets.append(thumbnails.sheet(tiles, COLUMNS, TILE))
    return sheets[0], sheets[1] if len(sheets) > 1 else None


def grad_cam(image: np.ndarray, heat: np.ndarray, largest: float) -> str:
    """A map (height, width) over its image (height, width, 1 or 3), uint8: the stronger, the more it covers."""
    share = heat / max(largest, 1e-12)
    opacity = STRONGEST * share[..., np.newaxis]
    pixels = np.broadcast_to(image / 255, (*image.shape[:2], 3))
    blended = (1 - opacity) * pixels + opacity * colormaps["plasma"](share)[..., :3]
    return thumbnails.sheet(_bytes(blended)[None], 1, TILE)


def _look(look: "Look", shown: "Pictures") -> dict[str, Any]:
    return {
        "mistakes": [_card(row, shown) for row in look.mistakes.to_dict("records")],
        "filters": None if look.filters is None else filters(look.filters),
        "maps": [_block(maps) for maps in look.maps],
        "explained": [] if look.explained is None else _explained(look.explained, shown),
    }


def _card(row: Mapping[Any, Any], shown: "Pictures") -> dict[str, Any]:
    return {
        "image": thumbnails.thumbnail(shown.images[row["index"]]),
        "index": row["index"],
        "truth": shown.classes[row["truth"]],
        "answer": shown.classes[row["answer"]],
        "confidence": _percent(row["confidence"]),
    }


def _block(maps: "Maps") -> dict[str, Any]:
    before, after = feature_maps(maps)
    sizes = [values.shape[:2] for values in (maps.before, maps.after) if values is not None]
    return {"block": maps.block, "before": before, "after": after, "sizes": sizes}


def _explained(explained: "Explained", shown: "Pictures") -> list[dict[str, Any]]:
    """What speaks for the answer and, where that is wrong, what speaks for the truth, on one scale."""
    cards = []
    for place, row in enumerate(explained.answers.to_dict("records")):
        heats = {row["answer"]: explained.of_answer[place], row["truth"]: explained.of_truth[place]}
        largest = max(float(heat.max()) for heat in heats.values())
        image = shown.images[row["index"]]
        overlays = [(shown.classes[label], grad_cam(image, heat, largest)) for label, heat in heats.items()]
        cards.append(_card(row, shown) | {"overlays": overlays})
    return cards


def _percent(share: float) -> str:
    """100% is for a probability of 1 alone."""
    return "100%" if share == 1 else f"{min(share, 0.9999):.2%}"


def _equal(one: "Look", other: "Look") -> bool:
    """A search that found nothing better than its base gives its base once more."""
    first, second = _arrays(one), _arrays(other)
    alike = len(first) == len(second) and all(map(np.array_equal, first, second))
    return alike and one.mistakes.equals(other.mistakes)


def _arrays(look: "Look") -> list[np.ndarray]:
    maps = [values for each in look.maps for values in (each.before, each.after) if values is not None]
    return maps if look.filters is None else [look.filters, *maps]


def _bytes(shares: np.ndarray) -> np.ndarray:
    return np.rint(shares * 255).astype(np.uint8)
