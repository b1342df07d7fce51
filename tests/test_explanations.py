"""Explanations, against cases worked by hand and against Keras's own models; and their file."""

import json
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from keras.layers import Conv2D, Dense, GlobalAveragePooling2D, MaxPooling2D

from models import cnn
from models.spec import Network
from pipeline.core.dataset import Split
from pipeline.core.explanations import Explanations
from pipeline.evaluate import explanations

PROBABILITIES = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.6, 0.3, 0.1], [0.5, 0.25, 0.25], [0.05, 0.05, 0.9]])
LABELS = np.array([0, 1, 1, 2, 0])  # right, right, and three mistakes, the last one the most confident


def network(*blocks: dict, image: tuple[int, int, int] = (12, 12, 1), precision: str = "float32", **head: object):
    keras.utils.set_random_seed(3)
    spec = Network.model_validate_json(json.dumps({"blocks": blocks, "head": head}))
    return cnn.build(spec, image, 3, precision)


def images(count: int, image: tuple[int, int, int] = (12, 12, 1)) -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (count, *image), dtype=np.uint8)


def test_mistakes_are_sorted_by_confidence():
    found = explanations.mistakes(explanations.predictions(PROBABILITIES, LABELS))
    assert found.to_dict("list") == {
        "index": [4, 2, 3],
        "label": [0, 1, 2],
        "prediction": [2, 0, 0],
        "confidence": [0.9, 0.6, 0.5],
    }


def test_disagreements_are_images_with_different_predictions_the_strongest_first():
    other = PROBABILITIES.copy()
    other[0] = [0.9, 0.1, 0.0]  # another confidence, the same prediction
    other[2] = [0.3, 0.6, 0.1]
    other[4] = [0.9, 0.05, 0.05]
    found = explanations.disagreements({"a": PROBABILITIES, "b": other}, LABELS)
    assert found["index"].tolist() == [4, 2]
    assert found["prediction a"].tolist() == [2, 0]
    assert found["prediction b"].tolist() == [0, 1]
    assert found["confidence b"].tolist() == [0.9, 0.6]
    # Both are (0.9, 0.05) against a mean of 0.475, and equal in the third class.
    assert found["divergence"][0] == pytest.approx(0.9 * np.log(0.9 / 0.475) + 0.05 * np.log(0.05 / 0.475))
    assert explanations.disagreements({"a": PROBABILITIES, "b": other}, LABELS, limit=1)["index"].tolist() == [4]
    assert explanations.disagreements({"a": PROBABILITIES, "b": PROBABILITIES}, LABELS).empty


def test_example_is_of_the_class_in_the_middle():
    assert explanations.middle_example(np.array([9, 0, 5, 5, 7, 2])) == 2


@pytest.mark.parametrize("activation", ["softmax", "linear"])
def test_grad_cam_of_a_worked_example(activation: str):
    """The last convolution gives 2x and -1x of its input x, 2 x 2 positions; logits are means times a matrix, so each
    weight is that matrix over 4."""
    model = keras.Sequential(
        [
            keras.Input((4, 4, 1)),
            Conv2D(1, 1),
            MaxPooling2D(),
            Conv2D(2, 1),
            GlobalAveragePooling2D(),
            Dense(2, activation=activation),
        ]
    )
    matrix = np.array([[3.0, -3.0], [1.0, 1.0]])
    model.layers[0].set_weights([np.ones((1, 1, 1, 1)), np.zeros(1)])
    model.layers[2].set_weights([np.array([2.0, -1.0]).reshape(1, 1, 1, 2), np.zeros(2)])
    model.layers[4].set_weights([matrix, np.array([0.5, 0.0])])
    pixels = np.repeat(images(1, (4, 4, 1)), 2, axis=0)
    found = explanations.grad_cam(model, pixels, np.array([0, 1]))
    assert found is not None
    x = pixels[0, ..., 0].reshape(2, 2, 2, 2).max(axis=(1, 3)) / 255
    between = np.array([[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]])  # from 2 positions to 4
    np.testing.assert_allclose(found[0], between @ ((2 * 3 - 1 * 1) / 4 * x) @ between.T, rtol=1e-5)  # class 0
    assert not found[1].any()  # class 1: (2 * -3 - 1 * 1) / 4 is evidence against it everywhere


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_grad_cam_has_the_size_of_the_image_and_is_not_negative(precision: str):
    image = (13, 18, 3)
    blocks = {"filters": [4], "dropout": 0.5}, {"filters": [6, 5], "batch_norm": True}
    model = network(*blocks, image=image, precision=precision, dense=[7], dropout=0.5)
    pixels = images(3, image)
    found = explanations.grad_cam(model, pixels, np.array([0, 1, 2]))
    assert found is not None
    assert found.shape == (3, 13, 18)
    assert found.dtype == np.float32
    assert found.min() >= 0
    assert found.max() > 0
    again = explanations.grad_cam(model, pixels, np.array([0, 1, 2]))
    np.testing.assert_array_equal(found, again)


BLOCKS = {
    "max": {"filters": [4]},
    "none": {"filters": [4], "pooling": {"kind": "none"}},
    "strided": {"filters": [4], "pooling": {"kind": "strided"}},
    "fractional": {"filters": [4], "pooling": {"kind": "fractional_max"}},
    "stochastic": {"filters": [4], "pooling": {"kind": "stochastic"}},
    "separable": {"filters": [4, 5], "convolution": "separable"},
    "pooling alone": {"filters": []},
}


@pytest.mark.parametrize("block", BLOCKS.values(), ids=BLOCKS.keys())
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_feature_maps_are_the_outputs_of_the_truncated_model(block: dict, precision: str):
    image = (12, 10, 3)
    model = network(
        {"filters": [3], "dropout": 0.5, "batch_norm": True}, block, image=image, precision=precision, dense=[4]
    )
    pixels = images(1, image)
    maps = explanations.feature_maps(model, pixels[0])
    assert [each.block for each in maps] == ["block1", "block2"]

    def cut(name: str) -> np.ndarray:
        part = keras.Model(model.inputs[0], model.get_layer(name).output)
        return keras.ops.convert_to_numpy(keras.ops.cast(part(pixels.astype(np.float32) / 255), "float32"))[0]

    names = [layer.name for layer in model.layers]
    last = maps[1]
    if "block2_pool" in names:
        np.testing.assert_array_equal(last.after, cut("block2_pool"))
        np.testing.assert_array_equal(last.before, cut(names[names.index("block2_pool") - 1]))
    else:
        assert last.after is None
        np.testing.assert_array_equal(last.before, cut("block2_conv1"))
    np.testing.assert_array_equal(maps[0].before, cut("block1_conv1"))
    assert last.before.dtype == np.float32


def test_first_filters_are_the_kernels():
    model = network({"filters": [5]}, {"filters": [2]}, image=(12, 12, 3))
    found = explanations.first_filters(model)
    assert found is not None
    assert found.shape == (5, 3, 3, 3)
    np.testing.assert_array_equal(found[4], model.layers[0].get_weights()[0][..., 4])
    separable = explanations.first_filters(network({"filters": [5], "convolution": "separable"}, image=(12, 12, 3)))
    assert separable is not None
    assert separable.shape == (3, 3, 3, 1)


@pytest.mark.parametrize("output", ["softmax", "logits"])
def test_explanations_of_a_network(output: str):
    model = network({"filters": [4]}, output=output)
    found = explanations.explain(model, Split(images(5), LABELS), PROBABILITIES, example=1)
    assert found.mistakes["index"].tolist() == [4, 2, 3]
    assert found.grad_cam is not None
    assert found.grad_cam.predictions["index"].tolist() == [0, 1, 4, 2, 3]  # the right ones, then the mistakes
    assert found.grad_cam.of_prediction.shape == found.grad_cam.of_label.shape == (5, 12, 12)
    np.testing.assert_array_equal(found.grad_cam.of_prediction[:2], found.grad_cam.of_label[:2])
    expected = explanations.grad_cam(model, images(5)[[4]], np.array([0]))
    assert expected is not None
    np.testing.assert_allclose(found.grad_cam.of_label[2], expected[0], rtol=1e-4, atol=1e-7)


def test_network_without_convolutions_has_only_mistakes():
    found = explanations.explain(network(dense=[4]), Split(images(5), LABELS), PROBABILITIES, example=0)
    assert found.mistakes["index"].tolist() == [4, 2, 3]
    assert (found.filters, found.maps, found.grad_cam) == (None, (), None)


def test_network_without_mistakes_and_one_without_right_predictions():
    model = network({"filters": [4]})
    right = PROBABILITIES.argmax(axis=1)
    flawless = explanations.explain(model, Split(images(5), right), PROBABILITIES, example=0)
    assert flawless.mistakes.empty
    assert flawless.grad_cam is not None
    assert flawless.grad_cam.predictions["label"].tolist() == [0, 1, 2]
    hopeless = explanations.explain(model, Split(images(5), (right + 1) % 3), PROBABILITIES, example=0)
    assert hopeless.grad_cam is not None
    assert (hopeless.grad_cam.predictions["label"] != hopeless.grad_cam.predictions["prediction"]).all()


def test_file_keeps_the_explanations_and_equal_ones_give_equal_bytes(tmp_path: Path):
    test, other = Split(images(5), LABELS), PROBABILITIES[::-1].copy()
    networks = {
        name: explanations.explain(model, test, probabilities, example=1)
        for name, model, probabilities in (
            ("a", network({"filters": [4]}, {"filters": [2], "pooling": {"kind": "none"}}), PROBABILITIES),
            ("b", network(dense=[4]), other),
        )
    }
    probabilities = {"a": PROBABILITIES, "b": other}
    saved = explanations.collect(networks, probabilities, test, ("0", "1", "2"), example=1)
    assert list(saved.images) == [0, 1, 2, 3, 4]
    for file in ("one.npz", "two.npz"):
        saved.save(tmp_path / file)
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()
    loaded = Explanations.load(tmp_path / "one.npz")
    assert (loaded.classes, loaded.example, list(loaded.networks)) == (("0", "1", "2"), 1, ["a", "b"])
    assert loaded.images.keys() == saved.images.keys()
    np.testing.assert_array_equal(loaded.images[1], test.images[1])
    pd.testing.assert_frame_equal(loaded.disagreements, saved.disagreements)
    one, again = networks["a"], loaded.networks["a"]
    pd.testing.assert_frame_equal(again.mistakes, one.mistakes)
    np.testing.assert_array_equal(again.filters, one.filters)
    assert [(maps.block, maps.after is None) for maps in again.maps] == [("block1", False), ("block2", True)]
    np.testing.assert_array_equal(again.maps[0].after, one.maps[0].after)
    assert again.grad_cam is not None
    assert one.grad_cam is not None
    np.testing.assert_array_equal(again.grad_cam.of_label, one.grad_cam.of_label)
    assert (loaded.networks["b"].filters, loaded.networks["b"].maps, loaded.networks["b"].grad_cam) == (None, (), None)
