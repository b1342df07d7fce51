"""The HTTP application and its connections, in this process, with a predictor that takes no time: hostile clients."""

import json
import logging
import math
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from typing import Any

import numpy as np
import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.exceptions import HTTPException

from pipeline.core.errors import UserError
from pipeline.deploy import admission, connections, scoring, server, uploads

IMAGE = (2, 2, 1)
GOOD = {"inputs": [[[[0], [1]], [[0.5], [-0.0]]]]}


def mean_and_rest(images: np.ndarray) -> np.ndarray:
    means = images.mean(axis=(1, 2, 3))
    return np.stack([means, 1 - means], axis=1)


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """The port of a server in a thread."""
    app = scoring.application(mean_and_rest, IMAGE, ["digits.example"], "1.2.3")
    listening = socket.create_server(("127.0.0.1", 0))
    running = server.server(app)
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]})
    thread.start()
    yield listening.getsockname()[1]
    running.should_exit = True
    thread.join()
    listening.close()


def post(port: int, content: Any, **headers: str) -> requests.Response:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    sent = {"Content-Type": "application/json"} | {name.replace("_", "-"): value for name, value in headers.items()}
    return requests.post(f"http://127.0.0.1:{port}/invocations", data=body, headers=sent, timeout=30)


def image(pixel: str) -> bytes:
    return b'{"inputs": [[[[0], [1]], [[0.5], [%s]]]]}' % pixel.encode()


def test_routes(port: int):
    address = f"http://127.0.0.1:{port}"
    assert post(port, GOOD).json() == {"predictions": [[0.375, 0.625]]}
    for path, text in (("/ping", "\n"), ("/health", "\n"), ("/version", "1.2.3")):
        response = requests.get(address + path, timeout=30)
        assert (response.status_code, response.text) == (200, text)
    for path in ("/docs", "/redoc", "/openapi.json", "/"):
        assert requests.get(address + path, timeout=30).status_code == 404
    assert requests.get(f"{address}/invocations", timeout=30).status_code == 405


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (image("true"), "inputs[0][1][1][0]: Input should be a valid number"),
        (image('"0.5"'), "inputs[0][1][1][0]: Input should be a valid number"),
        (image("null"), "Input should be a valid number"),
        (image("9" * 5000), "number out of range"),
        (image("-" + "9" * 400), "Input should be"),
        (image("NaN"), "Input should be a finite number"),
        (image("1e999"), "Input should be"),
        (image("1.0001"), "Input should be less than or equal to 1"),
        (image("-1e-9"), "Input should be greater than or equal to 0"),
        (b'{"inputs": ' * 10_000, "recursion limit"),
        (b"[" * 100_000, "recursion limit"),
        (b'{"inputs": []}', "at least 1 item"),
        (b'{"inputs": [[[[0], [1]]]]}', "inputs[0]: List should have at least 2 items"),
        (b'{"inputs": [[[[0], [1]], [[0], [1, 1]]]]}', "inputs[0][1][1]: List should have at most 1 item"),
        (b'{"inputs": "a picture"}', "Input should be a valid array"),
        (b'{"x": []}', "x: Input should be 'inputs' or 'instances'"),
        (b'{"inputs": [], "instances": []}', "expected"),
        (json.dumps({str(number): 0 for number in range(1_000_000)}).encode(), "expected"),
        (b'{"%s": 0}' % (b"x" * 10**6), "expected"),
        (b"\xff", "Invalid JSON"),
        (b"", "Invalid JSON"),
    ],
)
def test_a_wrong_body_is_refused_with_a_short_message(port: int, content: bytes, message: str):
    response = post(port, content)
    assert response.status_code == 400
    assert response.json()["error_code"] == "BAD_REQUEST"
    assert message in response.json()["message"]
    assert "of shape (n, 2, 2, 1), numbers from 0 to 1" in response.json()["message"]
    assert len(response.text) < 1000


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("attacker.example", 403),
        ("attacker.example:5001", 403),
        ("127.0.0.1.attacker.example", 403),
        ("", 403),
        ("[::1", 403),
        ("localhost", 200),
        ("LOCALHOST:1234", 200),
        ("127.0.0.1:80", 200),
        ("[::1]:80", 200),
        ("192.0.2.7", 200),
        ("digits.example:5001", 200),
    ],
)
def test_foreign_hosts_are_refused(port: int, host: str, status: int):
    assert post(port, GOOD, Host=host).status_code == status


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("application/json", 200),
        ("Application/JSON; charset=UTF-8", 200),
        ("application/json; charset=latin-1", 415),
        ("text/plain", 415),
        ("text/csv", 415),
        ("", 415),
    ],
)
def test_only_json_is_taken(port: int, kind: str, status: int):
    assert post(port, GOOD, Content_Type=kind).status_code == status


HALF_A_HEADER = b"POST /invocations HTTP/1.1\r\nHost: localhost\r\nX-Slow: "
HALF_A_BODY = (
    b"POST /invocations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 999\r\n\r\n{"
)
WHOLE = b"GET /ping HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.mark.parametrize("sent", [b"", HALF_A_HEADER, HALF_A_BODY, WHOLE])
def test_clients_that_let_the_server_wait_take_no_place(port: int, sent: bytes):
    with ExitStack() as opened:
        for _ in range(100):
            client = opened.enter_context(socket.create_connection(("127.0.0.1", port)))
            client.sendall(sent)
        assert post(port, GOOD).status_code == 200


@pytest.mark.parametrize("sent", [b"", HALF_A_HEADER, HALF_A_BODY, WHOLE])
def test_clients_that_let_the_server_wait_are_cut_off(port: int, sent: bytes, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(connections, "PATIENCE", 0.3)
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.sendall(sent)
        with suppress(ConnectionResetError):
            while client.recv(4096):
                pass


def test_drops_of_a_header_do_not_prolong_the_wait(port: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(connections, "PATIENCE", 0.5)
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client, suppress(OSError):
        client.sendall(HALF_A_HEADER)
        while time.monotonic() < began + 20:
            client.sendall(b"x")
            time.sleep(0.05)
    assert time.monotonic() < began + 10


def test_a_client_that_takes_no_answer_is_cut_off(port: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(connections, "PATIENCE", 0.5)
    body = json.dumps({"inputs": GOOD["inputs"] * 3000}).encode()
    request = HALF_A_BODY.replace(b"999", str(len(body)).encode()).removesuffix(b"{") + body
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            client.sendall(request * 1000)


def test_beyond_the_limit_the_longest_waiting_connection_is_cut_off(port: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 20)
    with ExitStack() as opened:
        clients = [opened.enter_context(socket.create_connection(("127.0.0.1", port), timeout=20)) for _ in range(60)]
        assert post(port, GOOD).status_code == 200
        with suppress(ConnectionResetError):
            assert clients[0].recv(1) == b""


def test_many_clients_at_a_time_are_answered(port: int):
    with ThreadPoolExecutor(64) as pool:
        statuses = list(pool.map(lambda _: post(port, GOOD).status_code, range(256)))
    assert statuses == [200] * 256


def test_too_many_requests_at_a_time_are_refused(monkeypatch: pytest.MonkeyPatch):
    lane = admission.Lane(2)
    with lane.place():
        with lane.place(), pytest.raises(HTTPException) as refusal, lane.place():
            pass
        assert refusal.value.status_code == 503
        with lane.place():
            pass


def test_large_bodies_that_do_not_end_are_bounded_and_hold_up_no_small_ones(port: int):
    head = HALF_A_BODY.replace(b"999", b"10000000")
    with ExitStack() as opened:
        clients = [opened.enter_context(socket.create_connection(("127.0.0.1", port), timeout=20)) for _ in range(6)]
        for client in clients:
            with suppress(OSError):
                client.sendall(head + bytes(2 * admission.SMALL))
        time.sleep(0.5)
        assert post(port, GOOD).status_code == 200
        assert post(port, b" " * (2 * admission.SMALL)).status_code == 503
    time.sleep(0.5)
    assert post(port, b" " * (2 * admission.SMALL)).status_code == 400


@pytest.mark.parametrize("garbage", [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"GET\r\n\r\n", b"\0" * 200_000])
def test_what_is_not_http_does_not_disturb(port: int, garbage: bytes):
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client, suppress(OSError):
        client.sendall(garbage)
        client.recv(1000)
    assert post(port, GOOD).status_code == 200


@pytest.mark.parametrize("answered_first", [False, True])
def test_a_malformed_body_is_not_logged(
    port: int, answered_first: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """Each would be a traceback, with which a client could fill the disk."""
    monkeypatch.setattr(logging.getLogger("uvicorn"), "propagate", True)
    answer, head, body = (
        b"",
        b"GET /ping HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"no size\r\n",
    )
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client, suppress(OSError):
        client.sendall(head if answered_first else head + body)
        answer = client.recv(1000)
        client.sendall(body)
        while client.recv(1000):
            pass
    assert answer.startswith(b"HTTP/1.1 200" if answered_first else b"HTTP/1.1 400")
    assert post(port, GOOD).status_code == 200
    assert not caplog.records


def test_answers_are_sent_without_waiting_for_acknowledgements():
    with (
        server._listen(server.Address("127.0.0.1", 0)) as listening,
        socket.create_connection(listening.getsockname()),
        closing(listening.accept()[0]) as accepted,
    ):
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.parametrize("host", ["127.0.0.1", "192.0.2.1"])
def test_an_address_that_cannot_be_listened_at_is_reported(host: str):
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"cannot listen at {host}, port {port}: .*; allowed: as --host an address"):
            server._listen(server.Address(host, port))


pixels = st.one_of(
    st.integers(0, 1), st.floats(0, 1), st.floats(), st.booleans(), st.none(), st.text(max_size=3), st.integers()
)
trees = st.recursive(
    pixels,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=2)),
)
valid_images = st.lists(
    st.lists(
        st.lists(
            st.lists(st.one_of(st.integers(0, 1), st.floats(0, 1)), min_size=1, max_size=1), min_size=2, max_size=2
        ),
        min_size=2,
        max_size=2,
    ),
    min_size=1,
    max_size=3,
)


def valid(value: Any, image: tuple[int, ...] = (-1, *IMAGE)) -> bool:
    """The documented behaviour, written without the checks that the server uses."""
    if not image:
        return type(value) in (int, float) and math.isfinite(value) and 0 <= value <= 1
    size = len(value) if isinstance(value, list) else 0
    return size > 0 and image[0] in (-1, size) and all(valid(each, image[1:]) for each in value)


read = scoring._reader(IMAGE)


def read_or_refused(content: bytes) -> Any:
    """Read a body; None where it is refused with status 400."""
    try:
        return read(content)
    except HTTPException as error:
        return None if error.status_code == 400 else error


@settings(max_examples=500, derandomize=True, deadline=None)
@given(st.sampled_from(["inputs", "instances", "other"]), st.one_of(valid_images, trees))
def test_exactly_the_documented_bodies_are_taken(key: str, value: Any):
    taken = read_or_refused(json.dumps({key: value}).encode())
    assert (taken is not None) == (key != "other" and valid(value))
    if taken is not None:
        np.testing.assert_array_equal(np.array(taken, np.float32), np.array(value, np.float32))


@settings(max_examples=300, derandomize=True, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=200),
        st.tuples(st.integers(0, 60), st.binary(max_size=4)).map(
            lambda change: image("0.25")[: change[0]] + change[1] + image("0.25")[change[0] :]
        ),
    )
)
def test_any_bytes_are_read_or_refused(content: bytes):
    images = read_or_refused(content)
    assert images is None or valid(images)


@settings(max_examples=300, derandomize=True, deadline=None)
@given(st.binary(max_size=300), st.booleans(), st.sampled_from([b"x", b"\r\n", b"--", b"0" * 70]))
def test_any_form_is_read_or_refused(content: bytes, wrapped: bool, boundary: bytes):
    head = b"Content-Disposition: form-data; name=image\r\n\r\n"
    body = b"--%s\r\n%s%s\r\n--%s--\r\n" % (boundary, head, content, boundary) if wrapped else content
    found = None
    with suppress(HTTPException):
        found = uploads._field(body, boundary)
        assert found in body
    if wrapped and b"--" + boundary not in content + b"\r\n" and boundary not in content:
        assert found == content
