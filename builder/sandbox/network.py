"""What a step sees of the network: its loopback interface, /etc/hosts and /etc/resolv.conf.

Runs under `python -I -S`.
"""

from __future__ import annotations

import fcntl
import posixpath
import socket
import struct
from collections.abc import Sequence

from builder.sandbox.net.resolv import host_lines
from builder.sandbox.spec import DEFAULT_HOSTNAME, Mount, ProcessSpec
from cache.namedtuple import NamedTuple

NONE, HOST, BRIDGE = "none", "host", "bridge"
MODES = (NONE, HOST, BRIDGE)

_SIOCGIFFLAGS, _SIOCSIFFLAGS = 0x8913, 0x8914
_IFF_UP = 0x1


class OwnNetwork(NamedTuple):
    """What there is to know of the network that a build has for its steps."""

    has_ipv6: bool
    relay: str
    """The name server for steps that cannot reach those of the machine."""
    notes: tuple[str, ...]
    """What was changed on the machine, for the user to know."""


def bring_up_loopback() -> None:
    """Set the flag that makes `lo` of this network namespace usable (netdevice(7)). Raises OSError."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sh22x", b"lo", 0)
        flags = struct.unpack_from("h", fcntl.ioctl(control, _SIOCGIFFLAGS, request), 16)[0]
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", flags | _IFF_UP))


def etc_mounts(spec: ProcessSpec, own_network: OwnNetwork | None = None) -> tuple[Mount, ...]:
    """/etc/hosts and /etc/resolv.conf, read-only, unless the spec mounts something of its own there."""
    taken = {posixpath.normpath("/" + mount.target.lstrip("/")) for mount in spec.mounts}
    if spec.mounts_cover_etc and "/etc" in taken:
        return ()
    contents = {
        "/etc/hosts": hosts_text(spec.hostname or DEFAULT_HOSTNAME, spec.extra_hosts),
        "/etc/resolv.conf": resolv_conf_text(spec, own_network),
    }
    return tuple(
        Mount("file", target, read_only=True, options={"content": content})
        for target, content in contents.items()
        if target not in taken
    )


def hosts_text(hostname: str, extra_hosts: Sequence[str]) -> str:
    """The content of /etc/hosts (hosts(5)); `extra_hosts` are `name:address`, the address may be IPv6."""
    lines = [f"127.0.0.1\tlocalhost {hostname}", "::1\tlocalhost ip6-localhost ip6-loopback"]
    for entry in extra_hosts:
        name, _, address = entry.partition(":")
        lines.append(f"{address.strip('[]')}\t{name}")
    return "\n".join(lines) + "\n"


def resolv_conf_text(spec: ProcessSpec, own_network: OwnNetwork | None = None) -> str:
    """The content of /etc/resolv.conf (resolv.conf(5)): the host's servers that can be reached from the step's network,
    and what the spec says instead of the host's lines."""
    chosen = {"nameserver": spec.dns, "search": spec.dns_search, "options": spec.dns_options}
    lines = [line for line in host_lines(own_network) if not chosen.get(line.split(None, 1)[0])]
    lines += [f"nameserver {address}" for address in spec.dns]
    lines += [f"{key} {' '.join(chosen[key])}" for key in ("search", "options") if chosen[key]]
    return "\n".join(lines) + "\n"
