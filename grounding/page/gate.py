"""What every request passes before a route sees it: who asks, how large, how slow; and what every answer carries.

Written against ASGI (https://asgi.readthedocs.io), so that no part of the framework works on an unchecked request.
"""

import asyncio
import json
import logging
import re
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from contextlib import suppress
from typing import Any

from grounding.page.limits import Limits

log = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

PORT = re.compile(r":\d*$")
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
HEAD_BYTES = 16384  # of all headers together
FAULT = "a fault of the server; its log says more"
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}


class Refused(Exception):  # noqa: N818, for it is an answer
    """A request that is answered with a message and no work."""

    def __init__(self, status: int, message: str, retry: int | None = None):
        super().__init__(message)
        self.status, self.retry = status, retry


class Gone(Exception):  # noqa: N818, for nobody is left to be told
    """The client went away."""


class Gate:
    """Refuses foreign hosts and origins, bodies that are too large or too slow; ends what nobody waits for.

    Args:
        app: what is behind; limits: upload_bytes, json_bytes, held_bytes, body_seconds, retry_seconds.
        hosts: names that the server answers to, without ports; "*" for any.
        uploads: the paths whose bodies are photos.
    """

    def __init__(self, app: App, limits: Limits, hosts: Collection[str], uploads: Collection[str]):
        self._app, self._limits, self._hosts, self._uploads = app, limits, set(hosts), uploads
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Called by the server for each request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        reply, body = Reply(send), bytearray()
        try:
            if sum(len(name) + len(value) for name, value in scope["headers"]) > HEAD_BYTES:
                raise Refused(431, f"the head has more than {HEAD_BYTES} bytes")
            self._check_source(scope["method"], headers(scope))
            await self._take(body, scope, receive)
            await self._run(scope, bytes(body), receive, reply)
        except Refused as refused:
            await reply.refuse(refused)
        except Gone:
            pass
        except Exception:
            log.exception("a fault of ours while a request was answered")
            await reply.refuse(Refused(500, FAULT))
        finally:
            self._held -= len(body)

    def _check_source(self, method: str, given: dict[str, str]) -> None:
        """A page of another site must not reach a server on the visitor's own machine, under whatever name."""
        host = given.get("host", "")
        if not self._hosts & {"*", PORT.sub("", host.lower())}:
            raise Refused(403, "this server does not answer to that name: add it to step.hosts")
        origin, site = given.get("origin"), given.get("sec-fetch-site", "none")
        foreign = site not in ("none", "same-origin") or (origin is not None and origin.partition("://")[2] != host)
        if method not in SAFE_METHODS and foreign:
            raise Refused(403, "a page of another site may not ask this server")

    async def _take(self, body: bytearray, scope: Scope, receive: Receive) -> None:
        """Fills ``body``."""
        limits = self._limits
        most = limits.upload_bytes if scope["path"] in self._uploads else limits.json_bytes
        try:
            async with asyncio.timeout(limits.body_seconds):
                await self._fill(body, most, headers(scope).get("content-length", "0"), receive)
        except TimeoutError as error:
            message = f"the body was not there within {limits.body_seconds:g} s"
            raise Refused(408, message) from error

    async def _fill(self, body: bytearray, most: int, declared: str, receive: Receive) -> None:
        large = Refused(413, f"the body has more than {most} bytes; make it smaller")
        if int(declared) > most:
            raise large
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Gone
            chunk, more = message.get("body", b""), message.get("more_body", False)
            if len(body) + len(chunk) > most:
                raise large
            if self._held + len(chunk) > self._limits.held_bytes:
                raise Refused(503, "busy: too much is arriving; come back later", self._limits.retry_seconds)
            body += chunk
            self._held += len(chunk)

    async def _run(self, scope: Scope, body: bytes, receive: Receive, reply: "Reply") -> None:
        """Runs the app on a body that is there, until it has answered or the client has gone."""
        answer = asyncio.ensure_future(self._app(scope, Replay(body), reply))
        watch = asyncio.ensure_future(_disconnected(receive))
        try:
            await asyncio.wait((answer, watch), return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                raise Gone
            answer.result()
        finally:
            for task in (answer, watch):
                task.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await answer


class Replay:
    """Gives a body that was received before, and then nothing any more."""

    def __init__(self, body: bytes):
        self._body: bytes | None = body

    async def __call__(self) -> dict:
        """The one message."""
        if self._body is None:
            await asyncio.get_running_loop().create_future()
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}


class Reply:
    """An answer on its way: carries our headers, and knows whether it has begun."""

    def __init__(self, send: Send):
        self._send, self._began = send, False

    async def __call__(self, message: dict) -> None:
        """Called by the app."""
        if message["type"] == "http.response.start":
            self._began = True
            given = dict(message.get("headers", ()))
            message = message | {"headers": [*message.get("headers", ()), *(h for h in _HEADERS if h[0] not in given)]}
        await self._send(message)

    async def refuse(self, refused: Refused) -> None:
        """Tells why, unless an answer has begun already."""
        if self._began:
            return
        body = json.dumps({"error": str(refused)}).encode("ascii")
        lines = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode("ascii"))]
        if refused.retry is not None:
            lines.append((b"retry-after", str(refused.retry).encode("ascii")))
        await self({"type": "http.response.start", "status": refused.status, "headers": lines})
        await self({"type": "http.response.body", "body": body})


_HEADERS = [(name.encode("ascii"), value.encode("ascii")) for name, value in HEADERS.items()]


def headers(scope: Scope) -> dict[str, str]:
    """A request's headers by their lower-cased names; of several with one name the last."""
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
