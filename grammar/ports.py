"""Ports of EXPOSE: `80`, `80/udp`, `8000-8010`, and the `ip:host:container` form that is accepted and mostly dropped.

It does not know variables: the words are expanded already.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from grammar.characters import quoted, to_lower
from grammar.errors import DockerfileError

PROTOCOLS = ("tcp", "udp", "sctp")
MAX_PORT = 65535

_NUMBER = re.compile(r"[+-]?0*([0-9]{1,5})")
_BRACKETED = re.compile(r"\[([^\[\]]*)\]")


class PortSpec(NamedTuple):
    """One word of EXPOSE, cut into its parts; what is not there is ""."""

    word: str
    address: str
    host: str
    numbers: str
    protocol: str
    """As written, tcp if it is not."""

    @property
    def is_mapping(self) -> bool:
        """Whether it says where on the host the port goes."""
        return bool(self.address or self.host)

    def ports(self) -> list[str]:
        """Ports with protocol, such as "80/tcp", ranges unrolled. Raises DockerfileError."""
        _check_address(self.address, self.word)
        first, last = _range(self.numbers, self.word)
        if self.host:
            host_first, host_last = _range(self.host, self.word)
            if last != first and last - first != host_last - host_first:
                raise DockerfileError(f"port {quoted(self.word)} has two ranges of different length", subject=self.word)
        protocol = to_lower(self.protocol)
        return [f"{number}/{protocol}" for number in range(first, last + 1)]


def split_port(word: str) -> PortSpec:
    """The parts of one word. Raises DockerfileError if it has no number or an unknown protocol."""
    rest, _, container = word.rpartition(":")
    address, _, host = rest.rpartition(":")
    numbers, _, protocol = container.partition("/")
    if not numbers:
        raise DockerfileError(f"port {quoted(word)} has no number", subject=word)
    if (to_lower(protocol) or "tcp") not in PROTOCOLS:
        raise DockerfileError(f"port {quoted(word)} has an unknown protocol, expected tcp, udp or sctp", subject=word)
    return PortSpec(word, address, host, numbers, protocol or "tcp")


def _range(text: str, word: str) -> tuple[int, int]:
    first, dash, last = text.partition("-")
    start = _number(first, word)
    if not dash or first == last:
        return start, start
    end = _number(last, word)
    if end < start:
        raise DockerfileError(f"port {quoted(word)} has a range that ends before it starts", subject=word)
    return start, end


def _number(text: str, word: str) -> int:
    match = _NUMBER.fullmatch(text)
    number = int(match[1]) * (-1 if text.startswith("-") else 1) if match else -1
    if not 0 <= number <= MAX_PORT:
        raise DockerfileError(f"port {quoted(word)} is not valid, expected numbers from 0 to {MAX_PORT}", subject=word)
    return number


def _check_address(address: str, word: str) -> None:
    if address.startswith("["):
        match = _BRACKETED.fullmatch(address)
        address = match[1] if match else "["
    if not address:
        return
    import ipaddress

    try:
        if "%" in address:
            raise ValueError
        ipaddress.ip_address(address)
    except ValueError:
        raise DockerfileError(f"port {quoted(word)} has an address that is not valid", subject=word) from None
