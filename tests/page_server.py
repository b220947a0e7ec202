"""A server of the page for tests, and a client for it."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPResponse
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image

from grounding import Grounder
from grounding.page.limits import Limits
from grounding.page.serve import listening

pytest.importorskip("fastapi", reason="no FastAPI: .venv/bin/pip install -e '.[demo]'")

from grounding.page.app import build_app
from grounding.page.middleware import CheckRequests
from grounding.page.protocol import make_server

STEP = OmegaConf.load(Path(__file__).parents[1] / "conf" / "step" / "serve.yaml")
LIMITS = {name: value for name, value in STEP.limits.items() if name != "_target_"}
SHORT = {"header_seconds": 0.6, "body_seconds": 0.5, "send_seconds": 0.5, "connections": 40, "queue": 3, "workers": 1,
         "client_requests": 1_000_000}  # fmt: skip
SAMPLES = {"astronaut": STEP.samples.astronaut}


@contextmanager
def running(grounder: Grounder) -> Iterator[SimpleNamespace]:
    """A server with the step's limits but short timeouts: its app, its port, its open connections."""
    limits = Limits(**LIMITS | SHORT)
    with served(build_app(grounder, limits, list(STEP.methods), SAMPLES, list(STEP.hosts)), limits) as site:
        yield site


@contextmanager
def served(app: CheckRequests, limits: Limits | None = None) -> Iterator[SimpleNamespace]:
    """A server of an application: its app, its port, its open connections."""
    limits = limits or Limits(**LIMITS)
    with listening("127.0.0.1", 0) as listener:
        server = make_server(app, limits)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        port = listener.getsockname()[1]
        yield SimpleNamespace(app=app, port=port, limits=limits, connections=server.server_state.connections)
        server.should_exit = True
        thread.join()


class HttpReply:
    """A response that was read."""

    def __init__(self, response: HTTPResponse) -> None:
        self.status, self.headers, self.body = response.status, response.headers, response.read()

    @property
    def json(self):
        return json.loads(self.body)


def ask(site: SimpleNamespace, method: str, path: str, body: object = None, **headers: str) -> HttpReply:
    """Sends one request; a body that is neither bytes nor an iterator is sent as JSON."""
    if body is not None and not isinstance(body, bytes | Iterator):
        body, headers = json.dumps(body).encode(), {"content-type": "application/json"} | headers
    connection = HTTPConnection("127.0.0.1", site.port, timeout=30)
    try:
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        return HttpReply(connection.getresponse())
    finally:
        connection.close()


def encoded(kind: str, size: tuple[int, int] = (40, 30), **options: object) -> bytes:
    """A photo of noise in a file format."""
    buffer = BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (*size[::-1], 3), np.uint8)).save(buffer, kind, **options)
    return buffer.getvalue()


def settled(condition: Callable[[], bool], seconds: float = 5) -> bool:
    """Waits until a condition holds."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()
