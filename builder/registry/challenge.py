"""What a registry asks for when it refuses: the WWW-Authenticate header, read (RFC 9110 section 11.6.1)."""

from __future__ import annotations

import re
from collections.abc import Mapping

from cache.namedtuple import NamedTuple

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105 - the grammar's name for a word
_PARAMETER = re.compile(rf'\s*({_TOKEN})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|({_TOKEN}(?:[/:=]*{_TOKEN})*))\s*(?:,|$)')
_SCHEME = re.compile(rf"[\s,]*({_TOKEN})(?:\s+|$)")
_LIMIT = 8192


class Challenge(NamedTuple):
    """One way to be let in: a scheme in lower case, and its parameters by lower-case names."""

    scheme: str
    parameters: Mapping[str, str]


def parse_challenges(header: str) -> list[Challenge]:
    """The challenges of a header, in order; what cannot be understood is left out."""
    text, place, found = header[:_LIMIT], 0, []
    while match := _SCHEME.match(text, place):
        place = match.end()
        parameters: dict[str, str] = {}
        while parameter := _PARAMETER.match(text, place):
            name, quoted, plain = parameter.groups()
            value = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else plain
            parameters.setdefault(name.lower(), value)
            place = parameter.end()
        found.append(Challenge(match[1].lower(), parameters))
    return found
