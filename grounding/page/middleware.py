"""Checks each request before the application handles it, and adds the security headers to each response.

The checks are host, origin, size and time. They are written for ASGI (https://asgi.readthedocs.io), so that the web
framework never sees an unchecked request.
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

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

PORT = re.compile(r":\d*$")
DEFAULT_PORT = {"http": re.compile(r":80$"), "https": re.compile(r":443$")}
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
MAX_HEADER_BYTES = 16384  # of all headers of a request together
CLIENT = "grounding.client"  # in the scope
CHALLENGES = (b'Basic realm="grounding", charset="UTF-8"', b'Bearer realm="grounding"')
INTERNAL_ERROR = "internal error: see the log of the server"
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}
_ENCODED_HEADERS = [(name.encode("ascii"), value.encode("ascii")) for name, value in HEADERS.items()]


class RequestRefused(Exception):  # noqa: N818, because it is a response and not an error
    """A request that is answered with an error message.

    Args:
        status: the HTTP status.
        message: what is wrong and what to do, in one line.
        retry_after: seconds after which the client may try again, for the header ``Retry-After``.
    """

    def __init__(self, status: int, message: str, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status, self.retry_after = status, retry_after


class ClientDisconnected(Exception):  # noqa: N818, because it is an expected event and not an error
    """The client has closed the connection."""


class CheckRequests:
    """ASGI middleware that refuses wrong hosts, wrong origins, and bodies that are too large or too slow.

    It cancels the application when the client disconnects.

    Args:
        app: the application.
        limits: ``upload_bytes``, ``json_bytes``, ``held_bytes``, ``body_seconds`` and ``retry_seconds`` are used.
        hosts: accepted host names without ports; ``"*"`` accepts all.
        uploads: the paths whose bodies are photos.
        gate: returns the name of the client that sends a request, or refuses it (see ``grounding.page.clients``).
    """

    def __init__(
        self,
        app: App,
        limits: Limits,
        hosts: Collection[str],
        uploads: Collection[str],
        gate: Callable[[Scope], str] = lambda _: "",
    ) -> None:
        self._gate = gate
        self._app, self._limits, self._hosts, self._uploads = app, limits, set(hosts), uploads
        self._held = 0  # bytes of the bodies of all current requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request. Called by the server."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        response, body = ResponseSender(send), bytearray()
        try:
            if sum(len(name) + len(value) for name, value in scope["headers"]) > MAX_HEADER_BYTES:
                raise RequestRefused(431, f"the headers have more than {MAX_HEADER_BYTES} bytes: send fewer")
            scope = {**scope, CLIENT: self._gate(scope)}
            self._check_origin(scope, request_headers(scope))
            await self._receive_body(body, scope, receive)
            await self._run(_as_get(scope), bytes(body), receive, response)
        except RequestRefused as refused:
            await response.refuse(refused)
        except ClientDisconnected:
            pass
        except Exception:
            log.exception("internal error while a request was handled")
            await response.refuse(RequestRefused(500, INTERNAL_ERROR))
        finally:
            self._held -= len(body)

    def _check_origin(self, scope: Scope, headers: dict[str, str]) -> None:
        """Prevents a page of another site from using a server on the visitor's own machine."""
        host = headers.get("host", "")
        if not self._hosts & {"*", PORT.sub("", host.lower())}:
            raise RequestRefused(403, "this host name is not accepted: add it to step.hosts")
        origin, site = headers.get("origin"), headers.get("sec-fetch-site", "none")
        # a proxy with TLS says the scheme; a page of another site cannot send this header
        own = f"{headers.get('x-forwarded-proto', scope.get('scheme', 'http'))}://{host}"
        foreign = site not in ("none", "same-origin") or (origin is not None and _same(origin) != _same(own))
        if scope["method"] not in SAFE_METHODS and foreign:
            raise RequestRefused(
                403, "requests from pages of another site are not accepted: use the page of this server"
            )

    async def _receive_body(self, body: bytearray, scope: Scope, receive: Receive) -> None:
        limits = self._limits
        max_bytes = limits.upload_bytes if scope["path"] in self._uploads else limits.json_bytes
        declared = int(request_headers(scope).get("content-length", "0"))
        try:
            async with asyncio.timeout(limits.body_seconds):
                await self._read_chunks(body, max_bytes, declared, receive)
        except TimeoutError as error:
            message = f"the body did not arrive within {limits.body_seconds:g} s: send a smaller one"
            raise RequestRefused(408, message) from error

    async def _read_chunks(self, body: bytearray, max_bytes: int, declared: int, receive: Receive) -> None:
        too_large = RequestRefused(413, f"the body has more than {max_bytes} bytes: send a smaller one")
        if declared > max_bytes:
            raise too_large
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnected
            chunk, more = message.get("body", b""), message.get("more_body", False)
            if len(body) + len(chunk) > max_bytes:
                raise too_large
            if self._held + len(chunk) > self._limits.held_bytes:
                raise RequestRefused(503, "the server is busy: try again later", self._limits.retry_seconds)
            body += chunk
            self._held += len(chunk)

    async def _run(self, scope: Scope, body: bytes, receive: Receive, response: "ResponseSender") -> None:
        """Runs the application until it has answered or the client has disconnected."""
        answer = asyncio.ensure_future(self._app(scope, ReceivedBody(body), response))
        watch = asyncio.ensure_future(_until_disconnected(receive))
        try:
            await asyncio.wait((answer, watch), return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                raise ClientDisconnected
            answer.result()
        finally:
            for task in (answer, watch):
                task.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await answer


class ReceivedBody:
    """The ``receive`` function of ASGI for a body that has already arrived.

    Args:
        body: the body of the request.
    """

    def __init__(self, body: bytes) -> None:
        self._body: bytes | None = body

    async def __call__(self) -> Message:
        """Returns the body at the first call, and waits forever at the second one."""
        if self._body is None:
            await asyncio.get_running_loop().create_future()
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}


class ResponseSender:
    """The ``send`` function of ASGI that adds the security headers.

    Args:
        send: the function of the server.
    """

    def __init__(self, send: Send) -> None:
        self._send, self._started = send, False

    async def __call__(self, message: Message) -> None:
        """Sends a message. Called by the application."""
        if message["type"] == "http.response.start":
            self._started = True
            own = list(message.get("headers", ()))
            names = {name for name, _ in own}
            message = {**message, "headers": [*own, *(header for header in _ENCODED_HEADERS if header[0] not in names)]}
        await self._send(message)

    async def refuse(self, refused: RequestRefused) -> None:
        """Sends an error message, unless the response has already started.

        Args:
            refused: the status and the message.
        """
        if self._started:
            return
        body = json.dumps({"error": str(refused)}).encode("ascii")
        lines = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode("ascii"))]
        if refused.retry_after is not None:
            lines.append((b"retry-after", str(refused.retry_after).encode("ascii")))
        if refused.status == 401:  # a browser asks for the token as a password
            lines += [(b"www-authenticate", challenge) for challenge in CHALLENGES]
        await self({"type": "http.response.start", "status": refused.status, "headers": lines})
        await self({"type": "http.response.body", "body": body})


def client_of(scope: Scope) -> str:
    """The name of the client that sent a request.

    Args:
        scope: the scope of ASGI.

    Returns:
        The name that the gate gave it; "" without a gate.
    """
    name: str = scope.get(CLIENT, "")
    return name


def request_headers(scope: Scope) -> dict[str, str]:
    """The headers of a request by name.

    Args:
        scope: the scope of ASGI.

    Returns:
        Values by names in lower case. If a name is repeated, the last value counts.
    """
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}


def _same(origin: str) -> str:
    """An origin in lower case, without the default port of its scheme."""
    origin = origin.lower()
    default = DEFAULT_PORT.get(origin.partition("://")[0])
    return default.sub("", origin) if default else origin


def _as_get(scope: Scope) -> Scope:
    """HEAD is answered as GET; the server leaves out the body."""
    return {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope


async def _until_disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
