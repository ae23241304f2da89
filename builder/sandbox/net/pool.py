"""The launcher's side of the network: namespaces that are ready, and the wish for more. `keeper` is the other side.

Runs under `python -I -S`.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket

from builder.errors import SandboxError
from builder.sandbox.net.keeper import MAX_PACKET
from cache.namedtuple import NamedTuple


class PooledNamespace(NamedTuple):
    """A network namespace for one step."""

    fd: int
    number: int


class NetworkPool:
    """Never waits: `receive` is called when there is something to read from the descriptor."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._ready: list[PooledNamespace] = []
        self._wanted = 1
        """How many are on their way; opening makes the first."""

    def fileno(self) -> int:
        """The descriptor to wait for."""
        return self._connection.fileno()

    def open(self, site_dir: str, answer_fd: int) -> None:
        """Have the network made; whether it could be is said to `answer_fd`."""
        socket.send_fds(self._connection, [json.dumps({"open": site_dir}).encode()], [answer_fd])

    def take(self, waiting: int) -> PooledNamespace | None:
        """A namespace, or None: then one is on its way for each of the `waiting`."""
        if self._ready:
            return self._ready.pop()
        while self._wanted < waiting:
            self._wanted += 1
            self._send({"want": 1})
        return None

    def receive(self) -> None:
        """Take what the keeper has sent. Raises SandboxError when it could not make what was wanted, or has ended."""
        packet, fds, _, _ = socket.recv_fds(self._connection, MAX_PACKET, 1, socket.MSG_CMSG_CLOEXEC)
        if not packet:
            raise SandboxError("the process that keeps the network ended unexpectedly")
        message = json.loads(packet)
        self._wanted = max(0, self._wanted - 1)
        if "failure" in message:
            raise SandboxError(f"make a network namespace: {message['failure']}", hint=message["hint"])
        self._ready.append(PooledNamespace(fds[0], message["namespace"]))

    def give_back(self, namespace: PooledNamespace, *, is_trusted: bool) -> None:
        """A step has ended; `is_trusted` says that it had no right to change the namespace."""
        os.close(namespace.fd)
        if is_trusted:
            self._wanted += 1
        self._send({"back" if is_trusted else "drop": namespace.number})

    def _send(self, message: dict[str, int]) -> None:
        with contextlib.suppress(OSError):
            self._connection.send(json.dumps(message).encode())
