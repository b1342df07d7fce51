"""Shapes and parameters as computed without TensorFlow, against those of Keras."""

import random
import subprocess
import sys
from pathlib import Path

import pytest

from models import cnn, layers
from models.spec import Network
from pipeline import config
from pipeline.paths import Paths

ROOT = Path(__file__).parents[1]
NETWORKS: dict[str, Network] = dict(config.load(Paths(ROOT)).models)
RANDOM = 300


def random_network(draw: random.Random) -> Network:
    def block() -> dict:
        return {
            "filters": [draw.randint(1, 4) for _ in range(draw.randint(0, 2))],
            "kernel_size": draw.randint(1, 5),
            "padding": draw.choice(["same", "valid"]),
            "pooling": {
                "kind": draw.choice(["max", "average", "none"]),
                "window": draw.randint(1, 4),
                "stride": draw.choice([None, 1, 2, 3]),
                "padding": draw.choice(["same", "valid"]),
            },
            "dropout": draw.choice([0.0, 0.5]),
            "batch_norm": draw.random() < 0.3,
        }

    head = {
        "pooling": draw.choice(["flatten", "global_average", "global_max"]),
        "batch_norm": draw.random() < 0.3,
        "dense": [draw.randint(1, 8) for _ in range(draw.randint(0, 2))],
        "dropout": draw.choice([0.0, 0.5]),
        "output": draw.choice(["softmax", "logits"]),
    }
    blocks = [block() for _ in range(draw.randint(0, 3))]
    return Network.model_validate({"blocks": blocks, "head": head}, strict=False)


def random_image(draw: random.Random) -> tuple[int, int, int]:
    return draw.randint(3, 17), draw.randint(3, 17), draw.choice([1, 3])


def assert_traced_as_built(network: Network, image: tuple[int, int, int], classes: int) -> None:
    traced = layers.trace(network, image, classes)
    built = cnn.build(network, image, classes)
    assert [row.layer.name for row in traced] == [layer.name for layer in built.layers]
    for row, layer in zip(traced, built.layers, strict=True):
        fixed = sum(weight.shape.num_elements() for weight in layer.non_trainable_weights)
        assert (row.output_shape, row.parameters, row.non_trainable) == (
            layer.output.shape[1:],
            layer.count_params(),
            fixed,
        ), row.layer


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("image", [(28, 28, 1), (32, 32, 3), (29, 31, 3)])
def test_trace_of_the_networks_of_params(name: str, image: tuple[int, int, int]) -> None:
    assert_traced_as_built(NETWORKS[name], image, 10)


def test_trace_of_random_networks() -> None:
    """Keras builds what has a trace, and refuses what has none."""
    draw, refused = random.Random(1), 0
    for _ in range(RANDOM):
        network, image, classes = random_network(draw), random_image(draw), draw.randint(2, 12)
        try:
            layers.trace(network, image, classes)
        except layers.ShapeError:
            refused += 1
            with pytest.raises(ValueError, match="output size would be"):
                cnn.build(network, image, classes)
        else:
            assert_traced_as_built(network, image, classes)
    assert RANDOM / 10 < refused < RANDOM / 2  # both happen often enough to mean something


def test_shape_error_names_the_key_and_what_is_allowed() -> None:
    network = Network.model_validate(
        {"blocks": [{"filters": [4]}, {"filters": [4], "pooling": {"window": 9}}]}, strict=False
    )
    with pytest.raises(layers.ShapeError, match=r"leaves nothing of 8x8 feature maps; .* at most 8") as caught:
        layers.trace(network, (16, 17, 1), 10)
    assert (caught.value.key, caught.value.found) == ("blocks.1.pooling.window", 9)


def test_specification_and_layers_leave_tensorflow_unloaded() -> None:
    code = "import models.layers, models.spec, sys; print({'tensorflow', 'keras'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
