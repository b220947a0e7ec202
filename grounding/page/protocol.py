"""HTTP on a socket, with an end to patience: uvicorn alone waits for ever for a head, and for a reader."""

import asyncio
import json
import socket
from functools import partial
from http import HTTPStatus

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from grounding.page.gate import Gate
from grounding.page.limits import Limits

GRACE = 5  # seconds for answers that are on their way when the server is stopped


def server(app: Gate, limits: Limits) -> uvicorn.Server:
    """A server of an application; ``run(sockets=[...])`` serves."""
    config = uvicorn.Config(
        app,
        http=partial(PatientProtocol, limits),
        ws="none",
        log_config=None,
        log_level="warning",
        access_log=False,  # the tokens in paths are secrets
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=GRACE,
    )
    return uvicorn.Server(config)


class PatientProtocol(H11Protocol):
    """One connection: too many at once, a head that does not come, an answer that is not read end it.

    Args:
        limits: connections, header_seconds, send_seconds, retry_seconds; given: what uvicorn gives.
    """

    def __init__(self, limits: Limits, **given: object):
        super().__init__(**given)
        self._limits = limits
        self._head: asyncio.TimerHandle | None = None
        self._reader: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Called by asyncio."""
        super().connection_made(transport)
        # asyncio leaves this out for a socket that it did not make: each answer would wait 40 ms for its second packet
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if len(self.connections) > self._limits.connections:
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "busy: too many connections; come back later")
        else:
            self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by asyncio."""
        for timer in (self._head, self._reader):
            if timer:
                timer.cancel()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        """Called by uvicorn."""
        self._await_head()
        super().on_response_complete()

    def pause_writing(self) -> None:
        """Called by asyncio: the client does not read."""
        super().pause_writing()
        self._reader = self.loop.call_later(self._limits.send_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """Called by asyncio."""
        if self._reader:
            self._reader.cancel()
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """Called by uvicorn for what is no HTTP."""
        self._refuse(HTTPStatus.BAD_REQUEST, "this is no HTTP request that can be read")

    def _await_head(self) -> None:
        if self._head:
            self._head.cancel()
        self._head = self.loop.call_later(self._limits.header_seconds, self._give_up)

    def _give_up(self) -> None:
        if self.cycle is None:
            seconds = self._limits.header_seconds
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, f"the head of the request was not there within {seconds:g} s")
        elif self.cycle.response_complete:
            self.transport.abort()

    def _refuse(self, status: HTTPStatus, message: str) -> None:
        body = json.dumps({"error": message}).encode("ascii")
        retry = f"Retry-After: {self._limits.retry_seconds}\r\n" if status == HTTPStatus.SERVICE_UNAVAILABLE else ""
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: application/json\r\n{retry}"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        self.transport.write(head.encode("ascii") + body)
        self.transport.close()
