"""Requests to the server's application, in this process. The network is one convolution."""

import asyncio
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import h11

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from made_shards import tiny_tagger
from page_server import LIMITS

from grounding import Grounder, TagClassifier
from grounding.page.app import build_app
from grounding.page.limits import Limits
from grounding.page.middleware import CheckRequests
from grounding.page.samples import SamplePhoto
from grounding.settings import Settings
from proposals import SegmentProposer
from proposals.errors import InputError

FREE = {"client_requests": 1 << 40}  # no limit of requests a minute
TOKEN = b"TOKEN"  # in an input: the token of a photo that the server has
UNAVAILABLE = 503


@cache
def _runner() -> asyncio.Runner:
    return asyncio.Runner()


@cache
def _app() -> CheckRequests:
    with tempfile.TemporaryDirectory() as folder:
        tagger = TagClassifier.load(tiny_tagger(Path(folder, "tiny.safetensors")))
    grounder = Grounder(tagger, SegmentProposer(count=20, side=32), Settings(method="mwp", side=224))
    return build_app(grounder, Limits(**LIMITS | FREE), ["c-mwp"], {}, ["localhost"])


@cache
def _token() -> bytes:
    photo = SamplePhoto("astronaut", "astronaut.png", "", ["a cat"]).data
    upload = h11.Request(method="POST", target="/api/photos", headers=[("host", "localhost")])
    _, body = _runner().run(_answer(upload, photo))
    return body.split(b'"token":"')[1].split(b'"')[0]


def ask(data: bytes) -> None:
    """Sends a request, as the server does: h11 reads its head, what follows is the body.

    Args:
        data: the request, without a length of its body.

    Raises:
        InputError: the request was refused, also by h11.
        AssertionError: the server answers that it has an internal error.
    """
    head, _, body = data.replace(TOKEN, _token()).partition(b"\r\n\r\n")
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(head + b"\r\n\r\n")
    try:
        request = connection.next_event()
    except h11.RemoteProtocolError as error:
        raise InputError("the request is not valid HTTP") from error
    if not isinstance(request, h11.Request):
        raise InputError("the head of the request is not complete")
    status, content = _runner().run(_answer(request, body))
    if status >= 500 and status != UNAVAILABLE:
        raise AssertionError(f"status {status}: {content[:200]!r}")
    if status >= 400:
        raise InputError(content.decode())


async def _answer(request: h11.Request, body: bytes) -> tuple[int, bytes]:
    """The status and the body of the application's reply."""
    path, _, query = request.target.partition(b"?")
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "http", "root_path": "",
        "method": request.method.decode("ascii"), "path": _unquoted(path), "raw_path": path, "query_string": query,
        "headers": list(request.headers), "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80),
    }  # fmt: skip
    sent: list[dict[str, Any]] = []
    received = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> dict[str, Any]:
        if not received:
            await asyncio.get_running_loop().create_future()
        return received.pop()

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await _app()(scope, receive, send)
    content = b"".join(message.get("body", b"") for message in sent[1:])
    return sent[0]["status"], content


def _unquoted(path: bytes) -> str:
    """The path as uvicorn decodes it."""
    return unquote(path.decode("ascii"))
