"""Interfaces, addresses and routes of one network namespace, through rtnetlink(7).

The only importer of pyroute2, and of its message classes only: they cost 27 ms of processor time to load where the
whole library costs 120, and its sockets need asyncio. Messages of nf_tables are `netfilter`'s.
"""

from __future__ import annotations

import contextlib
import errno
import importlib.machinery
import os
import socket
import struct
import sys
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from builder.errors import SandboxError
from cache.namedtuple import NamedTuple

NETLINK_EXT_ACK, SOL_NETLINK = 11, 270
NLMSG_ERROR, NLMSG_DONE = 2, 3
REQUEST, ACK, DUMP, EXCL, CREATE = 0x1, 0x4, 0x300, 0x200, 0x400
HEADER = struct.Struct("=IHHII")
"""nlmsghdr: length, type, flags, sequence number, port."""

_NEWLINK, _DELLINK, _GETLINK, _NEWADDR, _GETADDR, _NEWROUTE, _GETROUTE = 16, 17, 18, 20, 22, 24, 26
_IFF_UP, _IFF_LOOPBACK = 0x1, 0x8
_NO_DAD = 0x2
_MAIN_TABLE, _PROTO_BOOT, _SCOPE_UNIVERSE, _SCOPE_LINK, _UNICAST = 254, 3, 0, 253, 1
_MESSAGE_ATTRIBUTE = 1
_RECEIVED = 1 << 18

Attributes = Sequence[tuple[str, Any]]


class Route(NamedTuple):
    """One unicast route of the main table: `destination` is "" for the default route."""

    family: int
    destination: str
    prefix_length: int
    interface: int
    priority: int


class Link(NamedTuple):
    """One interface."""

    number: int
    name: str
    mtu: int
    is_up: bool
    is_loopback: bool


def load(site_dir: str) -> None:
    """Make pyroute2 importable from the directory it is installed in. Raises SandboxError when it is not there."""
    if "pyroute2" in sys.modules:
        return
    spec = importlib.machinery.PathFinder.find_spec("pyroute2", [site_dir] if site_dir else [])
    if spec is None or spec.submodule_search_locations is None:
        raise SandboxError("pyroute2 is not installed", hint="install pybuild with its dependencies")
    # Running the package's own __init__ would load everything else, too.
    package = types.ModuleType("pyroute2")
    package.__path__ = list(spec.submodule_search_locations)
    sys.modules["pyroute2"] = package


class Netlink:
    """A socket of the network namespace that this process is in when it is made; it stays with that namespace."""

    def __init__(self, protocol: int = socket.NETLINK_ROUTE) -> None:
        self.socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        self.socket.bind((0, 0))
        self.socket.setsockopt(SOL_NETLINK, NETLINK_EXT_ACK, 1)

    def close(self) -> None:
        """Idempotent."""
        self.socket.close()

    def send(self, messages: bytes, answers: int) -> None:
        """Send one message or several that ask for `answers` acknowledgements. Raises OSError for the first that was
        refused, when all that the kernel has said is read: it answers before send(2) returns, the others or not."""
        self.socket.send(messages)
        refused: OSError | None = None
        with contextlib.suppress(BlockingIOError):
            while answers:
                for kind, body in self._received(socket.MSG_DONTWAIT if refused else 0):
                    if kind == NLMSG_ERROR:
                        answers -= 1
                        refused = refused or _refusal(body)
        if refused:
            raise refused

    def dump(self, message: bytes) -> Iterator[bytes]:
        """The messages that answer a request for everything, with their headers."""
        self.socket.send(message)
        while True:
            for kind, body in self._received():
                if kind == NLMSG_DONE:
                    return
                if kind == NLMSG_ERROR and (refused := _refusal(body)):
                    raise refused
                yield body

    def _received(self, flags: int = 0) -> Iterator[tuple[int, bytes]]:
        packet = self.socket.recv(_RECEIVED, flags)
        while packet:
            length, kind = HEADER.unpack_from(packet)[:2]
            yield kind, packet[:length]
            packet = packet[(length + 3) & ~3 :]


def _refusal(body: bytes) -> OSError | None:
    """The OSError of an NLMSG_ERROR that is one, with the kernel's own words where it has some (NETLINK_EXT_ACK)."""
    (code,) = struct.unpack_from("=i", body, HEADER.size)
    if not code:
        return None
    reason = os.strerror(-code).lower()
    flags = HEADER.unpack_from(body)[2]
    # With NLM_F_CAPPED only the header of our message comes back, else all of it.
    refused_size = HEADER.size if flags & 0x100 else struct.unpack_from("=I", body, HEADER.size + 4)[0]
    rest = body[HEADER.size + 4 + ((refused_size + 3) & ~3) :] if flags & 0x200 else b""
    while len(rest) >= 4:
        length, kind = struct.unpack_from("=HH", rest)
        if kind == _MESSAGE_ATTRIBUTE:
            reason += f" ({rest[4:length].rstrip(bytes(1)).decode(errors='replace')})"
        rest = rest[(max(length, 4) + 3) & ~3 :]
    return OSError(-code, f"netlink: {reason}")


class RouteSocket(Netlink):
    """What `ip` can do, as far as a step's network needs it. Methods raise OSError for what the kernel refuses."""

    def add_link(self, name: str, kind: str, *, mtu: int, settings: Attributes = (), master: int = 0) -> int:
        """Make an interface, down; returns its index."""
        described: list[tuple[str, Any]] = [("IFLA_INFO_KIND", kind)]
        if settings:
            described.append(("IFLA_INFO_DATA", {"attrs": list(settings)}))
        attributes: list[tuple[str, Any]] = [("IFLA_IFNAME", name), ("IFLA_MTU", mtu)]
        if master:
            attributes.append(("IFLA_MASTER", master))
        attributes.append(("IFLA_LINKINFO", {"attrs": described}))
        self._link(_NEWLINK, CREATE | EXCL, attributes)
        return self.index_of(name)

    def add_veth(self, name: str, peer: str, peer_namespace_fd: int, *, mtu: int, master: int = 0) -> int:
        """Make two connected interfaces, the other one in another namespace; returns the index of the first."""
        other = [("IFLA_IFNAME", peer), ("IFLA_MTU", mtu), ("IFLA_NET_NS_FD", peer_namespace_fd)]
        return self.add_link(name, "veth", mtu=mtu, settings=[("VETH_INFO_PEER", {"attrs": other})], master=master)

    def isolate_port(self, index: int) -> None:
        """Let a port of a bridge talk with ports that are not isolated, only."""
        data = {"attrs": [("IFLA_BRPORT_ISOLATED", 1)]}
        described = [("IFLA_INFO_SLAVE_KIND", "bridge"), ("IFLA_INFO_SLAVE_DATA", data)]
        self._link(_NEWLINK, 0, [("IFLA_LINKINFO", {"attrs": described})], index=index)

    def set_master(self, index: int, master: int) -> None:
        """Make an interface a port of a bridge."""
        self._link(_NEWLINK, 0, [("IFLA_MASTER", master)], index=index)

    def set_up(self, index: int) -> None:
        """Bring an interface up."""
        self._link(_NEWLINK, 0, [], index=index, flags=_IFF_UP, change=_IFF_UP)

    def delete_link(self, index: int) -> None:
        """Remove an interface, and what is connected with it."""
        self._link(_DELLINK, 0, [], index=index)

    def index_of(self, name: str) -> int:
        """The index of an interface of this socket's namespace."""
        from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

        message = self._encoded(ifinfmsg(), _GETLINK, 0, {}, [("IFLA_IFNAME", name)])
        self.socket.send(message)
        for kind, body in self._received():
            if kind == NLMSG_ERROR and (refused := _refusal(body)):
                raise refused
            return int(struct.unpack_from("=i", body, HEADER.size + 4)[0])
        raise OSError(errno.ENODEV, f"netlink: no interface {name}")

    def add_address(self, index: int, address: str, prefix_length: int) -> None:
        """Give an interface an address that is usable at once."""
        from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg

        family = _family(address)
        fields = {"family": family, "prefixlen": prefix_length, "index": index}
        attributes = [("IFA_ADDRESS", address)]
        if family == socket.AF_INET:
            attributes.append(("IFA_LOCAL", address))
        else:
            fields["flags"] = _NO_DAD
        message = self._encoded(ifaddrmsg(), _NEWADDR, ACK | CREATE | EXCL, fields, attributes)
        self.send(message, 1)

    def add_route(self, index: int, destination: str, *, gateway: str = "") -> None:
        """A route to a network such as `10.0.0.0/8`, by way of a gateway or on the link itself."""
        from pyroute2.netlink.rtnl.rtmsg import rtmsg

        network, _, length = destination.partition("/")
        family = _family(network)
        fields = {
            "family": family,
            "dst_len": int(length),
            "table": _MAIN_TABLE,
            "proto": _PROTO_BOOT,
            "scope": _SCOPE_UNIVERSE if gateway or family == socket.AF_INET6 else _SCOPE_LINK,
            "type": _UNICAST,
        }
        attributes: list[tuple[str, Any]] = [("RTA_OIF", index)]
        attributes += [("RTA_GATEWAY", gateway)] if gateway else []
        attributes += [("RTA_DST", network)] if int(length) else []
        self.send(self._encoded(rtmsg(), _NEWROUTE, ACK | CREATE | EXCL, fields, attributes), 1)

    def links(self) -> list[Link]:
        """Every interface."""
        from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

        found = []
        for body in self.dump(self._encoded(ifinfmsg(), _GETLINK, DUMP, {}, [])):
            message = _decoded(ifinfmsg(body))
            flags = message["flags"]
            name, mtu = message.get_attr("IFLA_IFNAME"), message.get_attr("IFLA_MTU")
            found.append(Link(message["index"], name, mtu, bool(flags & _IFF_UP), bool(flags & _IFF_LOOPBACK)))
        return found

    def routes(self) -> list[Route]:
        """The unicast routes of the main table, IPv4 and IPv6."""
        from pyroute2.netlink.rtnl.rtmsg import rtmsg

        found = []
        for family in (socket.AF_INET, socket.AF_INET6):
            for body in self.dump(self._encoded(rtmsg(), _GETROUTE, DUMP, {"family": family}, [])):
                message = _decoded(rtmsg(body))
                if message["table"] == _MAIN_TABLE and message["type"] == _UNICAST:
                    found.append(
                        Route(
                            family,
                            message.get_attr("RTA_DST") or "",
                            message["dst_len"],
                            _interface(message),
                            message.get_attr("RTA_PRIORITY") or 0,
                        )
                    )
        return found

    def addresses(self) -> list[tuple[int, str, int]]:
        """Index of the interface, address and length of the prefix, for every address."""
        from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg

        messages = (_decoded(ifaddrmsg(b)) for b in self.dump(self._encoded(ifaddrmsg(), _GETADDR, DUMP, {}, [])))
        return [(each["index"], each.get_attr("IFA_ADDRESS"), each["prefixlen"]) for each in messages]

    def _link(self, kind: int, options: int, attributes: Attributes, **fields: int) -> None:
        from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

        self.send(self._encoded(ifinfmsg(), kind, ACK | options, fields, attributes), 1)

    @staticmethod
    def _encoded(message: Any, kind: int, flags: int, fields: Mapping[str, int], attributes: Attributes) -> bytes:
        for name, value in fields.items():
            message[name] = value
        message["attrs"] = list(attributes)
        message["header"] = {"type": kind, "flags": REQUEST | flags, "sequence_number": 0, "pid": 0}
        message.encode()
        return bytes(message.data)


def _decoded(message: Any) -> Any:
    message.decode()
    return message


def _interface(route: Any) -> int:
    """Where a route leads; of several ways the first."""
    index = route.get_attr("RTA_OIF")
    if index is None:
        ways = route.get_attr("RTA_MULTIPATH") or [{"oif": 0}]
        index = ways[0]["oif"]
    return int(index)


def _family(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET
