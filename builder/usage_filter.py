"""`--filter` of `du` and `prune`, in buildx's words: which entries are meant.

Different keys all have to hold, of one key's values one does. Source: docker buildx du reference, --filter.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from builder.errors import UsageError
from builder.holders import CONTAINER, GIT
from builder.image.timestamp import parse_time
from builder.quantities import parse_duration
from cache.namedtuple import NamedTuple
from cache.usage import BLOB, CACHE_MOUNT, DATABASE, FETCHED, LAYER, LEFTOVER, OTHER, Entry

TYPES = (LAYER, BLOB, CACHE_MOUNT, GIT, FETCHED, CONTAINER, DATABASE, LEFTOVER, OTHER)
PRUNABLE = (LAYER, BLOB, CACHE_MOUNT, GIT, FETCHED)
_FLAGS = ("inuse", "shared", "private", "reclaimable")
_HINT = "filters are type=, id=, until=, description~=, inuse, shared, private, reclaimable; several: type=…,id=…"


class Filter(NamedTuple):
    """What the options mean; `keep_ns` is the age that `until` asks for, 0 for none."""

    types: frozenset[str] = frozenset()
    ids: frozenset[str] = frozenset()
    keep_ns: int = 0
    patterns: tuple[str, ...] = ()
    flags: tuple[tuple[str, bool], ...] = ()

    def fits(self, entry: Entry, now_ns: int) -> bool:
        """Whether an entry is meant."""
        from cache.prune import Policy

        if not Policy(self.types, self.ids, self.keep_ns).fits(entry, now_ns):
            return False
        if self.patterns and not any(re.search(pattern, entry.description) for pattern in self.patterns):
            return False
        return all(_flag(entry, name) == wanted for name, wanted in self.flags)


def parse_filters(texts: Iterable[str], now_ns: int) -> Filter:
    """The filter that all `--filter` together mean. UsageError for one that does not exist."""
    types: set[str] = set()
    ids: set[str] = set()
    patterns: list[str] = []
    flags: list[tuple[str, bool]] = []
    keep_ns = 0
    for word in (word for text in texts for word in text.split(",")):
        key, _, value = word.replace("==", "=").partition("=")
        if key == "type":
            types.add(_type(value))
        elif key == "id" and value:
            ids.add(value)
        elif key in ("until", "unused-for") and value:
            keep_ns = max(keep_ns, _age(value, now_ns))
        elif key in ("description", "description~") and value:
            patterns.append(value if key.endswith("~") else f"^{re.escape(value)}$")
        elif key in _FLAGS and value in ("", "true", "false", "1", "0"):
            flags.append((key, value not in ("false", "0")))
        else:
            raise UsageError(f'--filter "{word}" is not known', hint=_HINT)
    return Filter(frozenset(types), frozenset(ids), keep_ns, tuple(patterns), tuple(flags))


def _type(value: str) -> str:
    if value not in TYPES:
        raise UsageError(f'--filter type "{value}" is not known', hint=f"types are {', '.join(TYPES)}")
    return value


def _age(value: str, now_ns: int) -> int:
    """A duration, or the time since a point in time (RFC 3339)."""
    moment_ns = parse_time(value)
    if moment_ns is None:
        return parse_duration(value, "--filter until")
    return max(1, now_ns - moment_ns)


def _flag(entry: Entry, name: str) -> bool:
    if name == "inuse":
        return bool(entry.holders)
    if name == "reclaimable":
        return entry.is_reclaimable
    return entry.is_shared == (name == "shared")
