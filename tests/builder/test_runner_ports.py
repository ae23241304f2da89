"""What -p means, and what passing on does, without a container: the namespace is the test's own."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator

import pytest

from builder.errors import BuildError, UsageError
from builder.runner.ports import Port, Published, parse_ports


@pytest.mark.parametrize(
    ("text", "ports"),
    [
        ("80", [Port("", 0, 80)]),
        ("8080:80", [Port("", 8080, 80)]),
        ("8080:80/tcp", [Port("", 8080, 80)]),
        ("127.0.0.1:8080:80", [Port("127.0.0.1", 8080, 80)]),
        ("127.0.0.1::80", [Port("127.0.0.1", 0, 80)]),
        ("[::1]:8080:80", [Port("::1", 8080, 80)]),
        ("7000-7001:80-81", [Port("", 7000, 80), Port("", 7001, 81)]),
        ("80-81", [Port("", 0, 80), Port("", 0, 81)]),
    ],
)
def test_words(text: str, ports: list[Port]) -> None:
    assert parse_ports([text]) == tuple(ports)


@pytest.mark.parametrize(
    "text",
    ["", "x", "0", "65536", "1:2:3:4", "80:x", "80/udp", "name:1:2", "127.0.0.1:80", "[::1:1:2", "1-2:1", "2-1", "-",
     "1-99999999999", "٣:80"],
)  # fmt: skip
def test_malformed_words(text: str) -> None:
    with pytest.raises(UsageError):
        parse_ports([text])


def test_a_port_that_is_taken_is_an_error_and_frees_the_others() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, Published([Port("127.0.0.1", 0, 1)]) as free:
        other = free.host_ports()[0][0]
        free.close()
        port = taken.getsockname()[1]
        with pytest.raises(BuildError, match=f"port 127.0.0.1:{port}: address already in use"):
            Published([Port("127.0.0.1", other, 1), Port("127.0.0.1", port, 2)])
        socket.create_server(("127.0.0.1", other)).close()


@pytest.fixture
def network_fd() -> Iterator[int]:
    fd = os.open("/proc/self/ns/net", os.O_RDONLY)
    yield fd
    os.close(fd)


@pytest.mark.skipif(os.geteuid() != 0, reason="entering a namespace needs root")
@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_bytes_go_both_ways_at_once_and_ends_are_passed_on(network_fd: int, address: str) -> None:
    """A server that sends all back while it still comes: megabytes, so that neither side may wait for the other."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, 0), family=family) as serving:
        threading.Thread(target=_echo, args=(serving,), daemon=True).start()
        with Published([Port("127.0.0.1", 0, serving.getsockname()[1])]) as published:
            published.start(network_fd)
            with socket.create_connection(("127.0.0.1", published.host_ports()[0][0]), timeout=30) as client:
                sent = os.urandom(8 << 20)
                sending = threading.Thread(target=lambda: (client.sendall(sent), client.shutdown(socket.SHUT_WR)))
                sending.start()
                received = b"".join(iter(lambda: client.recv(1 << 20), b""))
                sending.join()
    assert received == sent


@pytest.mark.skipif(os.geteuid() != 0, reason="entering a namespace needs root")
def test_where_nobody_listens_the_connection_ends(network_fd: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with Published([Port("127.0.0.1", 0, port)]) as published:
        published.start(network_fd)
        with socket.create_connection(("127.0.0.1", published.host_ports()[0][0]), timeout=30) as client:
            assert client.recv(1) == b""


def _echo(serving: socket.socket) -> None:
    connection, _ = serving.accept()
    with connection:
        while chunk := connection.recv(64 << 10):
            connection.sendall(chunk)
