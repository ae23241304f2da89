"""A name server for steps that asks those of the machine, where the machine's own listens out of every step's reach:
dnsmasq or unbound on 127.0.0.1, Docker's 127.0.0.11, a router's link-local address.

Passes queries and answers on as they are, over UDP and TCP, on threads that stay in the machine's network namespace.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections.abc import Callable

from builder.sandbox.net.resolv import RELAY_ADDRESS, nameservers, read_lines
from cache.namedtuple import NamedTuple

_PORT = 53
_SECONDS = 5.0
_AT_ONCE = 64
_DATAGRAM = 65535


class Listeners(NamedTuple):
    """Sockets of the namespace where queries come from."""

    udp: socket.socket
    tcp: socket.socket


def listen(address: str = RELAY_ADDRESS) -> Listeners:
    """Listen in the network namespace that this thread is in. Raises OSError."""
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    udp.bind((address, _PORT))
    tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    tcp.bind((address, _PORT))
    tcp.listen(_AT_ONCE)
    return Listeners(udp, tcp)


class Relay:
    """Answers queries from the moment it is made until its process ends."""

    def __init__(self, listeners: Listeners) -> None:
        self._listeners = listeners
        self._room = threading.BoundedSemaphore(_AT_ONCE)
        for target in (self._serve_udp, self._serve_tcp):
            threading.Thread(target=target, daemon=True).start()

    def _serve_udp(self) -> None:
        while True:
            query, client = self._listeners.udp.recvfrom(_DATAGRAM)
            self._start(self._answer, query, client)

    def _serve_tcp(self) -> None:
        while True:
            connection, _ = self._listeners.tcp.accept()
            self._start(self._connect, connection)

    def _start(self, work: Callable[..., None], *arguments: object) -> None:
        def run() -> None:
            with self._room, contextlib.suppress(OSError):
                work(*arguments)

        threading.Thread(target=run, daemon=True).start()

    def _answer(self, query: bytes, client: tuple[str, int]) -> None:
        """Ask one server after the other until one answers."""
        for address in nameservers(read_lines()):
            with contextlib.suppress(OSError), _socket(address, socket.SOCK_DGRAM) as asking:
                asking.settimeout(_SECONDS)
                asking.connect(_endpoint(address))
                asking.send(query)
                while True:
                    answer = asking.recv(_DATAGRAM)
                    if answer[:2] == query[:2]:
                        self._listeners.udp.sendto(answer, client)
                        return

    def _connect(self, connection: socket.socket) -> None:
        with connection:
            for address in nameservers(read_lines()):
                with contextlib.suppress(OSError), _socket(address, socket.SOCK_STREAM) as server:
                    server.settimeout(_SECONDS)
                    server.connect(_endpoint(address))
                    _pump(connection, server)
                    return


def _pump(left: socket.socket, right: socket.socket) -> None:
    """Pass bytes both ways, and the end of either, until both have ended or nothing came for a while."""
    other = {left: right, right: left}
    open_ends = [left, right]
    while open_ends:
        readable, _, _ = select.select(open_ends, [], [], _SECONDS)
        if not readable:
            return
        for source in readable:
            received = source.recv(_DATAGRAM)
            if received:
                other[source].sendall(received)
            else:
                open_ends.remove(source)
                other[source].shutdown(socket.SHUT_WR)


def _socket(address: str, kind: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return socket.socket(family, kind | socket.SOCK_CLOEXEC)


def _endpoint(address: str) -> tuple[str, int] | tuple[str, int, int, int]:
    if ":" not in address:
        return address, _PORT
    host, _, scope = address.partition("%")
    return host, _PORT, 0, socket.if_nametoindex(scope) if scope else 0
