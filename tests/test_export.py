"""Export to LiteRT: equal predictions for every precision and output activation."""

from pathlib import Path

import numpy as np
import pytest

from models import cnn, inference
from models.spec import Network
from pipeline.core.errors import DataError
from pipeline.deploy import litert

from .conftest import Project


def built(kind: str, output: str, precision: str):
    block = {"filters": (4,), "pooling": {"kind": kind}, "dropout": 0.2, "batch_norm": True}
    network = Network.model_validate({"blocks": (block,), "head": {"output": output}})
    return cnn.build(network, (12, 12, 1), 3, precision)


@pytest.mark.parametrize(
    ("kind", "output", "precision"),
    [
        ("max", "softmax", "bfloat16"),
        ("lp", "logits", "float32"),
        ("fractional_max", "logits", "bfloat16"),
        ("gem", "softmax", "float32"),
    ],
)
def test_the_file_predicts_like_the_network(kind: str, output: str, precision: str):
    model = built(kind, output, precision)
    images = np.random.default_rng(0).random((5, 12, 12, 1), np.float32)
    predictions = litert.run(litert.convert(model), images)
    np.testing.assert_allclose(predictions, inference.probabilities(litert.in_float32(model), images), atol=1e-5)
    np.testing.assert_allclose(predictions, inference.probabilities(model, images), atol=0.02)


def test_an_operation_that_litert_cannot_run_is_refused(monkeypatch: pytest.MonkeyPatch):
    def unsupported(self: object) -> None:
        raise RuntimeError("an operation is not supported")

    content = litert.convert(built("max", "softmax", "float32"))
    monkeypatch.setattr(litert.tf.lite.Interpreter, "allocate_tensors", unsupported)
    with pytest.raises(DataError, match="LiteRT cannot run the network"):
        litert.run(content, np.zeros((1, 12, 12, 1), np.float32))


def test_the_command_compares_and_writes(champion: Project, tmp_path: Path):
    done = champion.stage("export", "own", "--output", str(tmp_path / "own.tflite"))
    assert "of 1,000 test images; probabilities differ by at most" in done.stdout
    assert (tmp_path / "own.tflite").read_bytes()[4:8] == b"TFL3"  # the identifier of the format
