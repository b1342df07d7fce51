"""Networks of the gallery, and published ones in the same vocabulary: parameters, and equality with Keras."""

import json
import re
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers
from ruamel.yaml import YAML

from models import architecture, cnn, own_network
from models.own_code import FOLDER, OwnCode, OwnNetwork
from models.spec import Network

ROOT = Path(__file__).parents[1]
FILE = ROOT / "models" / "gallery.yaml"
GALLERY = YAML(typ="safe", pure=True).load(FILE)
SMALL = (32, 32, 3)


def network(block: dict) -> Network:
    return Network.model_validate_json(json.dumps({key: part for key, part in block.items() if key != "fit"}))


def traced_or_built(block: dict, image: tuple[int, int, int]) -> tuple[int, int]:
    """`counts` of a network of the gallery, which the user's own code may build."""
    if "builder" not in block:
        return counts(network(block), image, 10)
    own = OwnNetwork(**{key: part for key, part in block.items() if key != "fit"})
    code = OwnCode(own.file, (ROOT / FOLDER / own.file).read_bytes())
    rows = own_network.layer_rows(own_network.build(own, code, image, 10, "float32", 1))
    total = sum(row.parameters for row in rows)
    return total, total - sum(row.non_trainable for row in rows)


def counts(spec: Network, image: tuple[int, int, int], classes: int) -> tuple[int, int]:
    """Parameters, and those that are trained."""
    rows = architecture.trace(spec, image, classes)
    total = sum(row.parameters for row in rows)
    return total, total - sum(row.non_trainable for row in rows)


def test_comments_and_documentation_have_the_parameter_counts():
    documented = (ROOT / "docs" / "networks.md").read_text()
    comment = re.compile(r"^(\w+): +# ([\d,]+) (trainable )?parameters for (\d+) x (\d+) x (\d+)", re.MULTILINE)
    comments = comment.findall(FILE.read_text())
    assert [name for name, *_ in comments] == list(GALLERY)
    for name, number, trainable, *image in comments:
        height, width, channels = map(int, image)
        found = traced_or_built(GALLERY[name], (height, width, channels))[bool(trainable)]
        assert f"{found:,}" == number, name
        assert re.search(rf"\| `{name}`.* \| {number}.* \| {height}x{width}x{channels} \|", documented), name


def test_published_parameter_counts():
    convolutions = ([64] * 2, [128] * 2, [256] * 3, [512] * 3, [512] * 3)
    vgg_16 = {"blocks": [{"filters": filters} for filters in convolutions], "head": {"dense": [4096, 4096]}}
    assert counts(network(vgg_16), (224, 224, 3), 1000)[0] == 138_357_544  # Simonyan and Zisserman: 138 million
    assert counts(network(mobilenet(1)), (224, 224, 3), 1000) == (4_253_864, 4_231_976)  # as in keras.applications
    assert counts(network(GALLERY["lenet"]), (28, 28, 1), 10)[0] == 61_706
    assert counts(network(GALLERY["all_cnn"]), SMALL, 10)[0] == 1_369_738  # Springenberg et al.: 1.4 million
    # He et al.: 0.27 million. Without the projections, which have 2,752, as with their zero-padded shortcuts: 269,722.
    rows = architecture.trace(network(GALLERY["resnet20"]), SMALL, 10)
    projections = [row for row in rows if "shortcut" in row.layer.name]
    assert sum(row.parameters - row.non_trainable for row in projections) == 2_752
    assert counts(network(GALLERY["resnet20"]), SMALL, 10)[1] - 2_752 == 269_722


def mobilenet(width: float) -> dict:
    """MobileNet of arXiv:1704.04861 with a width multiplier."""
    common: dict[str, Any] = {
        "activation": "relu6",
        "normalization": {"kind": "batch", "place": "convolution"},
        "pooling": {"kind": "none"},
    }

    def block(filters: int, count: int, **keys: Any) -> dict:
        return common | {"filters": [int(filters * width)] * count} | keys

    separable = {"convolution": "separable", "stride": 2}
    blocks = [block(32, 1, stride=2), block(64, 1, convolution="separable")]
    blocks += [block(filters, count, **separable) for filters, count in ((128, 2), (256, 2), (512, 6), (1024, 2))]
    return {"blocks": blocks, "head": {"pooling": "global_average"}}


def resnet20() -> keras.Model:
    """ResNet-20 written with Keras alone; names as in the gallery's network."""

    def convolved(x: Any, filters: int, name: str, size: int = 3, stride: int = 1) -> Any:
        x = layers.Conv2D(filters, size, stride, "same", use_bias=False, name=name)(x)
        return layers.BatchNormalization(name=f"{name}_norm")(x)

    image = keras.Input(SMALL)
    x = layers.ReLU()(convolved(image, 16, "block1_conv1"))
    for block, filters in ((2, 16), (3, 32), (4, 64)):
        for unit in (1, 2, 3):
            stride = 2 if block > 2 and unit == 1 else 1
            y = layers.ReLU()(convolved(x, filters, f"block{block}_conv{2 * unit - 1}", stride=stride))
            y = convolved(y, filters, f"block{block}_conv{2 * unit}")
            shortcut = convolved(x, filters, f"block{block}_shortcut1", 1, 2) if stride == 2 else x
            x = layers.ReLU()(layers.Add()([shortcut, y]))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, layers.Dense(10, activation="softmax", name="output")(x))


@pytest.mark.parametrize(
    ("block", "reference"),
    [
        (GALLERY["resnet20"], resnet20),
        (mobilenet(0.25), lambda: keras.applications.MobileNet(SMALL, 0.25, weights=None, classes=10, dropout=0.0)),
    ],
    ids=["resnet20", "mobilenet"],
)
def test_networks_equal_those_of_keras(block: dict, reference: Any):
    built, expected = cnn.build(network(block), SMALL, 10), reference()
    assert built.count_params() == expected.count_params()
    draws = np.random.default_rng(1)

    def value(weight: Any) -> np.ndarray:
        """Kernels as they begin, others at random."""
        return weight.numpy() if len(weight.shape) > 1 else draws.random(weight.shape)

    weights = {(layer.name, weight.name): value(weight) for layer in built.layers for weight in layer.weights}
    for layer in built.layers:
        layer.set_weights([weights[layer.name, weight.name] for weight in layer.weights])
    if isinstance(built, keras.Sequential):  # names of its own, the same order
        values = zip(expected.weights, built.get_weights(), strict=True)
        expected.set_weights([value.reshape(weight.shape) for weight, value in values])
    else:
        for layer in expected.layers:
            layer.set_weights([weights[layer.name, weight.name] for weight in layer.weights])
    images = draws.random((4, *SMALL), dtype=np.float32)
    found = built(images, training=True).numpy()  # batch statistics keep the signal strong
    assert np.ptp(found, axis=0).max() > 1e-6
    np.testing.assert_allclose(found, expected(images, training=True).numpy(), rtol=1e-3)
