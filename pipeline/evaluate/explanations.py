"""Explanations of predictions: confident mistakes, disagreements, first filters, feature maps, Grad-CAM.

Images are uint8 of shape (n, height, width, channels), classes are numbers.
"""

from collections.abc import Mapping

import keras
import numpy as np
import pandas as pd
from scipy.stats import entropy

from models.inference import PROBABILITIES
from pipeline.core.dataset import Split
from pipeline.core.explanations import Explanations, FeatureMaps, GradCam, NetworkExplanations
from pipeline.runtime.saliency import CONVOLUTIONS, array, gives_maps, grad_cam, outputs, scaled

HEAD = "head"  # begins the names of the layers after the blocks
POOL = "_pool"  # ends the name of a block's pooling, whatever its kind
GALLERY = 12  # images in a gallery
EXPLAINED = 4  # images with right predictions that Grad-CAM explains, and as many with wrong ones


def explain(model: keras.Model, test: Split, probabilities: np.ndarray, example: int) -> NetworkExplanations:
    """Explain one network, given its probabilities (n, classes) for all images and the index of an example."""
    predicted = predictions(probabilities, test.labels)
    wrong = mistakes(predicted)
    chosen = pd.concat([_spread(predicted), wrong.head(EXPLAINED)], ignore_index=True)
    return NetworkExplanations(
        mistakes=wrong.head(GALLERY),
        filters=first_filters(model),
        maps=feature_maps(model, test.images[example]),
        grad_cam=_explained(model, test.images, chosen),
    )


def collect(
    networks: Mapping[str, NetworkExplanations],
    probabilities: Mapping[str, np.ndarray],
    test: Split,
    classes: tuple[str, ...],
    example: int,
) -> Explanations:
    """All networks, with their disagreements and the images that are shown."""
    apart = disagreements(probabilities, test.labels)
    tables = [apart, *(network.mistakes for network in networks.values())]
    tables += [network.grad_cam.predictions for network in networks.values() if network.grad_cam]
    shown = sorted({example, *(int(index) for table in tables for index in table["index"])})
    return Explanations({index: test.images[index] for index in shown}, classes, example, networks, apart)


def middle_example(labels: np.ndarray) -> int:
    """The first image of the class in the middle of those that occur: a 5 among the ten digits."""
    occurring = np.unique(labels)
    return int(np.argmax(labels == occurring[len(occurring) // 2]))


def predictions(probabilities: np.ndarray, labels: np.ndarray) -> pd.DataFrame:
    """index, label, prediction and confidence (the probability of the prediction) of every image."""
    predicted = probabilities.argmax(axis=1)
    return pd.DataFrame(
        {
            "index": np.arange(len(labels)),
            "label": labels,
            "prediction": predicted,
            "confidence": probabilities[np.arange(len(labels)), predicted],
        }
    )


def mistakes(predicted: pd.DataFrame) -> pd.DataFrame:
    """The wrong ones of `predictions`, the most confident first."""
    wrong = predicted[predicted["label"] != predicted["prediction"]]
    return wrong.sort_values("confidence", ascending=False, kind="stable", ignore_index=True)


def disagreements(probabilities: Mapping[str, np.ndarray], labels: np.ndarray, limit: int = GALLERY) -> pd.DataFrame:
    """Images with different predictions, the strongest disagreement first: index, label, divergence, then the
    prediction and the confidence of each network as `prediction NAME` and `confidence NAME`.

    Divergence is the mean Kullback-Leibler divergence, in nats, of the networks' probabilities from their mean.
    McCallum, Nigam: Employing EM and pool-based active learning for text classification, ICML 1998.
    """
    predicted = {name: predictions(each, labels) for name, each in probabilities.items()}
    every = np.stack([table["prediction"] for table in predicted.values()])
    rows = np.flatnonzero((every != every[0]).any(axis=0))
    votes = np.stack([each[rows] for each in probabilities.values()])
    apart = pd.DataFrame(
        {
            "index": rows,
            "label": labels[rows],
            "divergence": entropy(votes, votes.mean(axis=0, keepdims=True), axis=2).mean(axis=0),
            **{
                f"{column} {name}": table[column].to_numpy()[rows]
                for name, table in predicted.items()
                for column in ("prediction", "confidence")
            },
        }
    )
    return apart.sort_values("divergence", ascending=False, kind="stable", ignore_index=True).head(limit)


def first_filters(model: keras.Model) -> np.ndarray | None:
    """Kernels of the first convolution, (filters, height, width, channels); of a separable one, its depthwise kernels
    with one channel each; None without convolutions."""
    first = next((layer for layer in model.layers if isinstance(layer, CONVOLUTIONS)), None)
    if first is None or first.input.shape[-1] != model.input_shape[-1]:  # it does not see the image itself
        return None
    if isinstance(first, keras.layers.SeparableConv2D):
        return np.moveaxis(array(first.depthwise_kernel), 2, 0)
    if isinstance(first, keras.layers.DepthwiseConv2D):  # (height, width, channels, filters of a channel)
        return np.moveaxis(array(first.kernel).reshape(*first.kernel.shape[:2], 1, -1), 3, 0)
    return np.moveaxis(array(first.kernel), 3, 0)


def feature_maps(model: keras.Model, image: np.ndarray) -> tuple[FeatureMaps, ...]:
    """For one image (height, width, channels): input and output of each block's pooling, or what the block's last
    convolution, gate or sum gives where nothing is pooled. None of a network of the user's own code."""
    if model.layers[-1].name == PROBABILITIES:  # it has no blocks
        return ()
    shown: dict[str, list[keras.Layer | None]] = {}
    for before, layer in zip([None, *model.layers], model.layers, strict=False):
        block = layer.name.partition("_")[0]
        if block != HEAD and layer.name.endswith(POOL):
            shown[block] = [before, layer]
        elif gives_maps(layer) and len(shown.get(block, ())) < 2:
            shown[block] = [layer]
    layers = [layer for chosen in shown.values() for layer in chosen]
    values = iter(outputs(model, layers, scaled(image[np.newaxis])) if layers else [])
    maps = {block: [array(next(values))[0] for _ in chosen] for block, chosen in shown.items()}
    return tuple(FeatureMaps(block, each[0], each[1] if len(each) == 2 else None) for block, each in maps.items())


def _explained(model: keras.Model, images: np.ndarray, chosen: pd.DataFrame) -> GradCam | None:
    shown = images[chosen["index"].to_numpy()]
    maps = [grad_cam(model, shown, chosen[column].to_numpy()) for column in ("prediction", "label")]
    of_prediction, of_label = maps
    return None if of_prediction is None or of_label is None else GradCam(chosen, of_prediction, of_label)


def _spread(predicted: pd.DataFrame) -> pd.DataFrame:
    """Right predictions of classes spread over all: the first image of each."""
    firsts = predicted[predicted["label"] == predicted["prediction"]].drop_duplicates("label").sort_values("label")
    return firsts.iloc[np.unique(np.linspace(0, len(firsts) - 1, min(EXPLAINED, len(firsts)), dtype=int))]
