"""MLflow's server of one network, with bounds on what it takes: of its own it reads a request of any size."""

import gc
from collections.abc import Awaitable, Callable

import numpy as np
import uvicorn
from fastapi import FastAPI, Request, Response
from mlflow.pyfunc import PyFuncModel, scoring_server
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.routing import Route

from pipeline.paths import Paths
from pipeline.tracking import registry

MAX_BODY = 2**24  # bytes of a request: some 3,000 images of MNIST. JSON of lists takes up to 20 times as much memory
MAX_REQUESTS = 16  # at a time; the next one is answered 503


def serve(paths: Paths, uri: str, host: str, port: int) -> None:
    """Answer POST /invocations with the probabilities of a registered network, until stopped.

    Raises:
        DataError: there is no such network.
    """
    app = application(registry.found(paths, uri))
    gc.freeze()  # a request is many small lists, and for each the collector would look at all that is loaded
    gc.set_threshold(100_000)
    np.set_printoptions(threshold=0, edgeitems=1)  # MLflow's messages quote the images
    uvicorn.run(app, host=host, port=port, limit_concurrency=MAX_REQUESTS, log_level="warning")


def application(model: PyFuncModel) -> FastAPI:
    """What MLflow serves, and the status 4xx where MLflow's is 500 for a request that cannot be answered."""
    app = scoring_server.init(model)
    for route in app.routes:
        if isinstance(route, Route) and route.path == "/invocations":
            # Not around the whole: a middleware in between, of MLflow, would make a 500 of it.
            route.app = RequestBodyLimitMiddleware(route.app, MAX_BODY)

    @app.middleware("http")
    async def typed(request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
        if request.method == "POST" and "content-type" not in request.headers:
            return Response("the header content-type is missing; allowed: application/json", 415)
        return await answer(request)

    @app.exception_handler(RecursionError)
    async def nested(request: Request, error: Exception) -> Response:
        return Response("the JSON is nested too deeply", 400)

    return app
