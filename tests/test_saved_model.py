"""Saved networks: only the file written by training is loaded, without running code from it."""

import zipfile
from collections.abc import Callable
from pathlib import Path

import keras
import pytest

from pipeline.core.errors import DataError
from pipeline.runtime import saved_model


def network(units: int, *layers: keras.Layer) -> keras.Model:
    return keras.Sequential([keras.Input((4,)), *layers, keras.layers.Dense(units, activation="softmax")])


def test_network_loads_by_its_checksum(tmp_path: Path):
    file = tmp_path / "net.keras"
    file.write_bytes(saved_model.content(network(3)))
    sha256 = saved_model.digest(file)
    assert saved_model.load(tmp_path / "net.keras", sha256).output_shape == (None, 3)


def test_single_flipped_bit_is_refused(tmp_path: Path):
    file = tmp_path / "net.keras"
    file.write_bytes(saved_model.content(network(3)))
    sha256 = saved_model.digest(file)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(DataError, match=f"instead of {sha256}: not the network that was trained here"):
        saved_model.load(file, sha256)


def test_another_network_in_its_place_is_refused(tmp_path: Path):
    file = tmp_path / "net.keras"
    file.write_bytes(saved_model.content(network(3)))
    sha256 = saved_model.digest(file)
    file.write_bytes(saved_model.content(network(5)))
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


def test_a_folder_in_its_place_is_named(tmp_path: Path):
    (tmp_path / "net.keras").mkdir()
    with pytest.raises(DataError, match=r"net\.keras: not a readable file \(Is a directory\)"):
        saved_model.load(tmp_path / "net.keras", "0" * 64)


def rewritten(file: Path, member: str, change: Callable[[bytes], bytes], compression: int = zipfile.ZIP_STORED) -> str:
    """Change one member of a saved network; returns the SHA-256 of the file."""
    file.write_bytes(saved_model.content(network(3)))
    with zipfile.ZipFile(file) as source:
        contents = {name: source.read(name) for name in source.namelist()}
    with zipfile.ZipFile(file, "w", compression) as target:
        for name, content in contents.items():
            target.writestr(name, change(content) if name == member else content)
    return saved_model.digest(file)


@pytest.mark.parametrize(
    ("member", "change"),
    [
        ("config.json", lambda content: b"[" * 100_000),
        ("config.json", lambda content: content[: len(content) // 2]),
        ("config.json", lambda content: b"null"),
        ("config.json", lambda content: b'{"class_name": "Sequential", "config": []}'),
        ("config.json", lambda content: content.replace(b'"units": 3', b'"units": 1000000000000')),
        ("config.json", lambda content: content.replace(b'"units": 3', b'"units": ' + b"9" * 30)),
        ("config.json", lambda content: content.replace(b'"units": 3', b'"units": ' + b"9" * 5000)),
        ("config.json", lambda content: content.replace(b'"units": 3', b'"units": 4')),
        ("model.weights.h5", lambda content: content[: len(content) // 2]),
        ("model.weights.h5", lambda content: b""),
    ],
)
def test_a_damaged_network_is_refused_even_with_its_checksum(
    tmp_path: Path, member: str, change: Callable[[bytes], bytes]
):
    sha256 = rewritten(tmp_path / "net.keras", member, change)
    with pytest.raises(DataError, match=r"net\.keras: not a readable network \(") as refusal:
        saved_model.load(tmp_path / "net.keras", sha256)
    assert len(str(refusal.value)) < 2000


def test_an_archive_that_expands_is_refused_before_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    sha256 = rewritten(tmp_path / "net.keras", "model.weights.h5", lambda _: bytes(10**7), zipfile.ZIP_DEFLATED)
    monkeypatch.setattr(keras.saving, "load_model", None)
    with pytest.raises(DataError, match=r"would unpack to 10,00\d,\d{3}"):
        saved_model.load(tmp_path / "net.keras", sha256)
