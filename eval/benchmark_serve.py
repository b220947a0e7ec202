"""The server of ``step=serve``: the response times of one visitor, then of many clients at once.

    grounding step=benchmark benchmark=serve

The server runs in its own process, as a user starts it; the clients are threads of this process.
"""

import io
import itertools
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from urllib.parse import urlsplit

import numpy as np
from PIL import Image

from eval.benchmark_phrases import OTHER_PHRASES, PHRASES
from eval.benchmark_table import Row
from eval.checks import check_counts
from grounding.runtime.timing import resident
from proposals.errors import InputError

PAUSE = 0.2  # seconds between two measurements of the server's memory


def measure(
    clients: int = 50, seconds: float = 60, rounds: int = 5, different: bool = False, settings: Sequence[str] = ()
) -> tuple[list[Row], dict]:
    """Measures the server.

    Args:
        clients: number of clients at once; 0 measures the single visitor only. Each one repeatedly sends a photo, asks
            three phrases, and moves the slider of gamma twice. If the server is busy, a client waits as long as the
            server's Retry-After header says.
        different: whether each photo that the clients send is a new one. Otherwise it is a sample, whose proposals and
            maps the server keeps.
        seconds: how long the clients run.
        rounds: number of measurements of the single visitor; the median counts.
        settings: further settings of the server.

    Returns:
        A row for the first photo that a new server receives, a row for each action of the single visitor, then a row
        for the clients; and the phrases.

    Raises:
        InputError: there are fewer than 0 clients or 1 round, or the server does not start.
    """
    check_counts(0, clients=clients)
    check_counts(1, rounds=rounds)
    with _served(settings) as (host, process):
        rows = visit(host, rounds)
        if clients:
            rows.append(_crowd(host, process, clients, seconds, different))
    return rows, {"phrases": PHRASES}


@contextmanager
def _served(settings: Sequence[str]) -> Iterator[tuple[str, int]]:
    """Runs a server: its host and port, and its process id."""
    proxy = "step.proxies=[127.0.0.1]"  # each client names an address of its own, because the limits are per client
    command = [sys.executable, "-m", "grounding", "step=serve", "step.port=0", proxy, *settings]
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as process,
    ):
        address = next((line.split()[1] for line in process.stdout if line.startswith("open ")), None)
        try:
            if address is None:
                raise InputError("the server did not start: see its error message above")
            yield urlsplit(address).netloc, process.pid
        finally:
            process.terminate()


class Stopwatch:
    """Measures the seconds between calls."""

    def __init__(self):
        self._start = time.perf_counter()

    def __call__(self) -> float:
        """The seconds since the last call."""
        before, self._start = self._start, time.perf_counter()
        return self._start - before


class Client:
    """A client with one connection, which is opened again if the server closes it.

    Args:
        host: host and port.
        number: the server takes clients of different numbers, 0..65535, for different ones.

    Attributes:
        statuses: how often each status or error was received.
        seconds: the response times of successful requests.
    """

    def __init__(self, host: str, number: int = 0):
        self._connection = HTTPConnection(host, timeout=60)
        self._address = f"10.0.{number // 256}.{number % 256}"
        self.statuses: Counter[str] = Counter()
        self.seconds: list[float] = []

    def ask(self, method: str, path: str, body: object = None) -> bytes | None:
        """Sends a request. If the server is busy, waits as long as its Retry-After header says.

        Args:
            method: GET or POST.
            path: the path of the request.
            body: bytes, or an object to send as JSON.

        Returns:
            The body of the response; None if the request failed.
        """
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        start = time.perf_counter()
        try:
            kind = "application/octet-stream" if isinstance(body, bytes) else "application/json"
            self._connection.request(method, path, data, {"content-type": kind, "x-forwarded-for": self._address})
            response = self._connection.getresponse()
            content, status = response.read(), response.status
        except OSError as error:
            self._connection.close()
            self.statuses[type(error).__name__] += 1
            return None
        retry = response.headers["retry-after"]
        self.statuses[str(status) if status != 503 or retry else "503 without Retry-After"] += 1
        if status == 200:
            self.seconds.append(time.perf_counter() - start)
            return content
        time.sleep(float(retry or 0))
        return None

    def close(self) -> None:
        """Closes the connection."""
        self._connection.close()

    def photo(self, data: bytes) -> str | None:
        """Sends a photo.

        Args:
            data: the contents of the file.

        Returns:
            The path of the photo on the server; None if the request failed.
        """
        reply = self.ask("POST", "/api/photos", data)
        return f"/api/photos/{json.loads(reply)['token']}" if reply else None

    def ground(self, photo: str, phrases: Sequence[str], gamma: float) -> list[dict]:
        """Asks phrases.

        Args:
            photo: its path on the server.
            phrases: the phrases to find in it.
            gamma: the exponent of the area.

        Returns:
            The answers; none if the request failed.
        """
        reply = self.ask("POST", f"{photo}/ground", {"phrases": list(phrases), "gamma": gamma})
        return json.loads(reply)["answers"] if reply else []


def visit(host: str, rounds: int) -> list[Row]:
    """Measures a single visitor.

    Args:
        host: host and port of a server.
        rounds: number of measurements; the median counts.

    Returns:
        A row for the first photo and its phrases, then a row for each action.
    """
    client, times = Client(host), defaultdict(list)
    other, data = _sample(client, -1), _sample(client, 0)
    lap = Stopwatch()
    client.ground(client.photo(other) or "", PHRASES, 0.4)  # not the photo that the server has grounded at its start
    first = lap()
    for number in range(rounds):
        for name, seconds in _actions(client, changed(data, number)):
            times[name].append(seconds)
    client.close()
    rows: list[Row] = [{"doing": "the first photo and five phrases", "seconds": first, "most": first}]
    return rows + [{"doing": name, "seconds": float(np.median(t)), "most": max(t)} for name, t in times.items()]


def _sample(client: Client, number: int) -> bytes:
    """The file of a sample photo."""
    about = client.ask("GET", "/api/about")
    data = client.ask("GET", json.loads(about)["samples"][number]["picture"]) if about else None
    if data is None:
        raise InputError("the server does not send its sample photo: see its log")
    return data


def changed(data: bytes, number: int) -> bytes:
    """The file of another photo of the same size.

    Args:
        data: the file of a photo.
        number: each number in 0..65535 gives another photo.

    Returns:
        The photo as PNG, with another first pixel.
    """
    with Image.open(io.BytesIO(data)) as photo:
        other = photo.convert("RGB")
    other.putpixel((0, 0), (number // 256, number % 256, 0))
    other.save(file := io.BytesIO(), "PNG", compress_level=1)
    return file.getvalue()


def _actions(client: Client, data: bytes) -> Iterator[tuple[str, float]]:
    """The actions of a visitor with one photo, in order, and the seconds of each."""
    start, lap = time.perf_counter(), Stopwatch()
    photo = client.photo(data)
    yield "a photo", lap()
    answers = client.ground(photo, PHRASES, 0.4)
    yield "five phrases", lap()
    yield "a photo and five phrases", time.perf_counter() - start
    client.ground(photo, [*PHRASES, "a wall"], 0.4)
    yield "a new phrase", lap()
    for gamma in (0.3, 0.7):
        client.ground(photo, PHRASES, gamma)
        yield "a slider", lap()
    client.ask("GET", answers[0]["heat"])
    yield "a heat map", lap()
    for name, box in (("words of a box", [50, 0, 300, 250]), ("words of another", [300, 0, 500, 250])):
        client.ask("POST", f"{photo}/words", {"box": box})
        yield name, lap()


def _crowd(host: str, process: int, clients: int, seconds: float, different: bool) -> Row:
    """Many clients at once: response times, statuses, and the server's memory."""
    crowd = [Client(host, number) for number in range(clients)]
    data = _sample(crowd[0], 0)
    end, memory = time.monotonic() + seconds, [resident(process)]
    numbers = itertools.count() if different else None
    threads = [
        threading.Thread(target=_visit, args=(client, seed, data, end, numbers)) for seed, client in enumerate(crowd)
    ]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        time.sleep(PAUSE)
        memory.append(resident(process))
    for thread in threads:
        thread.join()
    waited = np.concatenate([client.seconds for client in crowd])
    statuses = sum((client.statuses for client in crowd), Counter())
    doing = f"{clients} clients, {'different photos, ' * different}{seconds:g} s"
    row: Row = {"doing": doing, "seconds": float(np.median(waited)), "most": max(waited)}
    row |= {"p95": float(np.quantile(waited, 0.95)), "a second": len(waited) / seconds}
    row |= {status: float(count) for status, count in sorted(statuses.items())}
    times = {f"MB at {share * seconds:g} s": _near(memory, share) for share in (0, 1 / 6, 0.5, 1)}
    return row | times | {"MB at most": max(memory)}


def _near(values: Sequence[float], share: float) -> float:
    """The median of the values around a share of the time, because a request takes memory only while it runs."""
    middle, half = round(share * (len(values) - 1)), len(values) // 24
    return float(np.median(values[max(0, middle - half) : middle + half + 1]))


def _visit(client: Client, seed: int, data: bytes, end: float, numbers: Iterator[int] | None) -> None:
    """Runs one client until the end, with phrases of its own, and with photos of its own if there are numbers."""
    random = np.random.default_rng(seed)
    with closing(client):
        while time.monotonic() < end:
            photo = client.photo(changed(data, next(numbers)) if numbers else data)
            phrases = random.choice(OTHER_PHRASES, 3, replace=False).tolist()
            for gamma in (0.4, 0.2, 0.8) if photo else ():
                client.ground(photo, phrases, gamma)
