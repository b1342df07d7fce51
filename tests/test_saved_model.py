"""Saved networks: only the file written by training is loaded, without running code from it."""

from pathlib import Path

import keras
import pytest

from pipeline.core.errors import DataError
from pipeline.runtime import saved_model


def network(units: int, *layers: keras.Layer) -> keras.Model:
    return keras.Sequential([keras.Input((4,)), *layers, keras.layers.Dense(units, activation="softmax")])


def test_network_loads_by_its_checksum(tmp_path: Path):
    sha256 = saved_model.save(network(3), tmp_path / "net.keras")
    assert saved_model.load(tmp_path / "net.keras", sha256).output_shape == (None, 3)


def test_single_flipped_bit_is_refused(tmp_path: Path):
    file = tmp_path / "net.keras"
    sha256 = saved_model.save(network(3), file)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(DataError, match=f"instead of {sha256}: not the network that was trained here"):
        saved_model.load(file, sha256)


def test_another_network_in_its_place_is_refused(tmp_path: Path):
    file = tmp_path / "net.keras"
    sha256 = saved_model.save(network(3), file)
    saved_model.save(network(5), file)
    with pytest.raises(DataError, match="not the network that was trained here"):
        saved_model.load(file, sha256)


def test_lambda_layer_is_refused_even_with_its_checksum(tmp_path: Path):
    file = tmp_path / "net.keras"
    network(3, keras.layers.Lambda(lambda values: values + 1)).save(file)
    with pytest.raises(DataError, match="contains a Lambda layer, which is Python code"):
        saved_model.load(file, saved_model.digest(file))


def test_unknown_layers_are_refused(tmp_path: Path):
    class Foreign(keras.layers.Layer):
        def call(self, inputs):
            return inputs

    file = tmp_path / "net.keras"
    network(3, Foreign()).save(file)
    with pytest.raises(DataError, match="not a readable network"):
        saved_model.load(file, saved_model.digest(file))


def test_missing_network_is_named(tmp_path: Path):
    with pytest.raises(DataError, match=r"net\.keras: not found; run `dvc repro`"):
        saved_model.load(tmp_path / "net.keras", "0" * 64)
