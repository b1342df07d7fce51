"""Images of the report: errors, filters, feature maps and Grad-CAM, in colour maps safe for the colour-blind."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps

from pipeline.core.explanations import Explanations, FeatureMaps, GradCam, NetworkExplanations
from pipeline.html import thumbnails

FILTERS = 32  # shown of the first convolution
CHANNELS = 8  # feature maps shown of each block
COLUMNS = 4
TILE = 56  # pixels a side
FILTER = 24
STRONGEST = 0.65  # opacity of the largest value of a Grad-CAM over the image


def networks(found: Explanations, order: Sequence[str]) -> list[dict[str, Any]]:
    """The images of each network in the order given, or the name of an earlier one with equal images: `twin`."""
    seen: dict[str, NetworkExplanations] = {}
    panels = []
    for name in order:
        network = found.networks[name]
        # A search without improvement returns its base.
        twin = next((other for other, known in seen.items() if _equal(known, network)), None)
        panels.append({"name": name, "twin": twin} | ({} if twin else _network(network, found)))
        seen[name] = network
    return panels


def disagreements(found: Explanations, order: Sequence[str]) -> list[dict[str, Any]]:
    """The images with different predictions: the classes predicted, each with the networks that predict it."""
    return [
        {
            "image": thumbnails.thumbnail(found.images[row["index"]]),
            "index": row["index"],
            "label": found.classes[row["label"]],
            "predictions": _votes(row, found.classes, order),
        }
        for row in found.disagreements.to_dict("records")
    ]


def filters(kernels: np.ndarray) -> str:
    """Kernels (n, height, width, 1 or 3) on one scale: negative blue, positive red; three channels as RGB."""
    shown = kernels[:FILTERS]
    scaled = shown / max(float(np.abs(shown).max()), 1e-12) / 2 + 0.5
    tiles = colormaps["RdBu_r"](scaled[..., 0])[..., :3] if shown.shape[3] == 1 else scaled
    return thumbnails.sheet(_bytes(tiles), COLUMNS * 2, FILTER)


def feature_maps(maps: FeatureMaps) -> tuple[str, str | None]:
    """The channels with the largest variation over the image, before and after pooling on one scale per channel."""
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
    """A map (height, width) over its image (height, width, 1 or 3), uint8; its opacity grows with its value."""
    share = heat / max(largest, 1e-12)
    opacity = STRONGEST * share[..., np.newaxis]
    pixels = np.broadcast_to(image / 255, (*image.shape[:2], 3))
    blended = (1 - opacity) * pixels + opacity * colormaps["plasma"](share)[..., :3]
    return thumbnails.sheet(_bytes(blended)[None], 1, TILE)


def _network(network: NetworkExplanations, found: Explanations) -> dict[str, Any]:
    return {
        "mistakes": [_card(row, found) for row in network.mistakes.to_dict("records")],
        "filters": None if network.filters is None else filters(network.filters),
        "maps": [_block(maps) for maps in network.maps],
        "grad_cam": [] if network.grad_cam is None else _grad_cams(network.grad_cam, found),
    }


def _votes(
    row: Mapping[Any, Any], classes: tuple[str, ...], order: Sequence[str]
) -> list[tuple[str, list[tuple[str, str]]]]:
    """Predicted class -> networks and confidences, the class of most networks first."""
    votes: dict[str, list[tuple[str, str]]] = {}
    for name in order:
        votes.setdefault(classes[row[f"prediction {name}"]], []).append((name, _percent(row[f"confidence {name}"])))
    return sorted(votes.items(), key=lambda vote: -len(vote[1]))


def _card(row: Mapping[Any, Any], found: Explanations) -> dict[str, Any]:
    return {
        "image": thumbnails.thumbnail(found.images[row["index"]]),
        "index": row["index"],
        "label": found.classes[row["label"]],
        "prediction": found.classes[row["prediction"]],
        "confidence": _percent(row["confidence"]),
    }


def _block(maps: FeatureMaps) -> dict[str, Any]:
    before, after = feature_maps(maps)
    sizes = [values.shape[:2] for values in (maps.before, maps.after) if values is not None]
    return {"block": maps.block, "before": before, "after": after, "sizes": sizes}


def _grad_cams(explained: GradCam, found: Explanations) -> list[dict[str, Any]]:
    """The maps of the predicted and, where it differs, the actual class, on one scale."""
    cards = []
    for place, row in enumerate(explained.predictions.to_dict("records")):
        heats = {row["prediction"]: explained.of_prediction[place], row["label"]: explained.of_label[place]}
        largest = max(float(heat.max()) for heat in heats.values())
        image = found.images[row["index"]]
        overlays = [(found.classes[label], grad_cam(image, heat, largest)) for label, heat in heats.items()]
        cards.append(_card(row, found) | {"overlays": overlays})
    return cards


def _percent(share: float) -> str:
    """Only a probability of 1 is 100%."""
    return "100%" if share == 1 else f"{min(share, 0.9999):.2%}"


def _equal(one: NetworkExplanations, other: NetworkExplanations) -> bool:
    first, second = _arrays(one), _arrays(other)
    equal = len(first) == len(second) and all(map(np.array_equal, first, second))
    return equal and one.mistakes.equals(other.mistakes)


def _arrays(network: NetworkExplanations) -> list[np.ndarray]:
    maps = [values for each in network.maps for values in (each.before, each.after) if values is not None]
    return maps if network.filters is None else [network.filters, *maps]


def _bytes(shares: np.ndarray) -> np.ndarray:
    return np.rint(shares * 255).astype(np.uint8)
