"""The HTTP application: POST /invocations, GET /ping, /health and /version, as in MLflow's scoring server.

A request is checked before it costs anything: its host, content type and size, how many others are in hand, and, while
the JSON is read, the type and range of every pixel.
"""

import asyncio
import ipaddress
import json
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from http import HTTPStatus
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import numpy as np
from pydantic import FailFast, Field, TypeAdapter, ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

MAX_BODY = 2**24  # bytes: some 3,000 images of MNIST
SMALL = 2**18  # bytes: some 40 images of MNIST; larger bodies have a lane of their own, so that small ones go past them
MAX_SMALL = 256  # requests whose bodies are complete; the next one gets 503
MAX_LARGE = 4  # requests whose bodies have grown large, complete or not: each holds up to MAX_BODY
MAX_QUOTED = 200  # characters of the request in an error message

Predict = Callable[[np.ndarray], np.ndarray]


def application(predict: Predict, image: tuple[int, ...], hosts: Collection[str], version: str) -> Starlette:
    """Return the application.

    Args:
        predict: images (n, *image), float32 in [0, 1], to probabilities (n, classes); called from two threads.
        hosts: names that requests may be addressed to, beside localhost and IP addresses.
        version: what GET /version answers.
    """
    reader = _reader(image)
    small, large = _Lane(MAX_SMALL), _Lane(MAX_LARGE)

    def answer(body: bytearray) -> bytes:
        images = np.array(reader(bytes(body)), np.float32)
        return json.dumps({"predictions": predict(images).astype(np.float32).tolist()}).encode()

    async def invocations(request: Request) -> Response:
        _require_json(request)
        try:
            with ExitStack() as held:
                body, lane = await _body(request, held, small, large)
                content = await asyncio.get_running_loop().run_in_executor(lane.thread, answer, body)
        except ClientDisconnect:
            raise HTTPException(HTTPStatus.REQUEST_TIMEOUT) from None  # nobody will read it
        return Response(content, media_type="application/json")

    async def alive(_: Request) -> Response:
        return Response("\n", media_type="application/json")

    async def mlflow_version(_: Request) -> Response:
        return Response(version, media_type="application/json")

    return Starlette(
        routes=[
            Route("/invocations", invocations, methods=["POST"]),
            Route("/ping", alive),
            Route("/health", alive),
            Route("/version", mlflow_version),
        ],
        middleware=[Middleware(_KnownHosts, hosts=hosts)],
        exception_handlers={HTTPException: _refusal},
    )


class _Lane:
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


class _KnownHosts:
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


def _require_json(request: Request) -> None:
    given = request.headers.get("content-type", "missing")
    kind, *parameters = (part.strip().lower() for part in given.split(";"))
    if kind != "application/json" or any(part not in ("", "charset=utf-8") for part in parameters):
        message = f"the header content-type is {given[:MAX_QUOTED]}; allowed: application/json, in UTF-8"
        raise HTTPException(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, message)


async def _body(request: Request, held: ExitStack, small: _Lane, large: _Lane) -> tuple[bytearray, _Lane]:
    """Receive a body, and take a place in its lane."""
    too_large = HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"Content Too Large; allowed: {MAX_BODY:,} bytes")
    if int(request.headers.get("content-length", 0)) > MAX_BODY:
        raise too_large
    body, lane = bytearray(), small
    async for part in request.stream():
        body += part
        if len(body) > MAX_BODY:
            raise too_large
        if len(body) > SMALL and lane is small:
            lane = large
            held.enter_context(lane.place())
    if lane is small:
        held.enter_context(lane.place())
    return body, lane


def _reader(image: tuple[int, ...]) -> Callable[[bytes], Any]:
    """Return a function from JSON to nested lists of numbers from 0 to 1.

    It raises an HTTPException, status 400, for anything else, at the first error.
    """
    images: Any = Annotated[float, Field(strict=True, ge=0, le=1, allow_inf_nan=False)]
    for size in reversed(image):
        images = Annotated[list[images], Field(min_length=size, max_length=size), FailFast()]
    images = Annotated[list[images], Field(min_length=1), FailFast()]
    body: Any = Annotated[dict[Literal["inputs", "instances"], images], Field(min_length=1, max_length=1), FailFast()]
    adapter = TypeAdapter(body)
    expected = f'expected: {{"inputs": images}} of shape (n, {", ".join(map(str, image))}), numbers from 0 to 1'

    def read(content: bytes) -> Any:
        try:
            [values] = adapter.validate_json(content).values()
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            name, *indices = first["loc"] or ("the body",)
            where = str(name)[:MAX_QUOTED] + "".join(f"[{index}]" for index in indices if index != "[key]")
            raise HTTPException(HTTPStatus.BAD_REQUEST, f"{where}: {first['msg']}; {expected}") from None
        return values

    return read


async def _refusal(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _answer(HTTPStatus(error.status_code), error.detail, error.headers)


def _answer(status: HTTPStatus, message: str, headers: Any = None) -> Response:
    return JSONResponse({"error_code": status.name, "message": message}, status, headers)
