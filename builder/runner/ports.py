"""Ports of the machine that lead into a container: -p, in the words of `docker run`, for TCP.

Who connects is passed on to the container's loopback interface by this process, which is the same for every kind of
network, and needs no right over the machine's. The program sees that interface's address as the other side's.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import re
import socket
import threading
from collections.abc import Iterable
from functools import partial
from types import TracebackType

from builder.errors import BuildError, UsageError
from builder.sandbox.net.namespaces import inside
from cache.namedtuple import NamedTuple

_WORDS = re.compile(
    r"(?:(?:(?:\[(?P<six>[^]]*)\]|(?P<four>[^:\[\]]*)):)?(?P<host>[\d-]*):)?(?P<inner>[\d-]+)(?:/tcp)?", re.ASCII
)
_HIGHEST = 65535
_AT_ONCE = 256
"""Connections that are passed on; further ones wait."""
_CHUNK = 64 << 10
_LOOPBACK = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))


class Port(NamedTuple):
    """`address` is "" for all of the machine's, `host_port` 0 for a free one."""

    address: str
    host_port: int
    container_port: int


def parse_ports(texts: Iterable[str]) -> tuple[Port, ...]:
    """The ports of `[ADDRESS:][HOST:]CONTAINER[/tcp]`, each a number or a range FIRST-LAST. Raises UsageError."""
    return tuple([port for text in texts for port in _parse(text)])


def _parse(text: str) -> list[Port]:
    found = _WORDS.fullmatch(text)
    if found is None:
        hint = "only TCP is passed on" if "/" in text else "for example 8080:80 or 127.0.0.1:8080:80"
        raise UsageError(f'port "{text}" is not [ADDRESS:][HOST:]CONTAINER', hint=hint)
    address = found["six"] or found["four"] or ""
    try:
        address = str(ipaddress.ip_address(address)) if address else ""
    except ValueError as error:
        raise UsageError(f'port "{text}": "{address}" is not an address') from error
    inner = _range(found["inner"], text)
    hosts = _range(found["host"], text) if found["host"] else [0] * len(inner)
    if len(hosts) != len(inner):
        raise UsageError(f'port "{text}": the ranges are of different lengths')
    return [Port(address, host, container) for host, container in zip(hosts, inner, strict=True)]


def _range(text: str, whole: str) -> list[int]:
    first, dash, last = text.partition("-")
    if first.isdecimal() and (last.isdecimal() or not dash):
        numbers = list(range(int(first), min(int(last or first), _HIGHEST + 1) + 1))
        if numbers and numbers[0] > 0 and numbers[-1] <= _HIGHEST:
            return numbers
    raise UsageError(f'port "{whole}": "{text}" is not a number from 1 to {_HIGHEST}, or a range of them')


class Published:
    """Listens on the ports of the machine from the beginning, and passes on when the container is there.

    Raises BuildError for a port that cannot be had. A context manager.
    """

    def __init__(self, ports: Iterable[Port]) -> None:
        self._ports: list[tuple[socket.socket, int]] = []
        self._room = threading.BoundedSemaphore(_AT_ONCE)
        try:
            for port in ports:
                self._ports.append((_listen(port), port.container_port))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Published:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the ports back; connections end with this process. Idempotent."""
        for listening, _ in self._ports:
            with contextlib.suppress(OSError):
                listening.shutdown(socket.SHUT_RDWR)  # ends an accept(2) that waits
            listening.close()

    def host_ports(self) -> list[tuple[int, int]]:
        """The port of the machine, and that of the container, for each."""
        return [(listening.getsockname()[1], container_port) for listening, container_port in self._ports]

    def start(self, network_fd: int) -> None:
        """Pass on to the container with this network namespace, whose descriptor stays open."""
        for listening, container_port in self._ports:
            dial = partial(_dial, network_fd, container_port)
            threading.Thread(target=self._serve, args=(listening, dial), daemon=True).start()

    def _serve(self, listening: socket.socket, dial: partial[socket.socket]) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                self._room.acquire()
                connection, _ = listening.accept()
                threading.Thread(target=self._pass_on, args=(connection, dial), daemon=True).start()

    def _pass_on(self, connection: socket.socket, dial: partial[socket.socket]) -> None:
        """One connection to its end; one to a port that nobody listens on is closed."""
        try:
            with connection, contextlib.suppress(OSError), dial() as inner:
                answering = threading.Thread(target=_copy, args=(inner, connection), daemon=True)
                answering.start()
                _copy(connection, inner)
                answering.join()
        finally:
            self._room.release()


def _listen(port: Port) -> socket.socket:
    """Raises BuildError."""
    is_any = not port.address and socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if is_any or ":" in port.address else socket.AF_INET
    try:
        return socket.create_server((port.address, port.host_port), family=family, dualstack_ipv6=is_any)
    except OSError as error:
        # The text of the error names the address once more.
        reason = os.strerror(error.errno).lower() if error.errno else str(error)
        hint = "ports up to net.ipv4.ip_unprivileged_port_start are root's" if error.errno == errno.EACCES else None
        raise BuildError(f"port {port.address or '*'}:{port.host_port}: {reason}", hint=hint) from error


def _dial(network_fd: int, port: int) -> socket.socket:
    """A connection to a program in the network namespace, by IPv4 or else by IPv6. Raises OSError."""

    def connect() -> socket.socket:
        refused: OSError | None = None
        for family, address in _LOOPBACK:
            connecting = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
            try:
                connecting.connect((address, port))
            except OSError as error:
                connecting.close()
                refused = refused or error
            else:
                return connecting
        assert refused is not None
        raise refused

    return inside(network_fd, connect)


def _copy(source: socket.socket, dest: socket.socket) -> None:
    """Pass bytes on until their end, and that as well; where one side is gone, the other hears of it."""
    try:
        while chunk := source.recv(_CHUNK):
            dest.sendall(chunk)
        dest.shutdown(socket.SHUT_WR)
    except OSError:
        for each in (source, dest):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
