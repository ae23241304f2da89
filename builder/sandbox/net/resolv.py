"""/etc/resolv.conf of a step: the machine's, as far as its name servers can be reached from there.

Imports nothing, for `launcher` reads it in the process that starts a build and the keeper in its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

RELAY_ADDRESS = "169.254.1.1"
"""Where a step with a network of its own finds a name server that asks those of the machine (`relay`)."""

HOST_FILE = "/etc/resolv.conf"
_RESOLVED = ("127.0.0.53", "127.0.0.54")
_RESOLVED_FILE = "/run/systemd/resolve/resolv.conf"
"""systemd-resolved.service(8): the servers behind its own."""


def read_lines(path: str = HOST_FILE) -> list[str]:
    """The lines of a resolv.conf that are not empty; none when there is no such file."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return [line.rstrip("\n") for line in file if line.strip()]
    except OSError:
        return []


def nameservers(lines: Sequence[str]) -> list[str]:
    """The addresses of the name servers (resolv.conf(5))."""
    pairs = (line.split() for line in lines)
    return [words[1] for words in pairs if words[0] == "nameserver" and len(words) > 1]


class Reach(Protocol):
    """A network of steps."""

    @property
    def has_ipv6(self) -> bool: ...

    @property
    def relay(self) -> str: ...


def host_lines(network: Reach | None) -> list[str]:
    """The machine's lines. In a network of its own a step does not reach what listens on the machine's loopback
    interface, or on a link's own address: the servers behind systemd-resolved stand in their place, or the relay."""
    lines = read_lines()
    if network is None:
        return lines
    found = nameservers(lines)
    if found and all(address in _RESOLVED for address in found):
        lines = read_lines(_RESOLVED_FILE) or lines
    kept = [address for address in nameservers(lines) if is_reachable(address, has_ipv6=network.has_ipv6)]
    others = [line for line in lines if line.split(None, 1)[0] != "nameserver"]
    return [f"nameserver {address}" for address in kept or [network.relay]] + others


def is_reachable(address: str, *, has_ipv6: bool) -> bool:
    """Whether a name server is somewhere else than on this machine or on one of its links."""
    if ":" in address:
        local = address.lower() in ("::1", "::") or address.lower().startswith(("fe8", "fe9", "fea", "feb"))
        return has_ipv6 and not local and "%" not in address and not address.lower().startswith("::ffff:127.")
    return not address.startswith(("127.", "0.", "169.254."))
