"""Against a real server on a socket: connections that send half of a request, and those that send all of it."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("uvicorn")

import uvicorn

from crossfake.serve.web import connections


async def _slow(scope: Any, receive: Any, send: Any) -> None:
    """Answers after longer than headers may take."""
    import asyncio

    await asyncio.sleep(1.0)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setattr(connections, "_HEAD", 0.4)
    config = uvicorn.Config(
        _slow, http=connections.PatientProtocol, lifespan="off", log_level="critical", ws="none"
    )
    server = uvicorn.Server(config)
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    yield listener.getsockname()[1]
    server.should_exit = True
    thread.join(10)


def _closed(connection: socket.socket) -> bool:
    """Whether the other side closes it, within some seconds."""
    connection.settimeout(5)
    with contextlib.suppress(ConnectionError):
        return connection.recv(100) == b""
    return True


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost: x\r\nX-Half", b"GET"])
def test_half_of_a_request_is_not_waited_for(port: int, sent: bytes) -> None:
    many = [socket.create_connection(("127.0.0.1", port)) for _ in range(30)]
    for each in many:
        each.sendall(sent)
    assert all(_closed(each) for each in many)


def test_a_header_a_second_does_not_help(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as connection, contextlib.suppress(ConnectionError):
        connection.sendall(b"GET / HTTP/1.1\r\n")
        for _ in range(20):
            time.sleep(0.1)
            connection.sendall(b"X: y\r\n")
        assert _closed(connection)


def test_whole_requests_are_answered_however_long_it_takes(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.settimeout(10)
        for _ in range(2):  # on one connection
            connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = b""
            while not answer.endswith(b"ok"):
                part = connection.recv(1000)
                assert part, answer
                answer += part
        connection.sendall(b"GET / HTTP/1.1\r\nHos")
        assert _closed(connection)
