"""The HTTP application: POST /invocations, GET /ping, /health and /version, as in MLflow's scoring server.

A request is checked before it costs anything: its host, content type and size, how many others are in hand, and, while
the JSON is read, the type and range of every pixel.
"""

import json
from collections.abc import Callable, Collection, Iterable
from http import HTTPStatus
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import FailFast, Field, TypeAdapter, ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from pipeline.deploy.admission import MAX_QUOTED, KnownHosts, Lanes, content_type, refusal

PLACES = 256  # requests with small bodies that wait for their answers

Predict = Callable[[np.ndarray], np.ndarray]


def application(
    predict: Predict, image: tuple[int, ...], hosts: Collection[str], version: str, further: Iterable[Route] = ()
) -> Starlette:
    """Return the application.

    Args:
        predict: images (n, *image), float32 in [0, 1], to probabilities (n, classes); called from two threads.
        hosts: names that requests may be addressed to, beside localhost and IP addresses.
        version: what GET /version answers.
        further: routes beside those of MLflow's scoring server.
    """
    reader, lanes = _reader(image), Lanes(PLACES)

    def answer(body: bytes) -> bytes:
        images = np.array(reader(body), np.float32)
        return json.dumps({"predictions": predict(images).astype(np.float32).tolist()}).encode()

    async def invocations(request: Request) -> Response:
        _require_json(request)
        return Response(await lanes.answer(request, answer), media_type="application/json")

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
            *further,
        ],
        middleware=[Middleware(KnownHosts, hosts=hosts)],
        exception_handlers={HTTPException: refusal},
    )


def _require_json(request: Request) -> None:
    given = request.headers.get("content-type", "missing")
    kind, *parameters = (part.strip().lower() for part in given.split(";"))
    if kind != "application/json" or any(part not in ("", "charset=utf-8") for part in parameters):
        message = f"the header content-type is {content_type(request)}; allowed: application/json, in UTF-8"
        raise HTTPException(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, message)


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
