"""Shapes, parameters and receptive fields computed without TensorFlow equal those of Keras."""

import random
import subprocess
import sys
from math import prod
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from pydantic import ValidationError

from models import architecture, cnn, layer_types
from models.spec import POOLING_KEYS, Network
from pipeline.core import config
from pipeline.core.paths import Paths

ROOT = Path(__file__).parents[1]
NETWORKS: dict[str, Any] = dict(config.load(Paths(ROOT)).models)
RANDOM = 300


def random_pooling(draw: random.Random) -> dict:
    kind = draw.choice(list(POOLING_KEYS))
    values = {
        "window": draw.choice([1, 2, 3, 4, (1, 3), (3, 2)]),
        "stride": draw.choice([None, 1, 2, 3, (2, 1)]),
        "padding": draw.choice(["same", "valid", 1, (0, 2)]),
        "p": draw.choice([None, 1, 2.5]),
        "ratio": draw.choice([None, 1.1, 1.5, 2, 2.7]),
    }
    return {"kind": kind, **{key: values[key] for key in POOLING_KEYS[kind]}}


def random_block(draw: random.Random) -> dict:
    block = {
        "filters": [draw.choice([1, 2, 4, 6]) for _ in range(draw.randint(0, 2))],
        "convolution": draw.choice(["standard", "standard", "separable", "depthwise"]),
        "kernel_size": draw.choice([1, 2, 3, 4, 5, (1, 3), (3, 2)]),
        "padding": draw.choice(["same", "same", "valid", 1, (2, 0)]),
        "pooling": random_pooling(draw),
        "dropout": draw.choice([0.0, 0.5]),
        "dropout_kind": draw.choice(["plain", "spatial"]),
        "batch_norm": draw.random() < 0.3,
        "groups": draw.choice([1, 1, 1, 2]),
        "use_bias": draw.choice([None, True, False]),
        "normalization": random_normalization(draw),
    }
    if block["filters"]:
        block |= draw.choice([{}, {"stride": draw.choice([2, (2, 1)])}, {"dilation": draw.choice([2, (1, 3)])}])
        block |= {"residual": draw.random() < 0.4, "repeat": draw.choice([1, 1, 2])}
        block |= {"squeeze_excitation": draw.choice([None, None, 2])}
    return block


def random_normalization(draw: random.Random) -> dict:
    kind = draw.choice(["none", "none", "batch", "layer", "group"])
    return {
        "kind": kind,
        "groups": draw.choice([1, 2]) if kind == "group" else None,
        "place": draw.choice(["block", "convolution"]),
    }


def random_network(draw: random.Random) -> Network:
    """Networks with keys that exclude each other are drawn again."""
    head = {
        "pooling": draw.choice(["flatten", "global_average", "global_max", "gem"]),
        "batch_norm": draw.random() < 0.3,
        "dense": [draw.randint(1, 8) for _ in range(draw.randint(0, 2))],
        "dropout": draw.choice([0.0, 0.5]),
        "output": draw.choice(["softmax", "logits"]),
    }
    blocks, count = [], draw.randint(0, 3)
    while len(blocks) < count:
        block = random_block(draw)
        try:
            Network.model_validate({"blocks": [block]}, strict=False)
        except ValidationError:
            continue
        blocks.append(block)
    return Network.model_validate({"blocks": blocks, "head": head}, strict=False)


def random_image(draw: random.Random) -> tuple[int, int, int]:
    return draw.randint(3, 17), draw.randint(3, 17), draw.choice([1, 3])


def described(layer: keras.Layer) -> tuple:
    """Properties of a Keras layer in the order of a trace; multiply-adds are kernel weights times positions."""
    kernels = [weight for weight in layer.weights if weight.name.endswith("kernel")]
    return (
        layer.output.shape[1:],
        layer.count_params(),
        sum(weight.shape.num_elements() for weight in layer.non_trainable_weights),
        prod(layer.output.shape[1:-1]) * sum(weight.shape.num_elements() for weight in kernels),
    )


def assert_traced_as_built(network: Network, image: tuple[int, int, int], classes: int) -> None:
    traced = {
        row.layer.name: (row.output_shape, row.parameters, row.non_trainable, row.multiply_adds)
        for row in architecture.trace(network, image, classes)
    }
    built = cnn.build(network, image, classes)
    layers = [layer for layer in built.layers if not isinstance(layer, keras.layers.InputLayer)]
    assert traced == {layer.name: described(layer) for layer in layers}
    if isinstance(built, keras.Sequential):
        assert list(traced) == [layer.name for layer in layers]
    assert layers[-1].name == "output"


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("image", [(28, 28, 1), (32, 32, 3), (29, 31, 3)])
def test_trace_of_the_networks_in_params_equals_keras(name: str, image: tuple[int, int, int]) -> None:
    assert_traced_as_built(NETWORKS[name], image, 10)


def test_trace_of_random_networks_equals_keras() -> None:
    """Networks with an empty output are refused by both."""
    draw, refused = random.Random(1), 0
    for _ in range(RANDOM):
        network, image, classes = random_network(draw), random_image(draw), draw.randint(2, 12)
        try:
            architecture.trace(network, image, classes)
        except layer_types.ShapeError:
            refused += 1
            with pytest.raises(ValueError, match=r"output size would be|same shape|Inputs have incompatible|allowed: "):
                cnn.build(network, image, classes)
        else:
            assert_traced_as_built(network, image, classes)
    assert RANDOM / 10 < refused < RANDOM / 2  # both outcomes are frequent


def test_receptive_fields_of_random_networks() -> None:
    """With positive weights, a brighter pixel changes every output that sees it."""
    draw, height, width = random.Random(2), 48, 40
    measured = 0
    while measured < 20:
        network = random_network(draw)
        blocks = [block.model_dump() for block in network.blocks[:2]]
        for block in blocks:
            window, batch = draw.randint(1, 3), {"kind": "batch", "place": block["normalization"]["place"]}
            block |= {"kernel_size": draw.randint(1, 3), "activation": "linear", "batch_norm": False}
            # Equal weights give equal channels, which these would make 0, or a gate that is 1.
            block |= {"squeeze_excitation": None, "normalization": batch if block["filters"] else {}}
            strided = block["filters"] and block["dilation"] == 1
            block |= {"stride": draw.randint(1, block["kernel_size"]) if strided else 1}
            block |= {"padding": "same" if block["residual"] else block["padding"]}
            if block["pooling"]["kind"] != "fractional_max":
                block["pooling"] |= {"window": window, "stride": draw.randint(1, window)}
        network = Network.model_validate({"blocks": blocks}, strict=False)
        try:
            fields = {row.layer.name: row.receptive_field for row in architecture.trace(network, (height, width, 1), 2)}
        except layer_types.ShapeError:
            continue
        measured += 1
        built = cnn.build(network, (height, width, 1), 2)
        built.set_weights([np.ones_like(weight) for weight in built.get_weights()])
        maps = [layer for layer in built.layers if len(layer.output.shape) == 4 and layer.name != "image"]
        if not maps:
            continue
        lit = np.random.default_rng(1).uniform(0.4, 0.6, (1, height, width, 1)).repeat(1 + height + width, axis=0)
        for row in range(height):
            lit[1 + row, row] += 9
        for column in range(width):
            lit[1 + height + column, :, column] += 9
        outputs = keras.Model(built.inputs[0], {layer.name: layer.output for layer in maps})(lit.astype(np.float32))
        for name, output in outputs.items():
            changed = np.abs(output[1:] - output[:1]).max(axis=-1) > 1e-3 * np.abs(output[:1]).max()
            seen = extent(changed[:height]), extent(changed[height:])
            exact = all(block["pooling"]["kind"] != "fractional_max" for block in blocks)  # else of the largest regions
            for found, field, size in zip(seen, fields[name], (height, width), strict=True):
                assert found <= field, (name, network)
                if exact and field <= size / 2:  # larger ones reach beyond the image at every position
                    assert found == field, (name, network)


def extent(changed: np.ndarray) -> int:
    """Largest distance, over outputs, from the first to the last pixel that changes the output."""
    pixels = np.arange(1, len(changed) + 1)[:, np.newaxis, np.newaxis]
    last = np.where(changed, pixels, 0).max(axis=0)
    first = np.where(changed, pixels, len(changed) + 1).min(axis=0)
    return int((last - first + 1).max())


def test_receptive_fields_of_model_1() -> None:
    fields = [row.receptive_field for row in architecture.trace(NETWORKS["model_1"], (28, 30, 1), 10)]
    assert fields == [(3, 3), (4, 4), (8, 8), (10, 10), (10, 10), (28, 30), (28, 30)]


def test_multiply_adds_of_model_1() -> None:
    """28 * 28 * 9 * 32, 14 * 14 * 9 * 32 * 64, 3136 * 128 and 128 * 10."""
    costs = [row.multiply_adds for row in architecture.trace(NETWORKS["model_1"], (28, 28, 1), 10)]
    assert costs == [225_792, 0, 3_612_672, 0, 0, 401_408, 1_280]


def test_shape_error_names_the_key_and_what_is_allowed() -> None:
    network = Network.model_validate(
        {"blocks": [{"filters": [4]}, {"filters": [4], "pooling": {"window": 9}}]}, strict=False
    )
    with pytest.raises(layer_types.ShapeError, match=r"too large for 8x8 feature maps; .* at most 8") as caught:
        architecture.trace(network, (16, 17, 1), 10)
    assert (caught.value.key, caught.value.found) == ("blocks.1.pooling.window", 9)


def test_specification_and_architecture_do_not_load_tensorflow() -> None:
    code = "import models.architecture, models.spec, sys; print({'tensorflow', 'keras'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_fractional_sizes_are_not_affected_by_rounding() -> None:
    """33 / 1.1 is 29.999999999999996 in binary."""
    assert [layer_types.fractional_size(size, 1.1) for size in (11, 22, 33, 34)] == [10, 20, 30, 30]


def test_a_network_with_too_many_parameters_is_refused_at_the_layer_that_makes_it_so() -> None:
    network = Network.model_validate({"head": {"dense": [65_536, 15_000, 15_000]}}, strict=False)
    with pytest.raises(layer_types.ShapeError, match="allowed: at most 1,000,000,000 in a network") as error:
        architecture.trace(network, (28, 28, 1), 10)
    assert (error.value.key, error.value.found) == ("head.dense.1", "983,055,000 parameters")
