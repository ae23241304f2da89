"""Snapshots: stacks of layers, each a directory that is never changed once it is committed.

A snapshot is named by its chain id (OCI image-spec, config, Layer ChainID). `prepare` makes the upper directory for a
step, `commit` makes a layer of it, `lower_dirs` are what overlayfs mounts. A layer may exist only as a blob (an
image's) until somebody asks for its directory. Knows no sandbox: mounting is the caller's.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cache.database import Database
from cache.descriptor import Descriptor
from cache.digest import Digest
from cache.errors import CacheError
from cache.layerrows import LayerRow, LayerRows
from cache.materialize import Materializer
from cache.snapshot import EMPTY, EMPTY_LAYER, ActiveSnapshot, Layer, Snapshot, chain_id
from cache.trees import Trees
from cache.uses import Uses

if TYPE_CHECKING:
    from cache.blobs import Readable
    from cache.layer import TarSummary

__all__ = ["EMPTY", "EMPTY_LAYER", "ActiveSnapshot", "Layer", "Snapshot", "SnapshotStore", "chain_id"]


class SnapshotStore:
    """The snapshots of one store. Any thread may use it; several processes may commit the same at once."""

    def __init__(
        self, database: Database, trees: Trees, materializer: Materializer, uses: Uses, *, clock: Callable[[], int]
    ) -> None:
        self._database = database
        self._uses = uses
        self._rows = LayerRows(database)
        self._trees = trees
        self._materializer = materializer
        self._clock = clock

    @property
    def empty_dir(self) -> str:
        """A directory that stays empty: the lower directory of the empty snapshot."""
        return self._trees.empty_dir

    def prepare(self, parent: Snapshot) -> ActiveSnapshot:
        """Fresh directories for a step on `parent`. They vanish with `discard`, or some time after this process's
        death."""
        layer_id = self._trees.allocate()
        upper_dir = self._trees.diff_dir(layer_id)
        self._materializer.copy_root_owner(parent, upper_dir)
        return ActiveSnapshot(layer_id, parent, upper_dir, self._trees.work_dir(layer_id))

    def commit(self, active: ActiveSnapshot) -> Snapshot:
        """Make what is in the upper directory a layer on the parent; nothing may write to it any more.

        When that chain of layers exists already, or a layer with the same tar, that one is used and the directory
        dropped. Atomic: after a crash the snapshot is there or it is not. LayerError for what no layer can hold; the
        caller then still has to discard.
        """
        from cache.changes import compare
        from cache.layer import write_tar
        from cache.normalize import normalize

        found, repairs = compare(active.upper_dir, self.lower_dirs(active.parent))
        normalize(active.upper_dir, repairs)
        summary = write_tar(found, active.upper_dir)
        self._trees.finish(active.snapshot_id)
        self._hold(active.parent, summary.diff_id)
        with self._database.transaction():
            snapshot = self._existing(active.parent, summary.diff_id)
            if snapshot is None:
                snapshot = self._record(active, summary)
        if snapshot.layers[-1].layer_id != active.snapshot_id:
            self._trees.drop([active.snapshot_id])
        return snapshot

    def renew_work_dir(self, active: ActiveSnapshot) -> None:
        """An empty work directory: a volatile overlay that was unmounted leaves one that cannot be mounted again."""
        self._trees.renew_work_dir(active.snapshot_id)

    @contextmanager
    def scratch(self) -> Iterator[str]:
        """An empty directory beside the layers' that is gone after the block, or some time after this process."""
        active = self.prepare(EMPTY)
        try:
            yield active.upper_dir
        finally:
            self.discard(active)

    def discard(self, active: ActiveSnapshot) -> None:
        """Drop an active snapshot and what was written to it. Idempotent.

        Never raises, since something else went wrong before: what cannot be removed now is left to a later sweep.
        """
        with contextlib.suppress(CacheError):
            self._trees.drop([active.snapshot_id])

    def stack(self, parent: Snapshot, layer: Layer) -> Snapshot:
        """The same layer on top of another snapshot; its files are not copied. Idempotent."""
        self._hold(parent, layer.diff_id)
        with self._database.transaction():
            return self._existing(parent, layer.diff_id) or self._append(parent, self._rows.share(layer.layer_id))

    def adopt(self, parent: Snapshot, diff_id: Digest) -> Snapshot | None:
        """The layer with that tar on top of `parent`, if the store has it; nothing is fetched or made."""
        self._hold(parent, diff_id)
        with self._database.transaction():
            return self._existing(parent, diff_id)

    def add_layer_blob(
        self, parent: Snapshot, diff_id: Digest, blob: Descriptor, content_digest: str = "", size: int = 0
    ) -> Snapshot:
        """A layer that comes as a blob on top of `parent`. The blob is in the store, and unpacked when somebody needs
        the tree. Content digest and size of its tar only if they were found out from that blob here."""
        self._hold(parent, diff_id)
        with self._database.transaction():
            snapshot = self._existing(parent, diff_id)
            if snapshot is None:
                snapshot = self._append(parent, self._rows.insert_blob(diff_id, blob, content_digest, size))
            else:
                self._rows.attach_blob(snapshot.layers[-1].layer_id, blob)
        return snapshot

    def unpack_layer(self, parent: Snapshot, diff_id: Digest, blob: Descriptor, stream: Readable) -> Snapshot:
        """An image's layer on top of `parent`, unpacked from the bytes of its blob as they come.

        The stream ends only when they are right, and the blob is in the store then. When that chain exists, or a layer
        with the same tar, nothing is read. LayerError for a tar that is unsafe or not the one of `diff_id`; nothing is
        left of it then. Atomic.
        """
        with self._database.transaction():
            known = self._existing(parent, diff_id)
        if known is not None:
            return known
        from cache.layerimport import unpack_stream

        lower_dirs = self.lower_dirs(parent) if parent.layers else ()
        layer_id = self._trees.allocate()
        try:
            unpacked = unpack_stream(stream, diff_id, self._trees.diff_dir(layer_id), lower_dirs=lower_dirs)
            self._trees.unpacked(unpacked.left_out)
            self._trees.finish(layer_id)
            layer = Layer(layer_id, diff_id, str(diff_id), unpacked.size, unpacked.entries)
            with self._database.transaction():
                snapshot = self._existing(parent, diff_id)
                if snapshot is None:
                    boot_id = self._materializer.boot_id()
                    self._rows.make_imported(layer, blob, boot_id, portable=unpacked.portable)
                    return self._append(parent, layer)
        except BaseException:
            self._trees.drop([layer_id])
            raise
        self._trees.drop([layer_id])
        return snapshot

    def lower_dirs(self, snapshot: Snapshot) -> tuple[str, ...]:
        """Absolute directories to mount, top first, never none: the empty snapshot gives one empty directory.

        Layers that are blobs yet are unpacked; empty layers, and layers that come again further up, are left out
        (overlayfs refuses a directory that is there twice). LayerLostError when a layer is gone or damaged: it is then
        forgotten, and `get` says so.
        """
        return self._materializer.lower_dirs(snapshot)

    def get(self, name: str) -> Snapshot | None:
        """The snapshot with a chain id, None when it or one of its layers is not there any more."""
        return EMPTY if not name else self.get_many((name,)).get(name)

    def get_many(self, names: Iterable[str]) -> dict[str, Snapshot]:
        """The snapshots of those chain ids that are there, with all their layers. They stay while the process lives."""
        names = list(names)
        self._uses.hold(names)
        return self._find(names)

    def _find(self, names: Iterable[str]) -> dict[str, Snapshot]:
        rows = self._rows.chains(names)
        known: dict[str, tuple[Layer, ...] | None] = {"": ()}
        found = {}
        for name in names:
            layers = _layers(name, rows, known, self._materializer.is_present)
            if layers is not None:
                found[name] = Snapshot(name, layers)
        return found

    def peek(self, name: str) -> bool:
        """Whether the snapshot is there now, without a promise that it stays."""
        return not name or name in self._find((name,))

    def remove(self, name: str) -> None:
        """Forget a snapshot, and remove its top layer's directory if no other snapshot has that. Idempotent."""
        with self._database.transaction():
            unused = self._rows.remove_chain(name)
        self._trees.drop(unused)

    def walk(self) -> Iterator[Snapshot]:
        """Every usable snapshot, in no order."""
        yield from self._find(self._rows.chain_ids()).values()

    def _hold(self, parent: Snapshot, diff_id: Digest) -> None:
        """Note the use of a chain before the transaction that looks for it: within one, a pruner that has the gate
        would wait for the transaction, and this process for the gate."""
        self._uses.hold((chain_id(parent.chain_id, diff_id),))

    def _existing(self, parent: Snapshot, diff_id: Digest) -> Snapshot | None:
        """The snapshot of `diff_id` on `parent`, made of another tree of the same tar if need be."""
        snapshot = self.get(chain_id(parent.chain_id, diff_id))
        if snapshot is not None:
            return snapshot
        for row in self._rows.portable(diff_id):
            if self._materializer.is_usable(row):
                return self._append(parent, row.layer)
        return None

    def _record(self, active: ActiveSnapshot, summary: TarSummary) -> Snapshot:
        layer = Layer(active.snapshot_id, *summary)
        self._rows.make_ready(layer, self._materializer.boot_id())
        return self._append(active.parent, layer)

    def _append(self, parent: Snapshot, layer: Layer) -> Snapshot:
        name = chain_id(parent.chain_id, layer.diff_id)
        self._rows.insert_chain(name, parent.chain_id, layer.layer_id, self._clock())
        return Snapshot(name, (*parent.layers, layer))


def _layers(
    name: str,
    rows: dict[str, tuple[str, LayerRow]],
    known: dict[str, tuple[Layer, ...] | None],
    is_present: Callable[[LayerRow], bool],
) -> tuple[Layer, ...] | None:
    """The layers of a chain, None if one is missing; `known` keeps those of every chain on the way."""
    above: list[tuple[str, LayerRow]] = []
    while name not in known and name in rows:
        parent, row = rows[name]
        above.append((name, row))
        name = parent
    layers = known.get(name)
    for chain, row in reversed(above):
        layers = (*layers, row.layer) if layers is not None and is_present(row) else None
        known[chain] = layers
    return layers
