"""Serving a registered network: valid and invalid requests to a real process; loading without the project."""

import argparse
import base64
import hashlib
import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
import requests
from PIL import Image
from requests.adapters import HTTPAdapter
from urllib3 import Retry

from models import inference
from pipeline import serve
from pipeline.core import records
from pipeline.runtime import saved_model

from .conftest import Project

JSON = {"Content-Type": "application/json"}


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


@contextmanager
def serving(project: Project) -> Iterator[str]:
    """The address of a server of the champion, once it is ready."""
    address = f"http://127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "pipeline.serve", "--port", address.rpartition(":")[2]]
    with (
        subprocess.Popen(command, cwd=project.root, env=project.environment(), stdout=subprocess.DEVNULL) as process,
        requests.Session() as session,
    ):
        session.mount(address, HTTPAdapter(max_retries=Retry(600, backoff_factor=0.2, backoff_max=0.2)))
        try:
            assert session.get(f"{address}/ping").ok
            yield f"{address}/invocations"
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def server(champion: Project) -> Iterator[str]:
    with serving(champion) as address:
        yield address


@pytest.fixture(scope="module")
def images(champion: Project) -> np.ndarray:
    return np.load(champion.paths.split("test") / "images.npy").astype(np.float32) / 255


@pytest.mark.parametrize("key", ["inputs", "instances"])
def test_the_predictions_are_those_of_the_network(champion: Project, server: str, images: np.ndarray, key: str):
    sha256 = records.load_training(champion.paths, "own").sha256
    expected = inference.probabilities(saved_model.load(champion.paths.model("own"), sha256), images)
    response = requests.post(server, json={key: images.tolist()}, timeout=120)
    assert response.status_code == 200
    predictions = np.array(response.json()["predictions"])
    np.testing.assert_array_equal(predictions.argmax(axis=1), expected.argmax(axis=1))
    np.testing.assert_allclose(predictions, expected, atol=1e-3)


def as_png(pixels: np.ndarray) -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


def test_a_picture_is_classified_from_a_form_and_from_a_body(server: str, images: np.ndarray):
    address = server.replace("invocations", "predict")
    digit = 255 - (images[0, ..., 0] * 255).astype(np.uint8)
    two = np.full((100, 200), 255, np.uint8)
    two[20:48, 20:48], two[20:48, 120:148] = digit, digit
    [expected] = requests.post(server, json={"inputs": images[:1].tolist()}, timeout=60).json()["predictions"]
    one, several = (
        requests.post(address, data=as_png(digit), headers={"Content-Type": "image/png"}, timeout=60),
        requests.post(f"{address}?saliency=1", files={"image": ("two.png", as_png(two))}, data={"x": "1"}, timeout=60),
    )
    assert (one.status_code, several.status_code) == (200, 200), several.text
    answer = one.json()
    assert list(answer) == ["class", "probability", "probabilities", "warnings", "network"]
    assert list(answer["probabilities"]) == list("0123456789")
    np.testing.assert_allclose(list(answer["probabilities"].values()), expected, atol=1e-3)
    assert answer["class"] == str(np.argmax(expected))
    assert answer["network"]["name"] == "own"
    assert answer["network"]["summary"].startswith("pooling lp·blur")
    assert not any("several" in warning for warning in answer["warnings"])
    assert any("several objects" in warning for warning in several.json()["warnings"])
    assert np.shape(several.json()["image"]) == (28, 28, 1)
    saliency = np.array(several.json()["saliency"])
    assert (saliency.shape, saliency.min() >= 0, saliency.max()) == ((28, 28), True, 1)


PNG = {"Content-Type": "image/png"}
FORM = {"Content-Type": "multipart/form-data; boundary=x"}


@pytest.mark.parametrize(
    ("content", "headers", "status", "message"),
    [
        (b"a letter", PNG, 400, "the picture: not a readable PNG, JPEG, WebP or GIF file"),
        (as_png(np.zeros((4001, 4000), np.uint8)), PNG, 400, "4,000 x 4,001 pixels; allowed: 16,000,000 in all"),
        (as_png(np.zeros((90, 90), np.uint8)), PNG, 400, "the picture: blank"),
        (bytes(2**24 + 1), PNG, 413, "Too Large"),
        (b"", {"Content-Type": "text/plain"}, 415, "text/plain; allowed: multipart/form-data, image/png, image/jpeg"),
        (b"", {"Content-Type": "multipart/form-data"}, 400, "no valid boundary"),
        (b"--x\r\n\r\n", FORM, 400, "the form is damaged"),
        (b"--x\r\n" * 10_000, FORM, 400, "the form is damaged, or has over 20 fields"),
        (b"--x\r\nContent-Disposition: form-data; name=y\r\n\r\n1\r\n--x--", FORM, 400, "the form has 0 fields"),
        (b"", PNG | {"Origin": "http://attacker.example"}, 403, "another page than this server's"),
        (b"", PNG | {"Host": "attacker.example"}, 403, "not known here"),
    ],
)
def test_an_invalid_picture_is_refused_with_a_message(
    server: str, content: bytes, headers: dict[str, str], status: int, message: str
):
    address = server.replace("invocations", "predict")
    response = requests.post(address, data=content, headers=headers, timeout=60)
    assert (response.status_code, message in response.json()["message"]) == (status, True), response.text[:500]
    assert len(response.text) < 1000


def test_the_page_names_the_network_and_loads_nothing_from_elsewhere(server: str):
    response = requests.get(server.replace("invocations", ""), timeout=60)
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    policy = response.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    for element in ("script", "style"):
        [content] = re.findall(f"<{element}>(.*?)</{element}>", response.text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{element}-src 'sha256-{digest}';" in policy
    assert not re.search(r"""(?:src|href)=["'](?!data:,)|\son\w+=|\sstyle=|https?:""", response.text)
    assert "models:/mnist_5k@champion, version 1; dataset mnist_5k;\n  validation accuracy" in response.text
    assert "pooling lp·blur → flatten | dropout 0·0·0" in response.text


def body(value: object) -> bytes:
    return json.dumps({"inputs": value}).encode()


GOOD = np.zeros((1, 28, 28, 1)).tolist()


@pytest.mark.parametrize(
    ("content", "headers", "status", "message"),
    [
        (body(np.zeros((1, 27, 28, 1)).tolist()), JSON, 400, "inputs[0]: List should have at least 28 items"),
        (body(np.full((1, 28, 28, 1), np.nan).tolist()), JSON, 400, "Input should be a finite number"),
        (body(np.full((1, 28, 28, 1), 255).tolist()), JSON, 400, "less than or equal to 1"),
        (body(np.full((1, 28, 28, 1), True).tolist()), JSON, 400, "Input should be a valid number"),
        (body([GOOD[0], [[0.0]]]), JSON, 400, "inputs[1][0][0]: Input should be a valid array"),
        (body("a picture"), JSON, 400, "Input should be a valid array"),
        (body([]), JSON, 400, "at least 1 item"),
        (b"{", JSON, 400, "Invalid JSON"),
        (b'{"inputs": ' + b"9" * 5000 + b"}", JSON, 400, "number out of range"),
        (b"[" * 100_000, JSON, 400, "recursion limit"),
        (b"{}", JSON, 400, "at least 1 item"),
        (b"\x89PNG", {"Content-Type": "image/png"}, 415, "content-type is image/png; allowed: application/json"),
        (body(GOOD), {}, 415, "content-type is missing"),
        (body(GOOD), JSON | {"Host": "attacker.example"}, 403, "not known here"),
        (bytes(2**24 + 1), JSON, 413, "Too Large"),
    ],
)
def test_an_invalid_request_is_refused_with_a_message(
    server: str, content: bytes, headers: dict[str, str], status: int, message: str
):
    response = requests.post(server, data=content, headers=headers, timeout=60)
    assert (response.status_code, message in response.text) == (status, True), response.text[:500]
    assert len(response.text) < 3000
    assert requests.post(server, data=body(GOOD), headers=JSON, timeout=60).ok


def test_a_request_without_a_length_is_cut_off_at_the_limit(server: str):
    """An image of 20,000 x 20,000, sent in chunks."""
    rows = (b"[" + b"0.0," * 20_000 + b"0.0]," for _ in range(20_000))
    with suppress(requests.ConnectionError):  # where the server closes the connection while it is written to
        assert requests.post(server, data=rows, headers=JSON, timeout=60).status_code == 413
    assert requests.post(server, data=body(GOOD), headers=JSON, timeout=60).ok


ALONE = """
import sys
import mlflow, numpy as np
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model("models:/mnist_5k@champion")
assert "pipeline" not in sys.modules
print(model.predict(np.zeros((3, 28, 28, 1), np.float32)).sum(axis=1).round(5).tolist())
"""


def test_the_model_loads_without_the_project(champion: Project, tmp_path: Path):
    store = f"sqlite:///{champion.root / 'mlflow.db'}"
    environment = champion.environment(PYTHONPATH="")
    done = subprocess.run(
        [sys.executable, "-c", ALONE, store], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[1.0, 1.0, 1.0]"


def test_a_missing_champion_is_reported(project: Project):
    done = project.stage("serve", check=False)
    assert done.returncode == 1
    assert "error: models:/mnist_5k@champion: not found in MLflow" in done.stderr


@pytest.mark.parametrize("port", ["0", "65536", "99999", "-1", "http"])
def test_an_impossible_port_is_refused(port: str):
    with pytest.raises(argparse.ArgumentTypeError, match="not a port; allowed: 1 to 65535"):
        serve.port(port)


def test_a_port_in_use_is_reported_before_the_network_is_loaded(project: Project):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = project.stage("serve", "--port", str(port), check=False)
    assert done.returncode == 1
    assert f"error: cannot listen at 127.0.0.1, port {port}: Address already in use" in done.stderr


@pytest.fixture
def own_champion(champion: Project, tmp_path: Path) -> Project:
    """A copy of the project with the champion and its store."""
    shutil.copytree(champion.root, tmp_path / "project")
    return Project(tmp_path / "project")


def test_code_that_comes_with_a_registered_network_is_not_run(own_champion: Project):
    mark = own_champion.root / "code was run"
    scripts = [path for path in (own_champion.root / "mlartifacts").rglob("code/**/*.py")]
    assert scripts
    for script in scripts:
        script.write_text(f"open({str(mark)!r}, 'w').close()", encoding="utf-8")
    like_markup = own_champion.root / "picture[" / "red].png"
    like_markup.parent.mkdir()
    Image.fromarray(np.eye(28, dtype=np.uint8) * 255).save(like_markup)
    no_text = os.fsdecode(b"\xff.png")
    shutil.copyfile(like_markup, own_champion.root / no_text)
    done = own_champion.stage("predict", "picture[/red].png", no_text)
    assert "picture[/red].png" in done.stdout
    assert r"\udcff.png" in done.stdout
    assert not mark.exists()


@pytest.mark.parametrize("command", [("predict", "picture.png"), ("serve", "--port", "PORT")])
def test_a_network_replaced_in_the_store_is_refused(own_champion: Project, command: tuple[str, ...]):
    Image.fromarray(np.eye(28, dtype=np.uint8) * 255).save(own_champion.root / "picture.png")
    [file] = (own_champion.root / "mlartifacts").rglob("*.keras")
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    arguments = [str(free_port()) if each == "PORT" else each for each in command]
    done = own_champion.stage(*arguments, check=False)
    assert done.returncode == 1
    assert "the network stored for version 1 was replaced after it was registered" in done.stderr
    assert "Traceback" not in done.stderr
