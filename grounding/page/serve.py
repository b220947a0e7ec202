"""The step ``serve``: a web page and an HTTP API for grounding phrases. By default only this machine can reach it.

    grounding step=serve                     # http://127.0.0.1:8000
    grounding step=serve step.port=9000 attention=mwp tagger.path=runs/train/tagger.safetensors

It uses FastAPI and uvicorn, and a page without a JavaScript framework, because the API needs an OpenAPI description and
the page must not load anything from other sites. These are 14 packages; Gradio 6.31 would be 52.
"""

import ipaddress
import logging
import signal
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from grounding.grounder import Grounder
from grounding.page.limits import Limits
from proposals.errors import InputError

log = logging.getLogger(__name__)


def serve(
    grounder: Grounder,
    host: str,
    port: int,
    hosts: Sequence[str],
    limits: Limits,
    methods: Sequence[str],
    samples: Mapping[str, Mapping[str, Any]],
    token: str | None = None,
    token_file: str | None = None,
    proxies: Sequence[str] = (),
) -> None:
    """Serves until SIGINT or SIGTERM. Prints the address when it is ready for the first request.

    Args:
        grounder: finds the phrases.
        host: address to listen on.
        port: port to listen on; 0 takes a free one.
        hosts: host names that requests may use, without ports.
        limits: the bounds of the server.
        methods: attention methods that clients may use.
        samples: sample photos by name, each with ``file`` (a photo of scikit-image), ``title`` and ``phrases``.
        token: what clients have to send; None for ``token_file`` or the variable ``GROUNDING_TOKEN``.
        token_file: a file with the token.
        proxies: addresses of proxies whose header ``X-Forwarded-For`` is believed.

    Raises:
        InputError: the extra ``demo`` is not installed, the port is not available, a sample or a method does not
            exist, the token is too short or cannot be read, or an address of a proxy is none.
    """
    try:
        from grounding.page.app import build_app
        from grounding.page.clients import read_token
        from grounding.page.protocol import make_server
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] in ("grounding", "proposals"):
            raise
        raise InputError("step=serve needs an extra: run make page, or .venv/bin/pip install -e '.[demo]'") from error
    secret = read_token(token, token_file)
    with listening(host, port, secret is not None) as listener:
        app = build_app(grounder, limits, methods, samples, hosts, secret, proxies)
        name = f"[{host}]" if ":" in host else host
        print(f"open http://{name}:{listener.getsockname()[1]}  (press Ctrl-C to stop)", flush=True)
        with _stopped_by_sigterm():
            make_server(app, limits).run(sockets=[listener])


@contextmanager
def listening(host: str, port: int, has_token: bool = False) -> Iterator[socket.socket]:
    """Opens a socket that listens until the end of the block.

    Args:
        host: address to listen on.
        port: port to listen on; 0 takes a free one.
        has_token: whether clients have to send a token.

    Yields:
        The socket.

    Raises:
        InputError: the address or the port is not available.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=256)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"cannot listen on {host}, port {port} ({reason}): use another step.port, or step.host=127.0.0.1"
        ) from error
    with listener:
        if not ipaddress.ip_address(listener.getsockname()[0]).is_loopback:
            without = "encryption" if has_token else "a password or encryption"
            log.warning("other machines can reach %s and use the server without %s", host, without)
        yield listener


@contextmanager
def _stopped_by_sigterm() -> Iterator[None]:
    """Ignores SIGTERM itself: uvicorn handles it, shuts down, then raises it again, which would kill the process."""
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
