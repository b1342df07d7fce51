"""A loopback HTTP server with scripted faults: each request gets the next of the given responses."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread

PAGE = b"<!DOCTYPE html>\n<html><body>This network needs a login.</body></html>"


@dataclass
class Server:
    """The served content, the scripted responses, and the Range headers received, "" for none."""

    content: bytes
    responses: list[Callable[["Request"], None]]
    ranges: list[str] = field(default_factory=list)
    closing: Event = field(default_factory=Event)
    url: str = ""


class Request(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        state = self.state
        state.ranges.append(self.headers.get("Range", ""))
        self.close_connection = True
        with suppress(BrokenPipeError, ConnectionResetError):  # the client may have closed the connection
            state.responses[min(len(state.ranges), len(state.responses)) - 1](self)

    def head(self, status: int, length: int | None, **headers: str) -> None:
        self.send_response(status)
        if length is not None:
            self.send_header("Content-Length", str(length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    @property
    def start(self) -> int:
        return int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))

    @property
    def content(self) -> bytes:
        return self.state.content

    @property
    def state(self) -> "Server":
        assert isinstance(self.server, _HttpServer)
        return self.server.state

    def log_message(self, format: str, *args: object) -> None:
        pass


class _HttpServer(ThreadingHTTPServer):
    daemon_threads = True
    state: Server


@contextmanager
def serving(content: bytes, *responses: Callable[[Request], None]) -> Iterator[Server]:
    """A server that sends the responses in order, and repeats the last one."""
    http = _HttpServer(("127.0.0.1", 0), Request)
    http.state = Server(content, list(responses), url=f"http://127.0.0.1:{http.server_port}")
    thread = Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield http.state
    finally:
        http.state.closing.set()
        http.shutdown()
        http.server_close()
        thread.join()


def good(request: Request) -> None:
    _rest(request, len(request.content))


def half(request: Request) -> None:
    """Announce everything, send half of the requested bytes, and close the connection."""
    _rest(request, (request.start + len(request.content)) // 2)


def _rest(request: Request, stop: int) -> None:
    total, start = len(request.content), request.start
    if start >= total:
        return request.head(416, 0)
    headers = {"Content_Range": f"bytes {start}-{total - 1}/{total}"} if start else {}
    request.head(206 if start else 200, total - start, **headers)
    request.wfile.write(request.content[start:stop])


def without_ranges(request: Request) -> None:
    request.head(200, len(request.content))
    request.wfile.write(request.content)


def flipped(request: Request) -> None:
    """Flip one bit."""
    wrong = bytearray(request.content)
    wrong[len(wrong) // 2] ^= 1
    request.head(200, len(wrong))
    request.wfile.write(wrong)


def page(request: Request) -> None:
    request.head(200, len(PAGE), Content_Type="text/html")
    request.wfile.write(PAGE)


def labelled_gzip(request: Request) -> None:
    """Send the plain file with a header that would make a client decompress it."""
    request.head(200, len(request.content), Content_Encoding="gzip")
    request.wfile.write(request.content)


def endless(request: Request) -> None:
    request.head(200, None)
    while not request.state.closing.is_set():
        request.wfile.write(bytes(2**16))


def silent(request: Request) -> None:
    request.state.closing.wait(20)


def dripping(request: Request) -> None:
    """Send a byte every 10 ms, which never exceeds the read time-out."""
    request.head(200, len(request.content))
    for byte in request.content:
        if request.state.closing.wait(0.01):
            return
        request.wfile.write(bytes([byte]))


def dripping_headers(request: Request) -> None:
    """Send a byte of an endless header every 10 ms."""
    request.wfile.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
    while not request.state.closing.wait(0.01):
        request.wfile.write(b"x")


def slow(request: Request) -> None:
    """Send the first quarter at once, then nothing until the client is gone."""
    request.head(200, len(request.content))
    request.wfile.write(request.content[: len(request.content) // 4])
    request.wfile.flush()
    request.state.closing.wait(20)


def of_length(length: str) -> Callable[[Request], None]:
    """Announce a length, send everything, and close the connection."""

    def respond(request: Request) -> None:
        request.head(200, None, Content_Length=length)
        request.wfile.write(request.content)

    return respond


def status(code: int, **headers: str) -> Callable[[Request], None]:
    return lambda request: request.head(code, 0, **headers)


def wait_for(condition: Callable[[], bool], seconds: float = 20) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.01)
