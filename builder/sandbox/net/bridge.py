"""A build's own network: a bridge that steps are connected with, and the machine translating their addresses.

    step's namespace          the build's namespace                  the machine's
    eth0 10.208.5.2/24 ───── port2 ─┐
    eth0 10.208.5.3/24 ───── port3 ─┴ bridge ─ uplink ───────────── pyb1f2e3d4c 10.208.5.1/24 ─ forwarding, translation

The bridge has a namespace of its own, so that the machine gets one interface of a build, and the kernel removes that,
the bridge and every port when the last process of the build is gone, however it ends; the rules go the same way
(`netfilter`). Ports are isolated: steps of one build do not see each other. Namespaces are kept and used again by
later steps, as making one costs milliseconds.
"""

from __future__ import annotations

import contextlib
import os
import socket

from builder.errors import SandboxError
from builder.sandbox.net import iptables, netfilter, relay
from builder.sandbox.net import subnet as subnets
from builder.sandbox.net.iptables import Iptables
from builder.sandbox.net.namespaces import Namespace, inside, new_namespace
from builder.sandbox.net.netlink import Link, Route, RouteSocket
from builder.sandbox.net.resolv import RELAY_ADDRESS
from cache.namedtuple import NamedTuple

INTERFACE_PREFIX = "pyb"
_FORWARDING = "/proc/sys/net/ipv4/ip_forward"
_FORWARDING_6 = "/proc/sys/net/ipv6/conf/all/forwarding"
_NFPROTO_IPV4 = 2


class Uplink(NamedTuple):
    """What the machine itself is connected with."""

    mtu: int
    has_ipv6: bool
    taken: tuple[tuple[str, int], ...]
    """Networks that are in use."""
    advertised: tuple[str, ...]
    """Interfaces with an IPv6 default route, which router advertisements may have made."""


class Bridge:
    """The network of one build. Raises OSError, SandboxError where it cannot be made.

    What it adds to `rules` is the caller's to take back, who may have to before this is made.
    """

    def __init__(self, rules: Iptables, owner_fd: int | None) -> None:
        self._owner_fd = owner_fd
        self._numbers: set[int] = set()
        self._host = RouteSocket()
        uplink = survey(self._host)
        self.mtu = uplink.mtu
        self.has_ipv6 = uplink.has_ipv6
        self.relay = RELAY_ADDRESS
        self.notes: list[str] = []
        """What the user has to know."""
        self.subnet = subnets.choose(uplink.taken, has_ipv6=uplink.has_ipv6)
        self._interface = f"{INTERFACE_PREFIX}{os.urandom(4).hex()}"
        self._iptables = rules
        self._tables: netfilter.Tables | None = None
        self._router_fd, self._router = new_namespace()
        self._bridge = self._make_bridge()
        self._forward(uplink)
        self._translate()
        relay.Relay(inside(self._router_fd, relay.listen))

    def add_namespace(self) -> Namespace:
        """A network namespace with an interface eth0 on the bridge. Raises OSError, SandboxError."""
        number = next(each for each in range(1 << 16) if each not in self._numbers)
        address, address_6 = self.subnet.addresses(number)
        fd, netlink = new_namespace(self._owner_fd)
        try:
            name = f"port{number}"
            # A port with this name can be there still: the kernel removes them a moment after their namespace.
            with contextlib.suppress(OSError):
                self._router.delete_link(self._router.index_of(name))
            port = self._router.add_veth(name, "eth0", fd, mtu=self.mtu, master=self._bridge)
            self._router.isolate_port(port)
            self._router.set_up(port)
            self._configure(netlink, address, address_6)
        except BaseException:
            os.close(fd)
            raise
        finally:
            netlink.close()
        self._numbers.add(number)
        return Namespace(fd, number)

    def remove_namespace(self, namespace: Namespace) -> None:
        """Give a namespace up; the kernel removes it when no process is in it any more."""
        os.close(namespace.fd)
        self._numbers.discard(namespace.number)

    def close(self) -> None:
        """Take back what the kernel does not. Idempotent."""
        if self._tables is not None:
            self._tables.close()

    def _make_bridge(self) -> int:
        """The index of the bridge, in its namespace; the machine's side of it has the gateway's addresses."""
        router, host, subnet = self._router, self._host, self.subnet
        bridge = router.add_link("bridge", "bridge", mtu=self.mtu, settings=[("IFLA_BR_FORWARD_DELAY", 0)])
        router.add_address(bridge, RELAY_ADDRESS, 32)
        router.set_up(bridge)
        outer = host.add_veth(self._interface, "uplink", self._router_fd, mtu=self.mtu)
        inner = router.index_of("uplink")
        router.set_master(inner, bridge)
        router.set_up(inner)
        _write(f"/proc/sys/net/ipv6/conf/{self._interface}/accept_ra", "0")
        host.add_address(outer, subnet.gateway, subnets.PREFIX_LENGTH)
        if subnet.network_6:
            host.add_address(outer, subnet.gateway_6, subnets.PREFIX_LENGTH_6)
        host.set_up(outer)
        # So that the bridge, which answers for names, knows where steps are.
        router.add_route(bridge, str(subnet.network))
        return bridge

    def _configure(self, netlink: RouteSocket, address: str, address_6: str) -> None:
        index = netlink.index_of("eth0")
        netlink.add_address(index, address, subnets.PREFIX_LENGTH)
        if address_6:
            netlink.add_address(index, address_6, subnets.PREFIX_LENGTH_6)
        netlink.set_up(index)
        netlink.add_route(index, f"{RELAY_ADDRESS}/32")
        netlink.add_route(index, "0.0.0.0/0", gateway=self.subnet.gateway)
        if address_6:
            netlink.add_route(index, "::/0", gateway=self.subnet.gateway_6)

    def _forward(self, uplink: Uplink) -> None:
        """Let the machine pass packets on, as Docker and Podman do: it stays so, for others may rely on it by then."""
        _turn_on(_FORWARDING, "IPv4", self.notes)
        if uplink.has_ipv6 and _read(_FORWARDING_6) != "1":
            for interface in uplink.advertised:
                # A router does not listen to other routers, unless told to: the machine would lose its default route.
                if _read(f"/proc/sys/net/ipv6/conf/{interface}/accept_ra") == "1":
                    _write(f"/proc/sys/net/ipv6/conf/{interface}/accept_ra", "2")
            _turn_on(_FORWARDING_6, "IPv6", self.notes)

    def _translate(self) -> None:
        """Rules of nf_tables where the kernel has it, else of iptables; and iptables' own drops lifted."""
        network, network_6 = self.subnet.network, self.subnet.network_6
        try:
            self._tables = netfilter.Tables()
            self._tables.sweep(_is_interface)
            self._tables.add(self._interface, self._chains())
        except OSError:
            iptables.sweep(_is_interface)
            self._iptables.translate(self._interface, str(network), str(network_6 or ""))
            return
        if _has_iptables(self._tables):
            iptables.sweep(_is_interface)
            self._iptables.open_forwarding(self._interface, has_ipv6=network_6 is not None)

    def _chains(self) -> list[netfilter.Chain]:
        """What leaves gets the machine's address; nothing comes in unasked or goes out with a false source."""
        mine, nf = self._interface, netfilter
        arriving, leaving = nf.on_interface(nf.IIFNAME, mine), nf.on_interface(nf.OIFNAME, mine)
        elsewhere = nf.on_interface(nf.OIFNAME, mine, is_other=True)
        forwarded, translated = [], []
        networks = {socket.AF_INET: self.subnet.network, socket.AF_INET6: self.subnet.network_6}
        for family, network in networks.items():
            if network is None:
                forwarded.append((*arriving, *nf.of_family(family), *nf.verdict(nf.DROP)))
                continue
            packed, length = network.network_address.packed, network.prefixlen
            outside = nf.source_in(family, packed, length, is_outside=True)
            forwarded.append((*arriving, *outside, *nf.verdict(nf.DROP)))
            translated.append((*nf.source_in(family, packed, length), *elsewhere, *nf.masquerade()))
        forwarded.append((*leaving, *nf.answers(), *nf.verdict(nf.ACCEPT)))
        forwarded.append((*leaving, *nf.verdict(nf.DROP)))
        return [
            nf.Chain("forward", "filter", nf.FORWARD, 0, tuple(forwarded)),
            nf.Chain("translate", "nat", nf.POST_ROUTING, 100, tuple(translated)),
        ]


def survey(host: RouteSocket) -> Uplink:
    """Where the machine's packets go: the default routes with the lowest metric decide."""
    links = {link.number: link for link in host.links() if link.is_up and not link.is_loopback}
    routes = [route for route in host.routes() if route.interface in links]
    defaults = sorted((route for route in routes if not route.prefix_length), key=lambda route: route.priority)
    networks = {(route.destination, route.prefix_length) for route in routes if route.prefix_length}
    networks |= {(address, length) for _, address, length in host.addresses()}
    is_6 = (route for route in defaults if route.family == socket.AF_INET6)
    advertised = tuple(dict.fromkeys(links[route.interface].name for route in is_6))
    return Uplink(_mtu(defaults, links), bool(advertised), tuple(networks), advertised)


def _mtu(defaults: list[Route], links: dict[int, Link]) -> int:
    used = [links[route.interface].mtu for route in defaults]
    return used[0] if used else min((link.mtu for link in links.values()), default=1500)


def _has_iptables(tables: netfilter.Tables) -> bool:
    """Whether somebody filters what is forwarded by iptables, of either kind."""
    with contextlib.suppress(OSError), open("/proc/net/ip_tables_names", encoding="ascii") as names:
        if "filter" in names.read().split():
            return True
    return any(
        chain.family == _NFPROTO_IPV4 and (chain.table, chain.name) == ("filter", "FORWARD")
        for chain in tables.base_chains()
    )


def _is_interface(name: str) -> bool:
    return os.path.exists(f"/proc/sys/net/ipv4/conf/{name}")


def _turn_on(path: str, what: str, notes: list[str]) -> None:
    if _read(path) == "1":
        return
    name = path.removeprefix("/proc/sys/").replace("/", ".")
    if not _write(path, "1"):
        raise SandboxError(
            f"{what} forwarding is off and cannot be turned on here", hint=f"sysctl -w {name}=1, or use --network=host"
        )
    notes.append(f"turned on {name} for the network of RUN; it stays on")


def _read(path: str) -> str:
    with contextlib.suppress(OSError), open(path, encoding="ascii") as file:
        return file.read().strip()
    return ""


def _write(path: str, text: str) -> bool:
    with contextlib.suppress(OSError), open(path, "w", encoding="ascii") as file:
        file.write(text)
        return True
    return False
