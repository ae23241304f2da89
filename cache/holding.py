"""Who needs what of the store: the nouns that accounting and pruning share.

The store knows neither images nor containers, so whoever does hands it their roots; what they stand on is found here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias

from cache.namedtuple import NamedTuple


class Roots(NamedTuple):
    """What somebody outside needs, each with who it is (`image app:1`): chain ids, and digests of blobs."""

    chains: Mapping[str, frozenset[str]] = {}
    blobs: Mapping[str, frozenset[str]] = {}


FindRoots: TypeAlias = Callable[[], Roots]
"""Asked again each time something is about to be removed. Must not note a use."""


class Place(NamedTuple):
    """A directory of the store that belongs to somebody outside; `lock` keeps its users out while it is removed, ""
    for one that must not be removed."""

    path: str
    type: str
    description: str
    created_ns: int
    used_ns: int
    lock: str = ""
    holders: frozenset[str] = frozenset()


class Chain(NamedTuple):
    """A row of table `snapshots`: a layer on its parent chain."""

    chain_id: str
    parent: str
    layer_id: int
    created_ns: int


def spread(roots: Mapping[str, frozenset[str]], chains: Mapping[str, Chain]) -> dict[str, frozenset[str]]:
    """Who needs each chain: those who need it or anything on top of it."""
    found: dict[str, frozenset[str]] = {}
    for root, holders in roots.items():
        name = root
        while name in chains and not holders <= found.get(name, frozenset()):
            found[name] = found.get(name, frozenset()) | holders
            name = chains[name].parent
    return found


def children_first(chains: Mapping[str, Chain], used_ns: Mapping[str, int]) -> list[tuple[int, str]]:
    """The time of the last use of every chain, the least recently used first, none before what stands on it.

    A chain was used when anything on top of it was.
    """
    latest = {name: max(chain.created_ns, used_ns.get(name, 0)) for name, chain in chains.items()}
    depths = _depths(chains)
    for name in sorted(chains, key=depths.__getitem__, reverse=True):
        parent = chains[name].parent
        if parent in latest:
            latest[parent] = max(latest[parent], latest[name])
    return sorted(
        ((time, name) for name, time in latest.items()), key=lambda pair: (pair[0], -depths[pair[1]], pair[1])
    )


def _depths(chains: Mapping[str, Chain]) -> dict[str, int]:
    """How many chains each stands on, itself included."""
    depths: dict[str, int] = {}
    for start in chains:
        name, above = start, dict[str, None]()
        while name in chains and name not in depths and name not in above:  # damaged rows may form a circle
            above[name] = None
            name = chains[name].parent
        depth = depths.get(name, 0)
        for each in reversed(above):
            depth += 1
            depths[each] = depth
    return depths


def only_ours(names: Iterable[str], holder: str) -> dict[str, frozenset[str]]:
    """The same holder for each of the names."""
    return dict.fromkeys(names, frozenset((holder,)))
