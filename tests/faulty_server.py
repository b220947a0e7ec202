"""An HTTP server on this machine that serves files with faults."""

import re
import socket
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class FaultyServer(ThreadingHTTPServer):
    """Serves the files of a folder.

    Args:
        folder: the folder.
        faults: for each name the faults of its first requests: "503", "404", "cut" (half of the bytes, then the
            connection ends), "long" (a length that is too large), "slow" (silence); afterwards it is served correctly.
        ranges: whether parts of files can be requested.

    Attributes:
        requests: the number of requests for each name.
        sent: the number of bytes sent for each name.
    """

    daemon_threads = True

    def __init__(self, folder: Path, faults: dict[str, list[str]] | None = None, ranges: bool = True) -> None:
        self.folder, self.ranges = folder, ranges
        self.faults = defaultdict(list, {name: list(kinds) for name, kinds in (faults or {}).items()})
        self.requests: Counter[str] = Counter()
        self.sent: Counter[str] = Counter()
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address) -> None:
        pass  # clients that leave are part of the tests


class _Handler(BaseHTTPRequestHandler):
    server: FaultyServer

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        name = self.path.partition("?")[0].lstrip("/")
        self.server.requests[name] += 1
        fault = self.server.faults[name].pop(0) if self.server.faults[name] else ""
        path = self.server.folder / name
        if fault.isdecimal() or not path.is_file():
            self.send_error(int(fault or 404))
            return
        if fault == "slow":
            time.sleep(2)
            return
        data = path.read_bytes()
        found = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")) if self.server.ranges else None
        first = int(found[1]) if found else 0
        body = data[first:]
        self.send_response(206 if found else 200)
        if found:
            self.send_header("Content-Range", f"bytes {first}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(body) + (1000 if fault == "long" else 0)))
        self.end_headers()
        body = body[: len(body) // 2] if fault == "cut" else body
        self.server.sent[name] += len(body)  # before the client can have the last byte
        self.wfile.write(body)
        if fault:
            self.connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def serving(folder: Path, faults: dict[str, list[str]] | None = None, ranges: bool = True) -> Iterator[FaultyServer]:
    """Runs a server until the end of the block."""
    with FaultyServer(folder, faults, ranges) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
