"""The page's server under load, and with clients that are slow or disconnect."""

import asyncio
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from page_server import ask, encoded, settled

from grounding.page.workers import WorkerPool


def raw(site, sent: bytes, wait: float = 3) -> bytes:
    """Sends bytes on a new connection and returns all that comes back."""
    with socket.create_connection(("127.0.0.1", site.port), timeout=wait) as connection:
        connection.sendall(sent)
        parts = iter(lambda: connection.recv(65536), b"")
        return b"".join(parts)


HEAD = b"POST /api/photos HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n"


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (HEAD + b"\r\nand then nothing", b"408"),
        (HEAD[:40], b"408"),
        (b"\x16\x03\x01 no HTTP at all\r\n\r\n", b"400"),
        (b"GET / HTTP/1.0\r\n\r\n", b"403"),
    ],
)
def test_slow_and_invalid_clients_get_an_error(site, sent, status):
    begun = time.perf_counter()
    reply = raw(site, sent)
    assert reply.startswith(b"HTTP/1.1 " + status) and b'{"error": "' in reply
    assert time.perf_counter() - begun < 1.6  # longer if the server does not close the connection after the error


def test_a_killed_client_leaves_nothing_behind(site):
    for sent in (b"", HEAD, HEAD + b"\r\n" + bytes(500)):
        connection = socket.create_connection(("127.0.0.1", site.port))
        connection.sendall(sent)
        connection.close()
    assert settled(lambda: site.app._held == 0 and not site.connections)


def test_a_client_that_does_not_read_is_disconnected(site):
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", site.port))
    with connection:
        request = b"GET /api/samples/astronaut.png HTTP/1.1\r\nHost: localhost\r\n\r\n"
        connection.sendall(request * 20)
        assert settled(lambda: len(site.connections) == 1)
        assert settled(lambda: not site.connections)


def test_too_many_connections_are_refused(site):
    assert settled(lambda: not site.connections)
    held = [socket.create_connection(("127.0.0.1", site.port)) for _ in range(site.limits.connections)]
    try:
        assert settled(lambda: len(site.connections) == site.limits.connections, 0.4)
        reply = raw(site, b"")
    finally:
        for connection in held:
            connection.close()
    assert reply.startswith(b"HTTP/1.1 503") and b"Retry-After: 2\r\n" in reply


def test_requests_beyond_the_queue_are_refused(site):
    photo = encoded("JPEG")
    with ThreadPoolExecutor(12) as clients:
        replies = list(clients.map(lambda _: ask(site, "POST", "/api/ground?phrase=a+cup", photo), range(12)))
    assert {reply.status for reply in replies} == {200, 503}
    assert all(reply.headers["retry-after"] == "2" for reply in replies if reply.status == 503)
    assert sum(reply.status == 200 for reply in replies) >= 4
    assert ask(site, "POST", "/api/ground?phrase=a+cup", photo).status == 200


def test_answers_without_a_pass_do_not_wait_for_the_others(site, coffee, monkeypatch):
    token = ask(site, "POST", "/api/photos", coffee.read_bytes()).json["token"]
    known, new = {"phrases": ["a cup"], "gamma": 0.3}, {"phrases": ["a cup", "a dog"]}
    assert ask(site, "POST", f"/api/photos/{token}/ground", known).status == 200
    wait = threading.Event()
    monkeypatch.setattr("grounding.page.decoder.PhotoDecoder.decode", lambda *_: wait.wait(20) and None)
    count = site.limits.workers + site.limits.queue + 1
    with ThreadPoolExecutor(count) as clients:
        uploads = [clients.submit(ask, site, "POST", "/api/photos", b"%d" % number) for number in range(count)]
        try:
            assert settled(lambda: any(upload.done() for upload in uploads))  # refused: the queue is full
            assert ask(site, "POST", f"/api/photos/{token}/ground", new).status == 503
            for gamma in (0.2, 0.5, 0.8):
                assert ask(site, "POST", f"/api/photos/{token}/ground", known | {"gamma": gamma}).status == 200
            assert ask(site, "GET", f"/api/photos/{token}/heat.png?phrase=a+cup").status == 200
        finally:
            wait.set()
        assert sum(upload.result().status == 503 for upload in uploads) == 1


def test_a_result_does_not_wait_until_memory_is_given_back(monkeypatch):
    work, given_back = threading.Event(), threading.Event()
    monkeypatch.setattr("grounding.runtime.memory.trim", lambda: given_back.wait(20))
    pool = WorkerPool(1, 0)

    async def ask_twice() -> list[bool]:
        asyncio.get_running_loop().call_later(0.1, work.set)  # after the callbacks were added
        return [await asyncio.wait_for(pool.run(lambda: work.wait(20)), 10), pool._free == 1]

    try:
        assert asyncio.run(ask_twice()) == [True, True]
    finally:
        given_back.set()
        pool.close()


def test_a_request_that_leaves_the_queue_is_not_processed(site, coffee, monkeypatch):
    decoded, wait = [], threading.Event()
    monkeypatch.setattr(
        "grounding.page.decoder.PhotoDecoder.decode", lambda _, data: decoded.append(data) or (wait.wait(5) and None)
    )
    sent = b"POST /api/photos HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\n"
    clients = [socket.create_connection(("127.0.0.1", site.port)) for _ in range(3)]
    for number, client in enumerate(clients):
        client.sendall(sent + b"%d" % number)
        time.sleep(0.1)
    for client in clients:
        client.close()
    assert settled(lambda: not site.connections)
    wait.set()
    monkeypatch.undo()
    assert ask(site, "POST", "/api/photos", coffee.read_bytes()).status == 200
    assert decoded == [b"0"]
