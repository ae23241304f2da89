"""Rules of nf_tables, written to the kernel over netlink: no program is needed, and none is left to clean up.

A table is owned by the socket that made it (NFT_TABLE_F_OWNER, Linux 5.12): the kernel removes it with that socket,
however its process ends. On older kernels it is named after an interface that goes with the process, for the next one
to sweep.

Sources: linux/netfilter/nf_tables.h, linux/netfilter/nfnetlink.h; `nft --debug=netlink` shows rules in this form.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
from collections.abc import Callable, Iterable

from builder.sandbox.net.netlink import ACK, CREATE, DUMP, EXCL, HEADER, REQUEST, Netlink
from cache.namedtuple import NamedTuple

PREFIX = "pybuild-"
NETLINK_NETFILTER = 12
INET = 1
PRE_ROUTING, FORWARD, POST_ROUTING = 0, 2, 4
DROP, ACCEPT = 0, 1
IIFNAME, OIFNAME = 6, 7
CT_ESTABLISHED_OR_RELATED = 2 | 4

_SUBSYSTEM = 10 << 8
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_NEWTABLE, _GETTABLE, _DELTABLE, _NEWCHAIN, _GETCHAIN, _NEWRULE = 0, 1, 2, 3, 4, 6
_OWNER = 2
_REGISTER = 1
_NFPROTO_KEY = 15
_EQUAL, _NOT_EQUAL = 0, 1
_NETWORK_HEADER = 1
_NAME_SIZE = 16


class Chain(NamedTuple):
    """A base chain, and its rules, each a list of expressions."""

    name: str
    type: str
    hook: int
    priority: int
    rules: tuple[tuple[bytes, ...], ...]


class BaseChain(NamedTuple):
    """What somebody else has at a hook."""

    family: int
    table: str
    name: str
    hook: int
    is_dropping: bool
    """Whether what no rule accepts is dropped."""


class Tables:
    """A netlink socket with the tables it owns. Raises OSError where the kernel has no nf_tables, or forbids it."""

    def __init__(self) -> None:
        self._netlink = Netlink(NETLINK_NETFILTER)
        self._not_owned: list[str] = []

    def close(self) -> None:
        """Remove the tables. Idempotent."""
        while self._not_owned:
            self._remove(self._not_owned.pop())
        self._netlink.close()

    def add(self, name: str, chains: Iterable[Chain]) -> None:
        """Add the table `pybuild-<name>` of family inet at once, or nothing."""
        try:
            self._add(name, list(chains), _OWNER)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                raise
            self._add(name, list(chains), 0)
            self._not_owned.append(PREFIX + name)

    def _add(self, name: str, chains: list[Chain], flags: int) -> None:
        table = PREFIX + name
        messages = [_message(_NEWTABLE, CREATE | EXCL, _text(1, table), _number(2, flags))]
        for chain in chains:
            hook = _nested(4, _number(1, chain.hook), _signed(2, chain.priority))
            parts = (_text(1, table), _text(3, chain.name), hook, _number(5, ACCEPT), _text(7, chain.type))
            messages.append(_message(_NEWCHAIN, CREATE | EXCL, *parts))
            for rule in chain.rules:
                expressions = _nested(4, *(_nested(1, expression) for expression in rule))
                messages.append(_message(_NEWRULE, CREATE | 0x800, _text(1, table), _text(2, chain.name), expressions))
        self._commit(messages)

    def sweep(self, is_alive: Callable[[str], bool]) -> None:
        """Remove the tables of ours whose name `is_alive` says no to; an owned one is somebody's, and stays."""
        for name in list(self._names()):
            if name.startswith(PREFIX) and not is_alive(name.removeprefix(PREFIX)):
                self._remove(name)

    def _remove(self, table: str) -> None:
        with contextlib.suppress(OSError):
            self._commit([_message(_DELTABLE, 0, _text(1, table))])

    def base_chains(self) -> list[BaseChain]:
        """Every chain that the kernel calls by itself, of all families."""
        found = []
        for body in self._netlink.dump(_message(_GETCHAIN, DUMP, family=0, acknowledged=False)):
            attributes = dict(_attributes(body[HEADER.size + 4 :]))
            if 4 not in attributes:
                continue
            hook = dict(_attributes(attributes[4]))
            policy = int.from_bytes(attributes.get(5, b"\1"), "big")
            found.append(
                BaseChain(
                    body[HEADER.size],
                    _string(attributes[1]),
                    _string(attributes[3]),
                    int.from_bytes(hook[1], "big"),
                    policy == DROP,
                )
            )
        return found

    def _names(self) -> Iterable[str]:
        for body in self._netlink.dump(_message(_GETTABLE, DUMP, acknowledged=False)):
            attributes = dict(_attributes(body[HEADER.size + 4 :]))
            yield _string(attributes[1])

    def _commit(self, messages: list[bytes]) -> None:
        begin, end = (
            HEADER.pack(HEADER.size + 4, kind, REQUEST, 0, 0) + struct.pack("=BBH", 0, 0, socket.htons(10))
            for kind in (_BATCH_BEGIN, _BATCH_END)
        )
        self._netlink.send(begin + b"".join(messages) + end, len(messages))


def on_interface(key: int, name: str, *, is_other: bool = False) -> tuple[bytes, ...]:
    """Match the interface that a packet came in by (IIFNAME) or leaves by (OIFNAME), or any other one."""
    load = _expression("meta", _number(1, _REGISTER), _number(2, key))
    return load, _compare(name.encode().ljust(_NAME_SIZE, b"\0"), _NOT_EQUAL if is_other else _EQUAL)


def source_in(family: int, network: bytes, prefix_length: int, *, is_outside: bool = False) -> tuple[bytes, ...]:
    """Match packets of an address family whose source is, or is not, in a network."""
    size = len(network)
    mask = ((1 << prefix_length) - 1 << size * 8 - prefix_length).to_bytes(size, "big")
    offset = 12 if family == socket.AF_INET else 8
    masking = _expression(
        "bitwise",
        *(_number(1, _REGISTER), _number(2, _REGISTER), _number(3, size)),
        *(_nested(4, _bytes(1, mask)), _nested(5, _bytes(1, bytes(size)))),
    )
    compared = _compare(network, _NOT_EQUAL if is_outside else _EQUAL)
    return (*of_family(family), _payload(_NETWORK_HEADER, offset, size), masking, compared)


def of_family(family: int) -> tuple[bytes, ...]:
    """Match IPv4 or IPv6."""
    load = _expression("meta", _number(1, _REGISTER), _number(2, _NFPROTO_KEY))
    return load, _compare(bytes([2 if family == socket.AF_INET else 10]))


def answers() -> tuple[bytes, ...]:
    """Match packets of connections that have been let through before."""
    load = _expression("ct", _number(1, _REGISTER), _number(2, 0))
    state = struct.pack("=I", CT_ESTABLISHED_OR_RELATED)
    masking = _expression(
        "bitwise",
        *(_number(1, _REGISTER), _number(2, _REGISTER), _number(3, 4)),
        *(_nested(4, _bytes(1, state)), _nested(5, _bytes(1, bytes(4)))),
    )
    return load, masking, _compare(bytes(4), _NOT_EQUAL)


def verdict(code: int) -> tuple[bytes, ...]:
    """End with ACCEPT or DROP."""
    return (_expression("immediate", _number(1, 0), _nested(2, _nested(2, _number(1, code)))),)


def masquerade() -> tuple[bytes, ...]:
    """Give packets the address of the interface that they leave by."""
    return (_expression("masq"),)


def _compare(value: bytes, operation: int = _EQUAL) -> bytes:
    return _expression("cmp", _number(1, _REGISTER), _number(2, operation), _nested(3, _bytes(1, value)))


def _payload(base: int, offset: int, size: int) -> bytes:
    numbers = (_REGISTER, base, offset, size)
    return _expression("payload", *(_number(kind, value) for kind, value in enumerate(numbers, 1)))


def _expression(name: str, *attributes: bytes) -> bytes:
    return _text(1, name) + _nested(2, *attributes)


def _message(kind: int, flags: int, *attributes: bytes, family: int = INET, acknowledged: bool = True) -> bytes:
    body = struct.pack("=BBH", family, 0, 0) + b"".join(attributes)
    flags |= REQUEST | (ACK if acknowledged else 0)
    return HEADER.pack(HEADER.size + len(body), _SUBSYSTEM | kind, flags, 0, 0) + body


def _bytes(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def _text(kind: int, value: str) -> bytes:
    return _bytes(kind, value.encode() + b"\0")


def _number(kind: int, value: int) -> bytes:
    return _bytes(kind, struct.pack("!I", value))


def _signed(kind: int, value: int) -> bytes:
    return _bytes(kind, struct.pack("!i", value))


def _nested(kind: int, *attributes: bytes) -> bytes:
    return _bytes(kind | 0x8000, b"".join(attributes))


def _attributes(body: bytes) -> Iterable[tuple[int, bytes]]:
    while len(body) >= 4:
        length, kind = struct.unpack_from("=HH", body)
        yield kind & 0x3FFF, body[4:length]
        body = body[(max(length, 4) + 3) & ~3 :]


def _string(value: bytes) -> str:
    return value.rstrip(b"\0").decode(errors="replace")
