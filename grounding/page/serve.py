"""The step ``serve``: a page to try phrases on, and the same as HTTP JSON, on this machine alone unless told otherwise.

    grounding step=serve                     # http://127.0.0.1:8000
    grounding step=serve step.port=9000 attention=mwp tagger.path=runs/train/tagger.safetensors

FastAPI and uvicorn, and a page without a framework: an API with its OpenAPI description is wanted beside the page, and
neither may fetch a thing from elsewhere. They are 14 packages; Gradio 6.31 would be 52, with its own idea of both.
"""

import ipaddress
import logging
import signal
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

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
    samples: Mapping[str, Mapping],
) -> None:
    """Serves until SIGINT or SIGTERM; prints the address once the first question can be answered.

    Args:
        grounder: answers; host, port: to listen on, 0 takes a free port; hosts: names that the server answers to.
        limits: of requests; methods: of attention that may be asked for.
        samples: by name, a photo's ``file`` among those of scikit-image, its ``title``, and ``phrases`` to try.

    Raises:
        InputError: the extra ``demo`` is not installed, the port cannot be had, or there is no such sample or method.
    """
    try:
        from grounding.page.app import build
        from grounding.page.protocol import server
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] in ("grounding", "proposals"):
            raise
        raise InputError("step=serve needs an extra: run make page, or .venv/bin/pip install -e '.[demo]'") from error
    with listening(host, port) as listener:
        app = build(grounder, limits, methods, samples, hosts)
        name = f"[{host}]" if ":" in host else host
        print(f"open http://{name}:{listener.getsockname()[1]}  (Ctrl-C stops)", flush=True)
        with _stopped_by_sigterm():
            server(app, limits).run(sockets=[listener])


@contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """A socket that listens, until the block ends.

    Raises:
        InputError: the address cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=256)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot listen on {host}, port {port} ({reason}): say step.port=ANOTHER") from error
    with listener:
        if not ipaddress.ip_address(listener.getsockname()[0]).is_loopback:
            log.warning("listening beyond this machine: whoever reaches %s may ask, without a password or TLS", host)
        yield listener


@contextmanager
def _stopped_by_sigterm() -> Iterator[None]:
    """uvicorn stops in good order, then raises the signal anew: that must not end the process by force."""
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
