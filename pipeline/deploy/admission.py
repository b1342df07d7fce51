"""Admission of HTTP requests: hosts, origins, bodies of bounded size, a bounded number at a time; refusals."""

import asyncio
import ipaddress
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from http import HTTPStatus
from typing import Any, TypeVar
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

MAX_BODY = 2**24  # bytes: some 3,000 images of MNIST as JSON
SMALL = 2**18  # bytes: some 40 images of MNIST; larger bodies have a lane of their own, so that small ones go past them
MAX_LARGE = 4  # requests whose bodies have grown large, complete or not: each holds up to MAX_BODY
MAX_QUOTED = 200  # characters of the request in an error message

T = TypeVar("T")


class Lane:
    """A thread, and the places in its queue."""

    def __init__(self, places: int) -> None:
        self.thread = ThreadPoolExecutor(1)
        self._free = places

    @contextmanager
    def place(self) -> Iterator[None]:
        """Take a place for the duration of the block.

        Raises:
            HTTPException: there is none: 503.
        """
        if not self._free:
            raise HTTPException(HTTPStatus.SERVICE_UNAVAILABLE, "too many requests at a time; try again later")
        self._free -= 1
        try:
            yield
        finally:
            self._free += 1


class Lanes:
    """Two lanes for the requests of one kind: for small bodies, and for large ones."""

    def __init__(self, places: int) -> None:
        """Args:
        places: requests whose bodies are complete and small; the next one gets 503.
        """
        self._small, self._large = Lane(places), Lane(MAX_LARGE)

    async def answer(self, request: Request, compute: Callable[[bytes], T]) -> T:
        """Receive a body, and compute the answer in the thread of its lane.

        Raises:
            HTTPException: the body is too large, there is no place, or the client is gone.
        """
        try:
            with ExitStack() as held:
                body, lane = await self._body(request, held)
                return await asyncio.get_running_loop().run_in_executor(lane.thread, compute, bytes(body))
        except ClientDisconnect:
            raise HTTPException(HTTPStatus.REQUEST_TIMEOUT) from None  # nobody will read it

    async def _body(self, request: Request, held: ExitStack) -> tuple[bytearray, Lane]:
        """Receive a body, and take a place in its lane."""
        too_large = HTTPException(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"Content Too Large; allowed: {MAX_BODY:,} bytes"
        )
        if int(request.headers.get("content-length", 0)) > MAX_BODY:
            raise too_large
        body, lane = bytearray(), self._small
        async for part in request.stream():
            body += part
            if len(body) > MAX_BODY:
                raise too_large
            if len(body) > SMALL and lane is self._small:
                lane = self._large
                held.enter_context(lane.place())
        if lane is self._small:
            held.enter_context(lane.place())
        return body, lane


class KnownHosts:
    """Refuses requests that were addressed to a foreign name.

    A page in a browser may point a name of its own at this server's address, and so get past the browser's rule that
    pages read answers of their own host only (DNS rebinding). With an IP address, it cannot.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str]) -> None:
        self._app = app
        self._names = {"localhost", *(name.lower() for name in hosts)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            name = _name(dict(scope["headers"]).get(b"host", b"").decode("latin-1"))
            if name not in self._names and not _is_address(name):
                message = (
                    f"the host {name[:MAX_QUOTED]!r} is not known here; allowed: IP addresses and --allow-host names"
                )
                await _answer(HTTPStatus.FORBIDDEN, message)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def require_own_origin(request: Request) -> None:
    """Refuse a request that a page of another origin made a browser send: forms need no permission for that.

    Raises:
        HTTPException: the header Origin names another host or port: 403.
    """
    origin = request.headers.get("origin")
    if origin is not None and origin.partition("://")[2].lower() != request.headers.get("host", "").lower():
        message = f"the origin {origin[:MAX_QUOTED]!r} is another page than this server's"
        raise HTTPException(HTTPStatus.FORBIDDEN, message)


def content_type(request: Request) -> str:
    """The header content-type, shortened for messages."""
    return request.headers.get("content-type", "missing")[:MAX_QUOTED]


async def refusal(_: Request, error: Exception) -> Response:
    """Answer an HTTPException."""
    assert isinstance(error, HTTPException)
    return _answer(HTTPStatus(error.status_code), error.detail, error.headers)


def _answer(status: HTTPStatus, message: str, headers: Any = None) -> Response:
    return JSONResponse({"error_code": status.name, "message": message}, status, headers)


def _name(host: str) -> str:
    """Return the name in a Host header, without its port."""
    try:
        return (urlsplit(f"//{host}").hostname or "").removesuffix(".")
    except ValueError:
        return ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
