"""Measure requests per second and latency of `make serve`, which must be running:  python -m benchmarks.serving

With --hostile N, that many further clients do what they should not: send headers slowly, bodies that do not end,
bodies beyond the limit, invalid JSON, bytes that are no HTTP, or nothing at all.
"""

import itertools
import random
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np
import psutil
import requests

from benchmarks.project import ROOT, parser
from pipeline.core import dataset
from pipeline.core.paths import Paths

HOST = "127.0.0.1"
MAX_SECONDS = 300  # after which hostile clients stop, whatever happens
HEADERS = b"POST /invocations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--port", type=int, default=5001)
    arguments.add_argument("--requests", type=int, default=500)
    arguments.add_argument("--clients", type=int, default=4, help="at a time, each with its own connection")
    arguments.add_argument("--images", type=int, default=1, help="in each request")
    arguments.add_argument("--hostile", type=int, default=0, help="hostile clients beside them, at most 500")
    given = arguments.parse_args()
    images = dataset.load(Paths(ROOT), "test").images.astype(np.float32) / 255
    address = f"http://{HOST}:{given.port}/invocations"
    share = given.requests // given.clients

    def client(number: int) -> list[float]:
        seconds = []
        with requests.Session() as session:
            for request in range(share):
                start = (number * share + request) * given.images % (len(images) - given.images + 1)
                body = {"inputs": images[start : start + given.images].tolist()}
                began = time.perf_counter()
                session.post(address, json=body).raise_for_status()
                seconds.append(time.perf_counter() - began)
        return seconds

    stop = threading.Event()
    hostile = [
        threading.Thread(target=harass, args=(given.port, behaviour, stop), daemon=True)
        for behaviour, _ in zip(itertools.cycle(BEHAVIOURS), range(min(given.hostile, 500)), strict=False)
    ]
    for thread in hostile:
        thread.start()
    began = time.perf_counter()
    try:
        with ThreadPoolExecutor(given.clients) as pool:
            seconds = np.concatenate(list(pool.map(client, range(given.clients))))
        total = time.perf_counter() - began
    finally:
        stop.set()
    p50, p95, p99 = np.percentile(seconds, [50, 95, 99]) * 1000
    print(
        f"{len(seconds)} requests of {given.images} image(s), {given.clients} clients, {len(hostile)} hostile ones: "
        f"{len(seconds) / total:.1f} requests/s, {len(seconds) * given.images / total:.0f} images/s; "
        f"median {p50:.0f} ms, 95% within {p95:.0f} ms, 99% within {p99:.0f} ms; "
        f"memory of the server {memory(given.port) / 2**20:,.0f} MiB"
    )


def memory(port: int) -> int:
    """The resident memory, in bytes, of the process that listens at a port of this machine."""
    listening = (found for found in psutil.net_connections("tcp") if found.status == psutil.CONN_LISTEN)
    [process] = {found.pid for found in listening if found.laddr.port == port and found.pid}
    return psutil.Process(process).memory_info().rss


Behaviour = Callable[[socket.socket, threading.Event], None]


def silent(client: socket.socket, stop: threading.Event) -> None:
    stop.wait(10)


def slow_header(client: socket.socket, stop: threading.Event) -> None:
    client.sendall(HEADERS)
    drip(client, b"x", stop)


def slow_body(client: socket.socket, stop: threading.Event) -> None:
    client.sendall(HEADERS + b"Content-Length: 100000\r\n\r\n")
    drip(client, b"[", stop)


def huge_body(client: socket.socket, stop: threading.Event) -> None:
    client.sendall(HEADERS + b"Transfer-Encoding: chunked\r\n\r\n")
    for _ in range(300):  # 20 MB, more than is allowed
        client.sendall(b"10000\r\n" + b"[" * 65536 + b"\r\n")
        if stop.wait(0.01):
            return


def malformed(client: socket.socket, stop: threading.Event) -> None:
    body = random.choice([b"{", b"[" * 60_000, b'{"inputs": [[[[true]]]]}', b'{"inputs": ' + b"9" * 5000 + b"}"])
    client.sendall(HEADERS + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    client.recv(4096)
    stop.wait(0.5)


def no_http(client: socket.socket, stop: threading.Event) -> None:
    client.sendall(random.randbytes(1000) + b"\r\n\r\n")
    client.recv(4096)
    stop.wait(0.5)


def drip(client: socket.socket, byte: bytes, stop: threading.Event) -> None:
    while not stop.wait(0.2):
        client.sendall(byte)


BEHAVIOURS: tuple[Behaviour, ...] = (silent, slow_header, slow_body, huge_body, malformed, no_http)


def harass(port: int, behaviour: Behaviour, stop: threading.Event) -> None:
    """Behave in this way, with one connection after another, until told to stop."""
    end = time.monotonic() + MAX_SECONDS
    while not stop.is_set() and time.monotonic() < end:
        with suppress(OSError), socket.create_connection((HOST, port), timeout=10) as client:
            behaviour(client, stop)
        stop.wait(0.05)


if __name__ == "__main__":
    main()
