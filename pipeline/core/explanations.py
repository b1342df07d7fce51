"""Explanations of predictions on disk: written by `evaluate`, drawn by `report`."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.core import atomic


@dataclass(frozen=True)
class FeatureMaps:
    """Feature maps of one image in one block, float32 of shape (height, width, channels), before and after pooling.

    `after` is None where nothing is pooled.
    """

    block: str
    before: np.ndarray
    after: np.ndarray | None


@dataclass(frozen=True)
class GradCam:
    """Grad-CAM of some images: a row of `predictions` (index, label, prediction, confidence) and two maps for each.

    `of_prediction` and `of_label` have the shape (n, height, width): the evidence for the predicted class and for the
    true one.
    """

    predictions: pd.DataFrame
    of_prediction: np.ndarray
    of_label: np.ndarray


@dataclass(frozen=True)
class NetworkExplanations:
    """One network: its most confident mistakes (index, label, prediction, confidence), first filters and maps.

    Without convolutions, `filters` and `grad_cam` are None; without blocks, `maps` is empty.
    """

    mistakes: pd.DataFrame
    filters: np.ndarray | None
    maps: tuple[FeatureMaps, ...]
    grad_cam: GradCam | None


@dataclass(frozen=True)
class Explanations:
    """All networks on the test images.

    `images` has the images that are shown, by index, uint8 of shape (height, width, channels). `example` is the index
    of the image whose feature maps are shown. `disagreements` has the images with different predictions: index, label,
    divergence, then `prediction NAME` and `confidence NAME` of each network.
    """

    images: Mapping[int, np.ndarray]
    classes: tuple[str, ...]
    example: int
    networks: Mapping[str, NetworkExplanations]
    disagreements: pd.DataFrame

    def save(self, path: Path) -> None:
        """Write an .npz file; equal explanations give equal bytes."""
        packed = {name: _packed(network) for name, network in self.networks.items()}
        summary = {
            "classes": self.classes,
            "example": self.example,
            "disagreements": self.disagreements.to_dict("list"),
            "images": sorted(self.images),
            "networks": {name: outline for name, (outline, _) in packed.items()},
        }
        arrays = {f"images/{index}": self.images[index] for index in sorted(self.images)}
        for name, (_, content) in packed.items():
            arrays |= {f"networks/{name}/{key}": array for key, array in content.items()}
        with atomic.file(path) as part, part.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, summary=np.array(json.dumps(summary)), **arrays)

    @classmethod
    def load(cls, path: Path) -> "Explanations":
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
        summary = json.loads(str(arrays["summary"]))
        return cls(
            {index: arrays[f"images/{index}"] for index in summary["images"]},
            tuple(summary["classes"]),
            summary["example"],
            {name: _unpacked(outline, arrays, name) for name, outline in summary["networks"].items()},
            pd.DataFrame(summary["disagreements"]),
        )


def _packed(network: NetworkExplanations) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Tables and the names of blocks as JSON, and the arrays that exist, by name."""
    cam = network.grad_cam
    arrays = {"filters": network.filters}
    for maps in network.maps:
        arrays |= {f"{maps.block}/before": maps.before, f"{maps.block}/after": maps.after}
    if cam:
        arrays |= {"of_prediction": cam.of_prediction, "of_label": cam.of_label}
    outline = {
        "mistakes": network.mistakes.to_dict("list"),
        "blocks": [maps.block for maps in network.maps],
        "grad_cam": cam.predictions.to_dict("list") if cam else None,
    }
    return outline, {key: array for key, array in arrays.items() if array is not None}


def _unpacked(outline: Mapping[str, Any], arrays: Mapping[str, np.ndarray], name: str) -> NetworkExplanations:
    def array(key: str) -> np.ndarray:
        return arrays[f"networks/{name}/{key}"]

    def optional(key: str) -> np.ndarray | None:
        return arrays.get(f"networks/{name}/{key}")

    cam = outline["grad_cam"]
    return NetworkExplanations(
        pd.DataFrame(outline["mistakes"]),
        optional("filters"),
        tuple(FeatureMaps(block, array(f"{block}/before"), optional(f"{block}/after")) for block in outline["blocks"]),
        GradCam(pd.DataFrame(cam), array("of_prediction"), array("of_label")) if cam else None,
    )
