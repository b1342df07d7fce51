"""An HTTP server of a registered network."""

import gc
import importlib.metadata
import socket
from dataclasses import dataclass

import numpy as np
import uvicorn
from starlette.applications import Starlette

from pipeline.core.errors import UserError
from pipeline.core.paths import Paths
from pipeline.core.sections import Runtime
from pipeline.deploy import connections, network, scoring
from pipeline.deploy.classifier import Classifier
from pipeline.deploy.page import page_route
from pipeline.deploy.pictures import Picture
from pipeline.deploy.uploads import predict_route
from pipeline.runtime import device

GRACE = 5  # seconds for the requests in hand, when the server is stopped


@dataclass(frozen=True)
class Address:
    """The address to listen on, and the names beside `host` that requests may be addressed to."""

    host: str
    port: int
    names: tuple[str, ...] = ()


def serve(paths: Paths, uri: str, runtime: Runtime, address: Address) -> None:
    """Serve the probabilities of a registered network at POST /invocations until stopped.

    Raises:
        UserError: the network does not exist or may not be loaded, or the address cannot be listened on.
    """
    with _listen(address) as listening:
        device.start(runtime)
        loaded = network.load(uri, paths)
        classifier, entry = Classifier(loaded), loaded.entry
        for count in (1, 2):  # traces the graph for any number of images before the first request
            loaded.predict(np.zeros((count, *entry.image), np.float32))
        blank = Picture(np.zeros(entry.image, np.float32), 0.0, ())
        classifier.saliency(blank, classifier.classify(blank).best)
        version = importlib.metadata.version("mlflow")
        further = [page_route(loaded.identity, entry), predict_route(classifier)]
        app = scoring.application(loaded.predict, entry.image, (address.host, *address.names), version, further)
        gc.freeze()  # a request is many small lists, for each of which the collector would scan all that is loaded
        gc.set_threshold(100_000)
        print(f"{loaded.identity}\nhttp://{address.host}:{address.port}", flush=True)
        server(app).run(sockets=[listening])


def server(app: Starlette) -> uvicorn.Server:
    """Return a server with bounds on connections; errors of clients are not logged: they could fill a disk."""
    return uvicorn.Server(
        uvicorn.Config(
            app,
            http=connections.BoundedConnection,
            ws="none",
            lifespan="off",
            log_level="error",
            timeout_keep_alive=connections.IDLE,
            timeout_graceful_shutdown=GRACE,
        )
    )


def _listen(address: Address) -> socket.socket:
    """Listen from the start, although the network is loaded first: a port that is taken is reported at once."""
    try:
        [(family, *_, where), *_] = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        listening = socket.create_server(where[:2], family=family)
        # Connections inherit it. asyncio sets it for sockets of its own alone; without it an answer waits 40 ms for the
        # client's acknowledgement of its headers.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listening
    except OSError as error:
        raise UserError(
            f"cannot listen at {address.host}, port {address.port}: {error.strerror}; allowed: as --host an address "
            "of this machine, as --port one that no other process uses"
        ) from None
