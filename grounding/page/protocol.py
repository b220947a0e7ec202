"""HTTP/1.1 connections with timeouts. uvicorn alone waits forever for headers and for slow readers."""

import asyncio
import json
import socket
from functools import partial
from http import HTTPStatus
from typing import Any, cast

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from grounding.page.limits import Limits
from grounding.page.middleware import CheckRequests

SHUTDOWN_SECONDS = 5  # time to finish the current responses when the server is stopped


def make_server(app: CheckRequests, limits: Limits) -> uvicorn.Server:
    """Makes the server of an application.

    Args:
        app: the application, with its checks.
        limits: ``connections``, ``header_seconds``, ``send_seconds`` and ``retry_seconds`` are used.

    Returns:
        The server; its method ``run(sockets=[...])`` serves until it is stopped.
    """
    config = uvicorn.Config(
        app,
        # uvicorn only calls it, so a function that makes the protocol is enough
        http=cast(type[asyncio.Protocol], partial(TimeoutProtocol, limits)),
        ws="none",
        log_config=None,
        log_level="warning",
        access_log=False,  # the tokens in paths are secret
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )
    return uvicorn.Server(config)


class TimeoutProtocol(H11Protocol):
    """One connection. It is closed if there are too many, if the headers are late, or if the client does not read.

    Args:
        limits: ``connections``, ``header_seconds``, ``send_seconds`` and ``retry_seconds`` are used.
        **arguments: those of uvicorn's protocol.
    """

    def __init__(self, limits: Limits, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._limits = limits
        self._header_timer: asyncio.TimerHandle | None = None
        self._send_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Starts the connection. Called by asyncio."""
        super().connection_made(cast(asyncio.Transport, transport))
        # asyncio does not set this for sockets of others; without it, the second packet of a response waits 40 ms
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if len(self.connections) > self._limits.connections:
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "the server has too many connections: try again later")
        else:
            self._start_header_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends the connection. Called by asyncio."""
        for timer in (self._header_timer, self._send_timer):
            if timer:
                timer.cancel()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        """Waits for the next request. Called by uvicorn."""
        self._start_header_timer()
        super().on_response_complete()

    def pause_writing(self) -> None:
        """Starts the timer of a client that does not read. Called by asyncio."""
        super().pause_writing()
        self._send_timer = self.loop.call_later(self._limits.send_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """Stops the timer of a client that reads again. Called by asyncio."""
        if self._send_timer:
            self._send_timer.cancel()
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """Refuses bytes that are not HTTP. Called by uvicorn."""
        self._refuse(HTTPStatus.BAD_REQUEST, "the request is not valid HTTP")

    def _start_header_timer(self) -> None:
        if self._header_timer:
            self._header_timer.cancel()
        self._header_timer = self.loop.call_later(self._limits.header_seconds, self._on_header_timeout)

    def _on_header_timeout(self) -> None:
        if self.cycle is None:
            seconds = self._limits.header_seconds
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, f"the headers did not arrive within {seconds:g} s: try again")
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
