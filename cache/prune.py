"""Giving disk space back: what may go, in which order, how much of it, and removing it while others build.

The least recently used goes first, and nothing before what stands on it. What an image, a container or a running
process needs is never touched: that is asked again, with the gate closed, at the moment of each removal. Rows go first,
in one transaction, then files; a crash in between leaves directories that the next sweep removes. Knows no image.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from cache.ballast import put_ballast
from cache.digest import Digest
from cache.errors import StoreFullError, os_errors
from cache.holding import FindRoots, Place
from cache.namedtuple import NamedTuple
from cache.removal import remove_tree
from cache.usage import BLOB, CACHE_MOUNT, DATABASE, FETCHED, LAYER, OTHER, Entry, Survey

if TYPE_CHECKING:
    from cache.store import Store

_BATCH = 200
_BALLAST_WANTS = 3 << 20
_PASSES = 3


class Policy(NamedTuple):
    """What to remove. Sizes are bytes, 0 for no such limit; with none of them everything that fits goes.

    `max_used`: remove until the store takes no more. `min_free`: until the file system has so much left. `reserved`:
    but never get the store below that; alone it is what to get down to. BuildKit's garbage collection means the same.
    """

    types: frozenset[str] = frozenset()
    """Only entries of these types; empty for all."""
    ids: frozenset[str] = frozenset()
    """Only entries whose id, or what the user calls it by, is one of these or starts so; empty for all."""
    keep_ns: int = 0
    """Nothing that was used within that time."""
    max_used: int = 0
    reserved: int = 0
    min_free: int = 0
    all: bool = False
    """Also what can be made anew from what stays: compressed layers, memos, records of layers that an image needs; and
    what is kept for names that meant it before."""

    def fits(self, entry: Entry, now_ns: int) -> bool:
        """Whether the policy is about an entry."""
        if self.types and entry.type not in self.types:
            return False
        if self.ids and not any(_is_called(entry, name) for name in self.ids):
            return False
        return not self.keep_ns or 0 < entry.used_ns <= now_ns - self.keep_ns

    def to_keep(self, used: int, free: int) -> int:
        """How many bytes the store may have afterwards."""
        if not (self.max_used or self.reserved or self.min_free):
            return 0
        keep = self.max_used or (used if self.min_free else 0)
        if self.min_free > free:
            keep = min(keep, used - (self.min_free - free))
        return max(keep, self.reserved)


class Pruned(NamedTuple):
    """What was removed, and what the store takes now in bytes."""

    entries: tuple[Entry, ...]
    used: int

    @property
    def freed(self) -> int:
        """Bytes on the disk."""
        return sum(entry.size for entry in self.entries)


class Outside(NamedTuple):
    """What the store itself does not know; each is asked when it is needed."""

    roots: FindRoots
    places: Callable[[], Iterable[Place]]
    fetched: Callable[[], dict[str, str]]
    is_document: Callable[[Digest], bool] = lambda _digest: False
    """Whether a blob is a document of an image that has no name, but whose layers are in the store."""
    firm_roots: FindRoots | None = None
    """The roots that a policy with `all` respects, too; None: all of them."""

    def firm(self) -> Outside:
        """The same with those roots alone."""
        return self._replace(roots=self.firm_roots or self.roots)


def survey(store: Store, outside: Outside) -> Survey:
    """What the store holds now."""
    return Survey(store, outside.roots(), outside.places(), outside.fetched())


def prune(store: Store, outside: Outside, policies: Iterable[Policy], now_ns: int) -> Pruned:
    """Carry out policies one after the other. CacheError when the store cannot be written."""
    store.sweep()
    store.cache_mounts.sweep()
    _forget_dangling(store)
    removed: list[Entry] = []
    inventory, roots = _Inventory(store, outside), outside.roots
    for policy in policies:
        asked = outside.firm() if policy.all else outside
        if asked.roots is not roots:
            inventory, roots = _Inventory(store, asked), asked.roots
        for _ in range(_PASSES):
            run = _Run(store, asked, inventory, policy, now_ns)
            removed += run.removed
            if run.removed or not run.is_satisfied:
                inventory = _Inventory(store, asked)
            if run.is_satisfied:
                break
        if policy.all and not (policy.types or policy.ids or policy.max_used or policy.reserved or policy.min_free):
            _forget_records(store, now_ns - policy.keep_ns)
    store.database.shrink()
    put_ballast(store.root, plenty=_BALLAST_WANTS)
    return Pruned(tuple(removed), inventory.used)


def _forget_dangling(store: Store) -> None:
    """Records whose result is gone lead nowhere."""
    store.database.write(
        "DELETE FROM records WHERE chain_id <> ''"
        " AND NOT EXISTS (SELECT 1 FROM snapshots WHERE snapshots.chain_id = records.chain_id)"
    )


def _forget_records(store: Store, until_ns: int) -> None:
    """What was known of layers that an image keeps, of plans, and of the files of contexts."""
    with store.database.transaction():
        store.database.write("DELETE FROM records WHERE used_ns <= ?", (until_ns,))
        store.database.write("DELETE FROM file_digests WHERE used_ns <= ?", (until_ns,))
        store.database.write("DELETE FROM memo")


class _Inventory:
    """What there is, and how large it is. Trees that were measured before are not measured again."""

    def __init__(self, store: Store, outside: Outside) -> None:
        self.survey = survey(store, outside)
        self.entries = self.survey.entries(measure_again=False)
        self.by_id = {entry.id: entry for entry in self.entries}
        self.used = sum(entry.size for entry in self.entries)
        self._note_sizes(store)

    def _note_sizes(self, store: Store) -> None:
        """Write down what was measured: a tree never changes."""
        new = [layer for layer in self.survey.layers.values() if layer.tree_size < 0]
        if not new:
            return
        with contextlib.suppress(StoreFullError), store.database.transaction():
            for layer in new:
                size = self.by_id[f"snapshots/{layer.layer_id}"].size
                store.database.write("UPDATE layers SET disk_size = ? WHERE id = ?", (size, layer.layer_id))


class _Run:
    """One pass of one policy. `is_satisfied` unless something else than planned came in between."""

    def __init__(self, store: Store, outside: Outside, inventory: _Inventory, policy: Policy, now_ns: int) -> None:
        self._store = store
        self._outside = outside
        self._policy = policy
        self._now_ns = now_ns
        self._survey = inventory.survey
        self._entries = inventory.entries
        self._by_id = inventory.by_id
        self.removed: list[Entry] = []
        disk = os.statvfs(store.root)
        self._excess = inventory.used - policy.to_keep(inventory.used, disk.f_bavail * disk.f_frsize)
        self.is_satisfied = True
        if self._excess > 0:
            self._carry_out()

    def _carry_out(self) -> None:
        """Remove candidates in their order until enough is planned, in batches that keep nobody waiting for long."""
        batch: list[_Candidate] = []
        planned = 0
        for candidate in self._candidates():
            if planned >= self._excess:
                break
            planned += candidate.size
            batch.append(candidate)
            if len(batch) == _BATCH:
                self._remove(batch)
                batch = []
        self._remove(batch)
        self.is_satisfied = sum(entry.size for entry in self.removed) >= min(planned, self._excess)

    def _candidates(self) -> Iterator[_Candidate]:
        found = [*self._chains(), *self._others()]
        return iter(sorted(found, key=lambda candidate: candidate.used_ns))  # stable: children stay before parents

    def _chains(self) -> Iterator[_Candidate]:
        """The chains that may go. One whose child stays has to stay."""
        survey, kept = self._survey, set()
        left: dict[int, int] = {}
        for chain in survey.chains.values():
            left[chain.layer_id] = left.get(chain.layer_id, 0) + 1
        for used_ns, name in survey.order:
            chain = survey.chains[name]
            entry = self._by_id.get(f"snapshots/{chain.layer_id}")
            fits = entry is None or self._policy.fits(entry._replace(used_ns=used_ns), self._now_ns)
            if name in survey.holders or name in kept or not fits:
                kept.add(chain.parent)
                continue
            left[chain.layer_id] -= 1
            yield _Candidate(used_ns, 0 if left[chain.layer_id] else self._layer_size(chain.layer_id), chain=name)

    def _layer_size(self, layer_id: int) -> int:
        size = 0
        for digest, layers in self._survey.blob_layers.items() if layer_id in self._survey.layers else ():
            if layers == {layer_id}:
                blob = self._by_id.get(f"blobs/sha256/{digest[7:]}")
                size += blob.size if blob is not None and blob.is_reclaimable else 0
        return size + (self._by_id[f"snapshots/{layer_id}"].size if layer_id in self._survey.layers else 0)

    def _others(self) -> Iterator[_Candidate]:
        """Blobs that no layer needs, cache mounts, directories of somebody else."""
        locks = {os.path.relpath(place.path, self._store.root): place.lock for place in self._survey.places}
        for entry in self._entries:
            if entry.type in (LAYER, DATABASE, OTHER) or not entry.is_reclaimable:
                continue
            if entry.type == BLOB and not self._policy.all and self._is_form(entry):
                continue
            if self._policy.fits(entry, self._now_ns):
                yield _Candidate(entry.used_ns, entry.size, entry=entry, lock=locks.get(entry.id, ""))

    def _is_form(self, entry: Entry) -> bool:
        """Whether a blob is a form of a layer: it goes with the layer."""
        return f"sha256:{os.path.basename(entry.id)}" in self._survey.blob_layers

    def _remove(self, batch: list[_Candidate]) -> None:
        chains = [candidate.chain for candidate in batch if candidate.chain]
        blobs = [candidate.entry for candidate in batch if candidate.entry and candidate.entry.type in (BLOB, FETCHED)]
        if chains or blobs:
            self._forget(chains, blobs)
        for candidate in batch:
            entry = candidate.entry
            if entry is not None and entry.type not in (BLOB, FETCHED) and self._remove_place(entry, candidate.lock):
                self.removed.append(entry)

    def _remove_place(self, entry: Entry, lock: str) -> bool:
        path = os.path.join(self._store.root, entry.id)
        if entry.type == CACHE_MOUNT:
            return all(
                self._store.cache_mounts.remove(mount)
                for mount in self._store.cache_mounts.walk()
                if mount.path == path
            )
        with self._store.locks.try_exclusive(lock) as is_ours:
            if is_ours:
                gone = path + ".gone"
                with os_errors(path), contextlib.suppress(FileNotFoundError):
                    remove_tree(gone)
                    os.rename(path, gone)
                    remove_tree(gone)
            return is_ours

    def _forget(self, chains: list[str], blobs: list[Entry]) -> None:
        from cache.forget import forget

        digests = [Digest(f"sha256:{os.path.basename(entry.id)}") for entry in blobs]
        gone = forget(self._store, self._outside.roots, chains, digests)
        for identity in gone:
            entry = self._by_id.get(identity)
            if entry is not None:
                self.removed.append(entry)


class _Candidate(NamedTuple):
    """Something that may go: a chain, or an entry that is no layer."""

    used_ns: int
    size: int
    chain: str = ""
    entry: Entry | None = None
    lock: str = ""


def _is_called(entry: Entry, name: str) -> bool:
    """By its path, the name of the directory or file in it, the start of that (12 characters at least), what it is
    described by."""
    last = entry.id.rpartition("/")[2]
    parts = entry.id.split("/")
    starts = len(name) >= 12 and any(part.startswith(name) for part in parts)
    names = (entry.id, last, entry.description, entry.description.removeprefix("/"), f"sha256:{last}")
    return name in names or starts
