"""The process that keeps a build's network: it makes namespaces for steps ahead, and takes them back.

It is the launcher's outer process, which has nothing else to do and sits in the machine's network namespace. It talks
with the launcher over a socket of packets, each a JSON object, a descriptor with it where one is said:

    to the keeper      {"open": directory of pyroute2} + where to send the answer      once, before anything else
                       {"want": 1}                a namespace, now
                       {"back": n}                number n was used, and it or another one may serve another step
                       {"drop": n}                number n was used by somebody who may have changed it
    to the launcher    {"namespace": n} + it      to be used by one step
                       {"failure": text, "hint": text}    instead of one
    to whoever opened  {"ipv6": bool, "relay": address, "notes": [text]}, or {"failure": text, "hint": text}

Nothing is imported, and nothing made, before `open`: most builds that run nothing, or without a network, never pay.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from typing import TYPE_CHECKING, Any, Protocol

from builder.errors import BuildError, SandboxError

if TYPE_CHECKING:
    from builder.sandbox.net.iptables import Iptables

MAX_PACKET = 1 << 16
_SOCKSTAT = "/proc/thread-self/net/sockstat"
_SOCKSTAT_6 = "/proc/thread-self/net/sockstat6"


class Namespace(Protocol):
    """A network namespace of a step."""

    @property
    def fd(self) -> int: ...

    @property
    def number(self) -> int: ...


class Network(Protocol):
    """What makes namespaces: `bridge.Bridge`, or `userspace.Userspace`."""

    notes: list[str]
    has_ipv6: bool
    relay: str
    """Where steps find a name server when they cannot reach the machine's."""

    def add_namespace(self) -> Any: ...

    def remove_namespace(self, namespace: Any) -> None: ...

    def close(self) -> None: ...


def keep(connection: socket.socket, launcher_pid: int, owner_fd: int | None) -> None:
    """Serve the launcher until it closes its end; this process ends with the launcher, whatever it is doing then.

    `owner_fd` is the user namespace that steps are in, None for this process's own.
    """
    import threading

    keeper = Keeper(connection, owner_fd)
    threading.Thread(target=_end_with, args=(launcher_pid, keeper), daemon=True).start()
    try:
        while message := _receive(connection):
            keeper.handle(*message)
    except BaseException:
        keeper.close()
        raise
    threading.Event().wait()


def _receive(connection: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """The launcher's next packet, None when it has ended: with an error if it had not read what was sent to it."""
    with contextlib.suppress(ConnectionResetError):
        packet, fds, _, _ = socket.recv_fds(connection, MAX_PACKET, 1, socket.MSG_CMSG_CLOEXEC)
        if packet:
            return json.loads(packet), list(fds)
    return None


def _end_with(launcher_pid: int, keeper: Keeper) -> None:
    """A build that needed no network after all must not wait until it is made: the kernel takes nearly all back."""
    status = 0
    try:
        _, status = os.waitpid(launcher_pid, 0)
        keeper.close()
    finally:
        os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


class Keeper:
    """See the module."""

    def __init__(self, connection: socket.socket, owner_fd: int | None) -> None:
        self._connection = connection
        self._owner_fd = owner_fd
        self._network: Network | None = None
        self._rules: Iptables | None = None
        self._namespaces: dict[int, Any] = {}

    def handle(self, request: dict[str, Any], fds: list[int]) -> None:
        """Do what one packet asks for; an answer that nobody waits for any more is lost."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            if "open" in request:
                with socket.socket(fileno=fds[0]) as answers:
                    answers.send(json.dumps(self._open(request["open"])).encode())
                for namespace in self._namespaces.values():
                    self._send(namespace)
            elif "want" in request:
                self._offer()
            else:
                self._take_back(request)

    def close(self) -> None:
        """End the network, though it be made at this moment by another thread. Idempotent."""
        if self._rules is not None:
            self._rules.close()
        if self._network is not None:
            self._network.close()

    def _open(self, site_dir: str) -> dict[str, Any]:
        from builder.sandbox.net.iptables import Iptables

        self._rules = Iptables()
        try:
            self._network, first = open_network(site_dir, self._rules, self._owner_fd)
            self._namespaces[first.number] = first
        except Exception as error:  # what went wrong is said once, in the one place where somebody listens
            return _failure(error)
        network = self._network
        return {"ipv6": network.has_ipv6, "relay": network.relay, "notes": network.notes}

    def _offer(self) -> None:
        try:
            assert self._network is not None, "opened before anything is wanted"
            namespace = self._network.add_namespace()
        except (OSError, BuildError) as error:
            self._connection.send(json.dumps(_failure(error)).encode())
            return
        self._namespaces[namespace.number] = namespace
        self._send(namespace)

    def _send(self, namespace: Namespace) -> None:
        socket.send_fds(self._connection, [json.dumps({"namespace": namespace.number}).encode()], [namespace.fd])

    def _take_back(self, request: dict[str, Any]) -> None:
        """Offer a namespace again if it is as it was, or another one: nothing can have changed but its sockets."""
        assert self._network is not None
        number = int(request["back"] if "back" in request else request["drop"])
        namespace = self._namespaces[number]
        if "back" in request:
            from builder.sandbox.net.namespaces import inside

            if not inside(namespace.fd, has_sockets):
                self._send(namespace)
                return
        del self._namespaces[number]
        self._network.remove_namespace(namespace)
        if "back" in request:
            self._offer()


def open_network(site_dir: str, rules: Iptables, owner_fd: int | None) -> tuple[Network, Namespace]:
    """A bridge where this process may make one, else a program's, and a first namespace, which shows that it works.

    `rules` gets those of iptables that are the bridge's. With `owner_fd` namespaces belong to that user namespace,
    which takes a bridge. Raises BuildError that tells why there is neither.
    """
    from builder.sandbox.net import netlink

    netlink.load(site_dir)
    from builder.sandbox.net.bridge import Bridge

    try:
        return _proven(Bridge(rules, owner_fd))
    except (OSError, SandboxError) as error:
        rules.close()
        if owner_fd is not None:
            hint = getattr(error, "hint", None) or "use --network=host, or leave out --userns=auto"
            raise SandboxError(f"no bridge ({_reason(error)})", hint=hint) from error
        refused = error
    from builder.sandbox.net.userspace import Userspace

    try:
        return _proven(Userspace())
    except (OSError, SandboxError) as error:
        hint = getattr(refused, "hint", None) or getattr(error, "hint", None)
        raise SandboxError(f"no bridge ({_reason(refused)}), and {_reason(error)}", hint=hint) from refused


def _proven(network: Network) -> tuple[Network, Namespace]:
    try:
        return network, network.add_namespace()
    except BaseException:
        network.close()
        raise


def has_sockets() -> bool:
    """Whether the network namespace of this thread holds TCP sockets: of connections that linger, for nothing runs."""
    for path in (_SOCKSTAT, _SOCKSTAT_6):
        with contextlib.suppress(OSError), open(path, encoding="ascii") as file:
            for line in file:
                name, *words = line.split()
                counts = dict(zip(words[::2], words[1::2], strict=False))
                if name in ("TCP:", "TCP6:") and any(counts.get(key, "0") != "0" for key in ("inuse", "orphan", "tw")):
                    return True
    return False


def _failure(error: Exception) -> dict[str, Any]:
    return {"failure": _reason(error), "hint": getattr(error, "hint", None) or "use --network=host"}


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return str(error.strerror or error).lower()
    return str(error) if isinstance(error, BuildError) else f"{type(error).__name__}: {error}"
