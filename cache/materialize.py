"""Layers as directories: unpacked from their blobs when first needed, checked once after a reboot.

Trees are trusted within the boot that wrote them. After another boot the last writes before a power loss may be
missing: a layer that was built here is hashed again and must still be its diff_id, an imported one is unpacked anew.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from cache.blobs import BlobStore
from cache.errors import CacheError, LayerLostError, os_errors
from cache.layerrows import LayerRow, LayerRows
from cache.locks import Locks
from cache.snapshot import EMPTY_LAYER, Layer, Snapshot
from cache.trees import Trees


class Materializer:
    """Makes sure that the trees of a snapshot are there."""

    def __init__(
        self, rows: LayerRows, trees: Trees, blobs: BlobStore, locks: Locks, *, boot_id: Callable[[], str]
    ) -> None:
        self._rows = rows
        self._trees = trees
        self._blobs = blobs
        self._locks = locks
        self.boot_id = boot_id
        self._present: set[int] = set()
        self._checked: set[int] = set()

    def use(self) -> None:
        """See Trees.use."""
        self._trees.use()

    def is_present(self, row: LayerRow) -> bool:
        """Whether the layer is still on the disk in one of its forms. Asked once per process and layer."""
        layer_id = row.layer.layer_id
        if layer_id in self._present:
            return True
        if (row.tree and self._trees.has_tree(layer_id)) or self._has_blob(row):
            self._present.add(layer_id)
            return True
        return False

    def is_usable(self, row: LayerRow) -> bool:
        """Whether the layer's tree can be mounted as it is."""
        return row.tree and row.boot_id in ("", self.boot_id()) and self._trees.has_tree(row.layer.layer_id)

    def is_trusted(self, row: LayerRow) -> bool:
        """Whether the tree may be read: it is usable, or of another boot but found in order now."""
        return self.is_usable(row) or (not row.imported and self._is_intact(row))

    def tree_dir(self, layer: Layer) -> str:
        """A layer's tree, there or not."""
        return self._trees.diff_dir(layer.layer_id)

    def copy_root_owner(self, parent: Snapshot, upper_dir: str) -> None:
        """Give an upper directory the owner of the root below it, since it hides that one's.

        Not the mode: a layer's tar does not say it, so that what is built would depend on what else the store holds.
        """
        for layer in reversed(parent.layers):
            if layer.diff_id != EMPTY_LAYER and self._trees.has_tree(layer.layer_id):
                with os_errors(upper_dir):
                    status = os.stat(self._trees.diff_dir(layer.layer_id))
                    if (status.st_uid, status.st_gid) != (os.geteuid(), os.getegid()):
                        os.chown(upper_dir, status.st_uid, status.st_gid)
                return

    def lower_dirs(self, snapshot: Snapshot) -> tuple[str, ...]:
        """See SnapshotStore.lower_dirs."""
        self.use()
        below: list[str] = []
        for layer in snapshot.layers:
            if layer.diff_id == EMPTY_LAYER:
                continue
            tree_dir = self._trees.diff_dir(layer.layer_id)
            if tree_dir in below:
                below.remove(tree_dir)
            if layer.layer_id not in self._checked:
                self._check(layer, tuple(reversed(below)))
            below.append(tree_dir)
        return tuple(reversed(below)) or (self._trees.empty_dir,)

    def _check(self, layer: Layer, below: tuple[str, ...]) -> None:
        row = self._rows.get(layer.layer_id)
        if row is None or not self.is_usable(row):
            with self._locks.exclusive(f"layer-{layer.layer_id}"):
                self._make_usable(layer, below)
        self._checked.add(layer.layer_id)

    def _make_usable(self, layer: Layer, below: tuple[str, ...]) -> None:
        """Verify or unpack, unless another process did so while this one waited for the lock."""
        row = self._rows.get(layer.layer_id)
        if row is not None and self.is_usable(row):
            return
        if row is not None and row.tree and not row.imported and self._is_intact(row):
            if not self._locks.is_read_only:
                self._rows.make_durable(layer.layer_id)
        elif row is not None and self._has_blob(row):
            self._unpack(row, below)
        else:
            self._lose(layer)

    def _is_intact(self, row: LayerRow) -> bool:
        from cache.changes import tree_changes
        from cache.layer import write_tar

        tree_dir = self._trees.diff_dir(row.layer.layer_id)
        try:
            return write_tar(tree_changes(tree_dir), tree_dir).diff_id == row.layer.diff_id
        except CacheError:
            return False

    def _unpack(self, row: LayerRow, below: tuple[str, ...]) -> None:
        from cache.layerimport import unpack_blob
        from cache.removal import remove_tree

        assert row.blob is not None
        layer_id = row.layer.layer_id
        unpacking_dir, tree_dir = self._trees.unpacking_dir(layer_id), self._trees.diff_dir(layer_id)
        with os_errors(unpacking_dir):
            self._rows.lose_tree(layer_id)
            for leftover in (unpacking_dir, tree_dir):
                remove_tree(leftover)
            os.makedirs(unpacking_dir, 0o755)
            try:
                unpacked = unpack_blob(self._blobs, row.blob, row.layer.diff_id, unpacking_dir, lower_dirs=below)
            except BaseException:
                remove_tree(unpacking_dir)
                raise
            os.rename(unpacking_dir, tree_dir)
        self._trees.unpacked(unpacked.left_out)
        self._rows.unpacked(
            layer_id, unpacked.size, unpacked.entries, portable=unpacked.portable, boot_id=self.boot_id()
        )

    def _has_blob(self, row: LayerRow) -> bool:
        return row.blob is not None and self._blobs.peek(row.blob.digest) is not None

    def _lose(self, layer: Layer) -> None:
        self._rows.forget_layer(layer.layer_id)
        self._trees.drop([layer.layer_id])
        self._present.discard(layer.layer_id)
        hint = "run the build again: it makes the layer anew"
        raise LayerLostError(f"layer {layer.diff_id} is gone or damaged", hint=hint)
