"""What the store holds and what each thing takes on the disk: entries whose sizes add up to what du(1) says.

One entry for every layer's tree, blob, cache mount and directory of somebody else, one for the database, and one for
all that is left (directories, locks). Removes nothing; knows no image, only the roots that it is given.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from cache.diskuse import Meter
from cache.holding import Chain, Place, Roots, children_first, only_ours, spread
from cache.namedtuple import NamedTuple

if TYPE_CHECKING:
    from cache.store import Store

LAYER = "regular"
BLOB = "blob"
CACHE_MOUNT = "exec.cachemount"
FETCHED = "source.http"
DATABASE = "database"
LEFTOVER = "leftover"
OTHER = "other"
RUNNING = "a running build"


class Entry(NamedTuple):
    """One thing. `id` is its path in the store; `size` what it takes on the disk in bytes; times are nanoseconds.

    `holders` keep it from being pruned. `is_shared`: no single user's going would free it.
    """

    id: str
    type: str
    size: int
    created_ns: int
    used_ns: int
    description: str = ""
    holders: frozenset[str] = frozenset()
    is_shared: bool = False
    is_reclaimable: bool = False
    keys: tuple[str, ...] = ()
    """Cache records that lead to it."""


class LayerUse(NamedTuple):
    """A row of table `layers`; `tree_size` is -1 when it was not measured yet."""

    layer_id: int
    diff_id: str
    blob_digest: str
    tree_size: int


class Survey:
    """Everything that the store knew at one moment. `entries` is made when it is asked for."""

    def __init__(self, store: Store, roots: Roots, places: Iterable[Place], fetched: Mapping[str, str]) -> None:
        """`fetched` describes blobs that were fetched from elsewhere, by digest."""
        self.store = store
        self.roots = roots
        self.places = tuple(places)
        self.fetched = fetched
        rows = store.database.rows
        self.chains = {
            row[0]: Chain(*row) for row in rows("SELECT chain_id, parent, layer_id, created_ns FROM snapshots")
        }
        self.layers = {
            row[0]: LayerUse(*row)
            for row in rows("SELECT id, diff_id, blob_digest, disk_size FROM layers WHERE state = 'ready'")
        }
        self.records: dict[str, list[str]] = {}
        used: dict[str, int] = {}
        for key, chain, used_ns in rows("SELECT key, chain_id, used_ns FROM records"):
            self.records.setdefault(chain, []).append(key)
            used[chain] = max(used.get(chain, 0), used_ns)
        noted = store.locks.live_notes()
        self.holders = spread(_merged(roots.chains, only_ours(noted, RUNNING)), self.chains)
        self.order = children_first(self.chains, used)
        self.noted = noted
        self.blob_layers = self._blob_layers()
        self.layer_holders: dict[int, frozenset[str]] = {}
        for name, holders in self.holders.items():
            layer_id = self.chains[name].layer_id
            self.layer_holders[layer_id] = self.layer_holders.get(layer_id, frozenset()) | holders

    def _blob_layers(self) -> dict[str, set[int]]:
        """The layers that each blob is a form of."""
        found: dict[str, set[int]] = {}
        by_diff_id: dict[str, list[int]] = {}
        for layer in self.layers.values():
            by_diff_id.setdefault(layer.diff_id, []).append(layer.layer_id)
            if layer.blob_digest:
                found.setdefault(layer.blob_digest, set()).add(layer.layer_id)
        for diff_id, digest in self.store.database.rows("SELECT diff_id, digest FROM layer_blobs"):
            if diff_id in by_diff_id:
                found.setdefault(digest, set()).update(by_diff_id[diff_id])
        return found

    def entries(self, *, measure_again: bool = True) -> list[Entry]:
        """Every entry. Trees never change, so sizes that were measured before will do, unless `measure_again`."""
        return list(_Accounting(self, measure_again).entries())


class _Accounting:
    """One pass over the disk."""

    def __init__(self, survey: Survey, measure_again: bool) -> None:
        self.survey = survey
        self.root = survey.store.root
        self.meter = Meter.of(self.root)
        self.measure_again = measure_again
        self.counted: set[str] = set()

    def entries(self) -> Iterator[Entry]:
        yield from self._layers()
        yield from self._blobs()
        yield from self._cache_mounts()
        for place in self.survey.places:
            size = self._size(place.path)
            yield Entry(
                os.path.relpath(place.path, self.root),
                place.type,
                size,
                place.created_ns,
                place.used_ns,
                place.description,
                place.holders,
                is_reclaimable=bool(place.lock) and not place.holders,
            )
        names = ("index.db", "index.db-wal", "index.db-shm")
        files = [os.path.join(self.root, name) for name in names]
        size = sum(self._size(path) for path in files)
        yield Entry("index.db", DATABASE, size, 0, 0, f"{sum(map(len, self.survey.records.values()))} records")
        yield from self._rest()

    def _size(self, path: str) -> int:
        self.counted.add(path)
        return self.meter.size(path)

    def _layers(self) -> Iterator[Entry]:
        survey = self.survey
        chains_of: dict[int, list[str]] = {}
        times: dict[int, int] = {}
        tops: dict[str, int] = {}
        for time, name in survey.order:
            chain = survey.chains[name]
            chains_of.setdefault(chain.layer_id, []).append(name)
            times[chain.layer_id] = max(times.get(chain.layer_id, 0), time)
            tops[chain.parent] = tops.get(chain.parent, 0) + 1
        for layer_id, layer in survey.layers.items():
            names = chains_of.get(layer_id, [])
            holders = survey.layer_holders.get(layer_id, frozenset())
            users = sum(max(1, tops.get(name, 0)) for name in names)
            yield Entry(
                f"snapshots/{layer_id}",
                LAYER,
                self._tree_size(layer),
                min((survey.chains[name].created_ns for name in names), default=0),
                times.get(layer_id, 0),
                layer.diff_id,
                holders,
                is_shared=len(holders) > 1 or users > 1,
                is_reclaimable=not holders,
                keys=tuple(key for name in names for key in survey.records.get(name, ())),
            )

    def _tree_size(self, layer: LayerUse) -> int:
        path = os.path.join(self.root, "snapshots", str(layer.layer_id))
        if layer.tree_size >= 0 and not self.measure_again:
            self.counted.add(path)
            return layer.tree_size
        return self._size(path)

    def _blobs(self) -> Iterator[Entry]:
        directory = os.path.join(self.root, "blobs", "sha256")
        for name in sorted(os.listdir(directory)):
            path, digest = os.path.join(directory, name), f"sha256:{name}"
            try:
                mtime_ns = os.lstat(path).st_mtime_ns
            except FileNotFoundError:
                continue
            holders, description = self._of_blob(digest)
            kind = FETCHED if digest in self.survey.fetched and not holders else BLOB
            size = self._size(path)
            yield Entry(
                f"blobs/sha256/{name}",
                kind,
                size,
                mtime_ns,
                mtime_ns,
                description,
                holders,
                is_shared=len(holders) > 1,
                is_reclaimable=not holders,
            )

    def _of_blob(self, digest: str) -> tuple[frozenset[str], str]:
        """Who needs a blob (a layer's own one is needed by who needs the layer), and what it is."""
        survey = self.survey
        holders = survey.roots.blobs.get(digest, frozenset())
        if digest in survey.noted:
            holders |= {RUNNING}
        layers = survey.blob_layers.get(digest, set())
        for layer_id in layers:
            if survey.layers[layer_id].blob_digest == digest:
                holders |= survey.layer_holders.get(layer_id, frozenset())
        if layers:
            return holders, "layer " + ", ".join(str(layer) for layer in sorted(layers))
        return holders, survey.fetched.get(digest, "")

    def _cache_mounts(self) -> Iterator[Entry]:
        for mount in self.survey.store.cache_mounts.walk():
            is_busy = self._is_locked(mount.lock_name)
            yield Entry(
                os.path.relpath(mount.path, self.root),
                CACHE_MOUNT,
                self._size(mount.path),
                mount.created_ns,
                mount.used_ns,
                mount.mount_id,
                frozenset((RUNNING,)) if is_busy else frozenset(),
                is_reclaimable=not is_busy,
            )

    def _is_locked(self, name: str) -> bool:
        with self.survey.store.locks.try_exclusive(name) as is_free:
            return not is_free and not self.survey.store.is_read_only

    def _rest(self) -> Iterator[Entry]:
        """Snapshots that no layer owns (yet, or any more), and everything else that was not counted."""
        directory = os.path.join(self.root, "snapshots")
        for name in sorted(os.listdir(directory)):
            path = os.path.join(directory, name)
            if name.isdecimal() and path not in self.counted:
                yield Entry(
                    f"snapshots/{name}", LEFTOVER, self._size(path), 0, 0, "being made, or left by a killed build"
                )
        above = {self.root}
        for path in self.counted:
            while (path := os.path.dirname(path)) not in above:
                above.add(path)
        yield Entry("", OTHER, self._uncounted(self.root, above), 0, 0, "directories, locks, temporary files")

    def _uncounted(self, directory: str, above: set[str]) -> int:
        size = self.meter.own(directory)
        for name in os.listdir(directory):
            path = f"{directory}/{name}"
            if path in above:
                size += self._uncounted(path, above)
            elif path not in self.counted:
                size += self.meter.size(path)
        return size


def _merged(one: Mapping[str, frozenset[str]], two: Mapping[str, frozenset[str]]) -> dict[str, frozenset[str]]:
    return {name: one.get(name, frozenset()) | two.get(name, frozenset()) for name in (*one, *two)}
