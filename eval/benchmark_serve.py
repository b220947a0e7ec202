"""The server of ``step=serve``: seconds of a visitor's doings, then many clients at once.

    grounding step=benchmark benchmark=serve

The server is a process of its own, as a user starts it; the clients are threads of this one.
"""

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection
from urllib.parse import urlsplit

import numpy as np

from eval.benchmark_phrases import OTHER_PHRASES, PHRASES
from eval.benchmark_table import Row
from eval.checks import check_counts
from grounding.runtime.timing import resident
from proposals.errors import InputError

PAUSE = 0.2  # seconds between two looks at the server's memory


def measure(
    clients: int = 50, seconds: float = 60, rounds: int = 5, settings: Sequence[str] = ()
) -> tuple[list[Row], dict]:
    """One row a visitor's doing (medians of ``rounds``), then one of the many clients.

    Args:
        clients: at once, each of which sends a photo, asks three phrases, and moves a slider twice, again and again,
            and comes back as late as a busy server tells it; seconds: how long.
        rounds: of the single visitor; settings: further ones of the server.

    Raises:
        InputError: a count is below 1, or the server does not start.
    """
    check_counts(1, clients=clients, rounds=rounds)
    with _served(settings) as (place, process):
        rows = _visitor(place, rounds)
        rows.append(_crowd(place, process, clients, seconds))
    return rows, {"phrases": PHRASES}


@contextmanager
def _served(settings: Sequence[str]) -> Iterator[tuple[str, int]]:
    """A server: its host and port, and the number of its process."""
    command = [sys.executable, "-m", "grounding", "step=serve", "step.port=0", *settings]
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as process,
    ):
        address = next((line.split()[1] for line in process.stdout if line.startswith("open ")), None)
        try:
            if address is None:
                raise InputError("the server did not start: its own words stand above")
            yield urlsplit(address).netloc, process.pid
        finally:
            process.terminate()


class Stopwatch:
    """Seconds since it was last called."""

    def __init__(self):
        self._begun = time.perf_counter()

    def __call__(self) -> float:
        """Stops a lap and begins the next."""
        before, self._begun = self._begun, time.perf_counter()
        return self._begun - before


class Client:
    """One connection of a client, opened again where it was closed; counts what it is told.

    Args:
        place: host and port.
    """

    def __init__(self, place: str):
        self._connection = HTTPConnection(place, timeout=60)
        self.statuses: Counter[str] = Counter()
        self.seconds: list[float] = []

    def ask(self, method: str, path: str, body: object = None) -> bytes | None:
        """The answer's body, None if it is none; a busy server has its pause."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        begun = time.perf_counter()
        try:
            kind = {"content-type": "application/octet-stream" if isinstance(body, bytes) else "application/json"}
            self._connection.request(method, path, data, kind)
            response = self._connection.getresponse()
            content, status = response.read(), response.status
        except OSError as error:
            self._connection.close()
            self.statuses[type(error).__name__] += 1
            return None
        retry = response.headers["retry-after"]
        self.statuses[str(status) if status != 503 or retry else "503 without Retry-After"] += 1
        if status == 200:
            self.seconds.append(time.perf_counter() - begun)
            return content
        time.sleep(float(retry or 0))
        return None

    def photo(self, data: bytes) -> str | None:
        """The path of a photo that was sent, None if the server would not have it."""
        reply = self.ask("POST", "/api/photos", data)
        return f"/api/photos/{json.loads(reply)['token']}" if reply else None

    def ground(self, photo: str, phrases: Sequence[str], gamma: float) -> list[dict]:
        """The answers of phrases."""
        reply = self.ask("POST", f"{photo}/ground", {"phrases": list(phrases), "gamma": gamma})
        return json.loads(reply)["answers"] if reply else []


def _visitor(place: str, rounds: int) -> list[Row]:
    client, taken = Client(place), defaultdict(list)
    data = client.ask("GET", "/api/samples/astronaut.jpg")
    for _ in range(rounds):
        for name, seconds in _doings(client, data):
            taken[name].append(seconds)
    return [{"doing": name, "seconds": float(np.median(times)), "most": max(times)} for name, times in taken.items()]


def _doings(client: Client, data: bytes) -> Iterator[tuple[str, float]]:
    """What a visitor does with a photo, one after another, and the seconds of each."""
    begun, lap = time.perf_counter(), Stopwatch()
    photo = client.photo(data)
    yield "a photo", lap()
    answers = client.ground(photo, PHRASES, 0.4)
    yield "five phrases", lap()
    yield "a photo and five phrases", time.perf_counter() - begun
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


def _crowd(place: str, process: int, clients: int, seconds: float) -> Row:
    """Many clients at once: what they were told, how long they waited, what the server held."""
    data = Client(place).ask("GET", "/api/samples/astronaut.jpg")
    crowd = [Client(place) for _ in range(clients)]
    end, held = time.monotonic() + seconds, [resident(process)]
    threads = [threading.Thread(target=_visit, args=(client, number, data, end)) for number, client in enumerate(crowd)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        time.sleep(PAUSE)
        held.append(resident(process))
    for thread in threads:
        thread.join()
    waited = np.concatenate([client.seconds for client in crowd])
    told = sum((client.statuses for client in crowd), Counter())
    row: Row = {"doing": f"{clients} clients, {seconds:g} s", "seconds": float(np.median(waited)), "most": max(waited)}
    row |= {"p95": float(np.quantile(waited, 0.95)), "a second": len(waited) / seconds}
    row |= {status: float(count) for status, count in sorted(told.items())}
    quarters = {f"MB at {share:g}": held[round(share * (len(held) - 1))] for share in (0, 0.25, 0.5, 1)}
    return row | quarters | {"MB at most": max(held)}


def _visit(client: Client, number: int, data: bytes, end: float) -> None:
    """One client until the end, in a rhythm and with words of its own."""
    random = np.random.default_rng(number)
    while time.monotonic() < end:
        photo = client.photo(data)
        phrases = random.choice(OTHER_PHRASES, 3, replace=False).tolist()
        for gamma in (0.4, 0.2, 0.8) if photo else ():
            client.ground(photo, phrases, gamma)
