"""MLflow's scoring server, with bounds on requests: MLflow itself reads a body of any size into memory."""

import gc
from collections.abc import Awaitable, Callable

import numpy as np
import uvicorn
from fastapi import FastAPI, Request, Response
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.routing import Route

from pipeline.core.config import Runtime
from pipeline.core.paths import Paths
from pipeline.runtime import device
from pipeline.tracking import registry

MAX_BODY = 2**24  # bytes: some 3,000 images of MNIST. JSON of lists takes up to 20 times as much memory
MAX_REQUESTS = 16  # at a time; the next one gets status 503


def serve(paths: Paths, uri: str, runtime: Runtime, host: str, port: int) -> None:
    """Serve the probabilities of a registered network at POST /invocations until stopped.

    Raises:
        DataError: the network does not exist.
    """
    device.start(runtime)
    app = bounded(registry.scoring_app(paths, uri))
    gc.freeze()  # a request is many small lists, for each of which the collector would scan all that is loaded
    gc.set_threshold(100_000)
    np.set_printoptions(threshold=0, edgeitems=1)  # MLflow's error messages quote the images
    print(f"{uri} at http://{host}:{port}/invocations", flush=True)
    uvicorn.run(app, host=host, port=port, limit_concurrency=MAX_REQUESTS, log_level="warning")


def bounded(app: FastAPI) -> FastAPI:
    """Limit the size of requests, and respond with a 4xx status to some bad ones that MLflow answers with 500."""
    for route in app.routes:
        if isinstance(route, Route) and route.path == "/invocations":
            # Around the route, not the application: MLflow's middleware in between would turn a 413 into a 500.
            route.app = RequestBodyLimitMiddleware(route.app, MAX_BODY)

    @app.middleware("http")
    async def require_content_type(request: Request, respond: Callable[[Request], Awaitable[Response]]) -> Response:
        if request.method == "POST" and "content-type" not in request.headers:
            return Response("the header content-type is missing; allowed: application/json", 415)
        return await respond(request)

    @app.exception_handler(RecursionError)
    async def refuse_nesting(request: Request, error: Exception) -> Response:
        return Response("the JSON is nested too deeply", 400)

    return app
