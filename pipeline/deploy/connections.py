"""HTTP connections with an end: uvicorn alone waits for a request's headers and body for ever.

A client that lets the server wait therefore costs a connection for `PATIENCE` seconds, and nobody else a place.
"""

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

PATIENCE = 30.0  # seconds for the headers, again for the body and its answer, and again until the answer is taken
IDLE = 10  # seconds between two requests
MAX_CONNECTIONS = 512  # beyond, the one that has let the server wait the longest is cut off


class BoundedConnection(H11Protocol):
    """A connection that is cut off when it lets the server wait."""

    _deadline: asyncio.TimerHandle

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._wait()
        if len(self.connections) > MAX_CONNECTIONS:
            waiting = [each for each in self.connections if isinstance(each, BoundedConnection) and each._awaited()]
            min(waiting, key=lambda each: each._deadline.when()).transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._deadline.cancel()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        before = self.cycle
        super().handle_events()
        if self.cycle is not before:
            self._deadline.cancel()
            self._wait()

    def send_400_response(self, msg: str) -> None:
        """Answer malformed bytes; in the middle of a request or after its answer, uvicorn would log a traceback."""
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.close()
            return
        if self.cycle is not None:
            self.cycle.disconnected = True  # the application may not have answered yet
        super().send_400_response(msg)

    def on_response_complete(self) -> None:
        self._deadline.cancel()
        self._wait()
        super().on_response_complete()

    def _wait(self) -> None:
        # Not closed but aborted: closing would first wait until the client has taken what was written.
        self._deadline = self.loop.call_later(PATIENCE, self.transport.abort)

    def _awaited(self) -> bool:
        """Return whether it is the client's turn: to send headers or a body, or to take an answer."""
        return self.cycle is None or self.cycle.more_body or self.cycle.response_complete
