"""What a network sees and where it fails: confident mistakes, disagreements, first filters, feature maps, Grad-CAM.

Images are uint8 of shape (n, height, width, channels), classes are numbers. Nothing is drawn here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any

import keras
import numpy as np
import pandas as pd
import tensorflow as tf
from keras import ops
from scipy.stats import entropy

CONVOLUTIONS = (keras.layers.Conv2D, keras.layers.SeparableConv2D)
POOL = "_pool"  # ends the name of a block's pooling, whatever its kind
GALLERY = 12  # images in a gallery
EXPLAINED = 4  # images explained that were answered rightly, and as many that were not


@dataclass(frozen=True)
class Maps:
    """Feature maps of one image in one block, float32 of shape (height, width, channels), before and after pooling.

    `after` is None where nothing is pooled.
    """

    block: str
    before: np.ndarray
    after: np.ndarray | None


@dataclass(frozen=True)
class Explained:
    """Grad-CAM of some images: a row of `answers` (index, truth, answer, confidence) and a map for each.

    `of_answer` and `of_truth` have the shape (n, height, width): what speaks for the class that was answered, and what
    speaks for the true one.
    """

    answers: pd.DataFrame
    of_answer: np.ndarray
    of_truth: np.ndarray


@dataclass(frozen=True)
class Look:
    """One network. Without convolutions, `filters` and `explained` are None; without blocks, `maps` is empty."""

    mistakes: pd.DataFrame
    filters: np.ndarray | None
    maps: tuple[Maps, ...]
    explained: Explained | None


@dataclass(frozen=True)
class Pictures:
    """All networks on the images of the test; `example` is the index of the image whose feature maps are shown."""

    images: np.ndarray
    classes: tuple[str, ...]
    example: int
    looks: Mapping[str, Look]
    disagreements: pd.DataFrame


def look(model: keras.Model, images: np.ndarray, labels: np.ndarray, probabilities: np.ndarray, example: int) -> Look:
    """Look at one network, given its probabilities (n, classes) for all images."""
    told = answers(probabilities, labels)
    wrong = mistakes(told)
    return Look(
        mistakes=wrong.head(GALLERY),
        filters=first_filters(model),
        maps=feature_maps(model, images[example]),
        explained=_explained(model, images, pd.concat([_spread(told), wrong.head(EXPLAINED)], ignore_index=True)),
    )


def middle_example(labels: np.ndarray) -> int:
    """The first image of the class in the middle of those that occur: a 5 among the ten digits."""
    occurring = np.unique(labels)
    return int(np.argmax(labels == occurring[len(occurring) // 2]))


def answers(probabilities: np.ndarray, labels: np.ndarray) -> pd.DataFrame:
    """index, truth, answer and confidence (the probability of the answer) of every image."""
    answer = probabilities.argmax(axis=1)
    return pd.DataFrame(
        {
            "index": np.arange(len(labels)),
            "truth": labels,
            "answer": answer,
            "confidence": probabilities[np.arange(len(labels)), answer],
        }
    )


def mistakes(told: pd.DataFrame) -> pd.DataFrame:
    """The wrong ones of `answers`, the most confident first."""
    wrong = told[told["truth"] != told["answer"]]
    return wrong.sort_values("confidence", ascending=False, kind="stable", ignore_index=True)


def disagreements(probabilities: Mapping[str, np.ndarray], labels: np.ndarray, limit: int = GALLERY) -> pd.DataFrame:
    """Images that networks answer differently, the strongest disagreement first: index, truth, divergence, then the
    answer and the confidence of each network as `answer NAME` and `confidence NAME`.

    Divergence is the mean Kullback-Leibler divergence, in nats, of the networks' probabilities from their mean.
    McCallum, Nigam: Employing EM and pool-based active learning for text classification, ICML 1998.
    """
    told = {name: answers(each, labels) for name, each in probabilities.items()}
    every = np.stack([table["answer"] for table in told.values()])
    rows = np.flatnonzero((every != every[0]).any(axis=0))
    voices = np.stack([each[rows] for each in probabilities.values()])
    found = pd.DataFrame(
        {
            "index": rows,
            "truth": labels[rows],
            "divergence": entropy(voices, voices.mean(axis=0, keepdims=True), axis=2).mean(axis=0),
            **{
                f"{column} {name}": table[column].to_numpy()[rows]
                for name, table in told.items()
                for column in ("answer", "confidence")
            },
        }
    )
    return found.sort_values("divergence", ascending=False, kind="stable", ignore_index=True).head(limit)


def first_filters(model: keras.Model) -> np.ndarray | None:
    """Kernels of the first convolution, (filters, height, width, channels); of a separable one, its depthwise kernels
    with one channel each; None without convolutions."""
    first = next((layer for layer in model.layers if isinstance(layer, CONVOLUTIONS)), None)
    if first is None:
        return None
    if isinstance(first, keras.layers.SeparableConv2D):
        return np.moveaxis(_array(first.depthwise_kernel), 2, 0)
    return np.moveaxis(_array(first.kernel), 3, 0)


def feature_maps(model: keras.Model, image: np.ndarray) -> tuple[Maps, ...]:
    """Of one image (height, width, channels): what enters and leaves the pooling of each block, or what its last
    convolution gives on where nothing is pooled."""
    found: dict[str, Maps] = {}
    values = _scaled(image[np.newaxis])
    for layer in model.layers:
        entering, values = values, layer(values, training=False)
        if len(values.shape) != 4:
            break
        block = layer.name.partition("_")[0]
        if layer.name.endswith(POOL):
            found[block] = Maps(block, _array(entering)[0], _array(values)[0])
        elif isinstance(layer, CONVOLUTIONS):
            found[block] = Maps(block, _array(values)[0], None)
    return tuple(found.values())


def grad_cam(model: keras.Model, images: np.ndarray, classes: np.ndarray) -> np.ndarray | None:
    """Where the last convolution finds what speaks for a class: float32 (n, height, width) of at least 0.

    ReLU(sum_k alpha_k A_k), with A_k the feature maps of the last convolution and alpha_k the mean over the positions
    of the derivative of the class's logit by A_k; brought to the size of the image by linear interpolation. Selvaraju
    et al.: Grad-CAM: visual explanations from deep networks via gradient-based localization, arXiv 1610.02391.

    Args:
        classes: one class for each image, (n,).

    Returns:
        None for a network without convolutions.
    """
    places = [place for place, layer in enumerate(model.layers) if isinstance(layer, CONVOLUTIONS)]
    if not places:
        return None
    until, output = places[-1] + 1, model.layers[-1]
    maps = _through(model.layers[:until], _scaled(images))
    with tf.GradientTape() as tape:
        tape.watch(maps)
        vector = ops.cast(_through(model.layers[until:-1], maps), "float32")
        logits = ops.matmul(vector, output.kernel) + output.bias  # the layer itself may end in softmax
        chosen = ops.sum(logits * ops.one_hot(classes, logits.shape[-1]), axis=1)
    weights = ops.mean(ops.cast(tape.gradient(chosen, maps), "float32"), axis=(1, 2), keepdims=True)
    found = ops.relu(ops.sum(weights * ops.cast(maps, "float32"), axis=-1, keepdims=True))
    return _array(ops.image.resize(found, images.shape[1:3], interpolation="bilinear"))[..., 0]


def _explained(model: keras.Model, images: np.ndarray, chosen: pd.DataFrame) -> Explained | None:
    shown = images[chosen["index"].to_numpy()]
    of_answer, of_truth = (grad_cam(model, shown, chosen[column].to_numpy()) for column in ("answer", "truth"))
    return None if of_answer is None or of_truth is None else Explained(chosen, of_answer, of_truth)


def _spread(told: pd.DataFrame) -> pd.DataFrame:
    """Right answers of classes spread over all: the first image of each."""
    firsts = told[told["truth"] == told["answer"]].drop_duplicates("truth").sort_values("truth")
    return firsts.iloc[np.unique(np.linspace(0, len(firsts) - 1, min(EXPLAINED, len(firsts)), dtype=int))]


def _through(layers: list[keras.Layer], values: Any) -> Any:
    return reduce(lambda entering, layer: layer(entering, training=False), layers, values)


def _scaled(images: np.ndarray) -> Any:
    return ops.convert_to_tensor(images.astype(np.float32) / 255)


def _array(values: Any) -> np.ndarray:
    return ops.convert_to_numpy(ops.cast(values, "float32"))
