"""Addresses for the steps of one build, such that nothing else here uses them.

A subnet is reserved by binding an abstract unix socket named after it: such names belong to the network namespace, as
addresses do, and the kernel gives them back with their process.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
from collections.abc import Iterable

from builder.errors import SandboxError
from cache.namedtuple import NamedTuple

_FIRST, _COUNT = int(ipaddress.ip_address("10.208.0.0")), 4096
"""10.208.0.0/12 in parts of 256: not where Docker, Podman, LXD, libvirt, Kubernetes and minikube begin."""
PREFIX_LENGTH = 24
PREFIX_LENGTH_6 = 64
_STEPS_AT_MOST = 253


class Subnet(NamedTuple):
    """An IPv4 network, and an IPv6 one when the machine has that; `reservation` is held open as long as it is used."""

    network: ipaddress.IPv4Network
    network_6: ipaddress.IPv6Network | None
    reservation: socket.socket

    @property
    def gateway(self) -> str:
        """The host's address in the subnet."""
        return str(self.network[1])

    @property
    def gateway_6(self) -> str:
        """The host's address in the IPv6 network, "" without one."""
        return str(self.network_6[1]) if self.network_6 else ""

    def addresses(self, number: int) -> tuple[str, str]:
        """The addresses of the step `number`, from 0; the second is "" without IPv6. SandboxError when there are too
        many."""
        if number >= _STEPS_AT_MOST:
            raise SandboxError(f"more than {_STEPS_AT_MOST} steps want a network at once", hint="use fewer --jobs")
        return str(self.network[number + 2]), str(self.network_6[number + 2]) if self.network_6 else ""


def choose(taken: Iterable[tuple[str, int]], *, has_ipv6: bool) -> Subnet:
    """A free subnet; `taken` are networks, as address and length of the prefix, that are in use here.

    Begins at a random one, so that builds on machines that are connected seldom choose the same. Raises SandboxError.
    """
    used = [ipaddress.ip_network(f"{address}/{length}", strict=False) for address, length in taken if length]
    used_4 = [network for network in used if network.version == 4]
    start = int.from_bytes(os.urandom(2), "big")
    for step in range(_COUNT):
        network = ipaddress.ip_network((_FIRST + (start + step) % _COUNT * 256, PREFIX_LENGTH))
        assert isinstance(network, ipaddress.IPv4Network)
        if any(network.overlaps(other) for other in used_4):
            continue
        reservation = _reserve(str(network))
        if reservation is not None:
            return Subnet(network, _random_ipv6() if has_ipv6 else None, reservation)
    raise SandboxError("no subnet of 10.208.0.0/12 is free", hint="use --network=host")


def _reserve(name: str) -> socket.socket | None:
    reservation = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    with contextlib.suppress(OSError):
        reservation.bind(f"\0pybuild-network-{name}")
        return reservation
    reservation.close()
    return None


def _random_ipv6() -> ipaddress.IPv6Network:
    """A unique local network with a random global id (RFC 4193, 3.2)."""
    return ipaddress.IPv6Network((b"\xfd" + os.urandom(5) + bytes(10), PREFIX_LENGTH_6))
