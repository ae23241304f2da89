"""The directories of the layers, and the rows that own them.

    snapshots/<id>/diff       a layer's tree; `upper` while a step writes it, a lower directory ever after
    snapshots/<id>/work       overlayfs's scratch directory, only while a step runs
    snapshots/<id>/unpacking  a layer blob on its way to become `diff`
    snapshots/empty           the lower directory of nothing

The row of table `layers` is written before its directory is made and removed after it is gone. State `active` belongs
to a lease, `ready` is a layer, `dead` is being removed by the lease's holder. A directory without a row, and an active
or dead row whose lease is dead, are leftovers of killed processes: `sweep` removes them, once per process, before it
makes its first directory.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable
from typing import TypeAlias

from cache.database import Database
from cache.errors import StoreFullError, from_os_error, os_errors
from cache.locks import Locks
from cache.removal import remove_tree

ROOT_MODE = 0o755
"""Of a root directory that no layer says anything about, whatever the umask."""

OnLeftOut: TypeAlias = "Callable[[tuple[str, ...]], None]"


class Trees:
    """The directories below `snapshots/`."""

    def __init__(self, root: str, database: Database, locks: Locks, on_use: Callable[[], None]) -> None:
        self.on_left_out: OnLeftOut = lambda _: None
        """Hears of layers that are not whole here, see Unpacked."""
        self.dir = os.path.join(root, "snapshots")
        self.empty_dir = os.path.join(self.dir, "empty")
        self._database = database
        self._locks = locks
        self._is_swept = False
        self._on_use = on_use
        self._is_in_use = False

    def use(self) -> None:
        """Say that what is in trees will be made, read or removed now: its owners may be others than this process."""
        if not self._is_in_use:
            self._on_use()
            self._is_in_use = True

    def unpacked(self, left_out: tuple[str, ...]) -> None:
        """Say of a layer which device nodes it lacks, if any."""
        if left_out:
            self.on_left_out(left_out)

    def diff_dir(self, layer_id: int) -> str:
        """A layer's tree."""
        return f"{self.dir}/{layer_id}/diff"

    def work_dir(self, layer_id: int) -> str:
        """The overlayfs work directory of an active snapshot."""
        return f"{self.dir}/{layer_id}/work"

    def unpacking_dir(self, layer_id: int) -> str:
        """Where a layer blob is unpacked before it becomes the tree."""
        return f"{self.dir}/{layer_id}/unpacking"

    def has_tree(self, layer_id: int) -> bool:
        """Whether the tree is on the disk."""
        return os.path.isdir(self.diff_dir(layer_id))

    def allocate(self) -> int:
        """A new active row with its empty `diff` and `work` directories."""
        self.use()
        self._sweep_once()
        lease = self._locks.lease()
        while True:
            layer_id = self._database.write("INSERT INTO layers (state, lease) VALUES ('active', ?)", (lease,))
            try:
                os.mkdir(f"{self.dir}/{layer_id}", 0o700)
                os.mkdir(self.diff_dir(layer_id), ROOT_MODE)
                os.chmod(self.diff_dir(layer_id), ROOT_MODE)
                os.mkdir(self.work_dir(layer_id), 0o700)
                return layer_id
            except FileExistsError:  # a directory from before the database was lost; the sweep gets it another time
                self._database.write("DELETE FROM layers WHERE id = ?", (layer_id,))
            except OSError as error:
                self.drop([layer_id])
                raise from_os_error(error, f"{self.dir}/{layer_id}") from error

    def finish(self, layer_id: int) -> None:
        """Remove the work directory of a snapshot that is done."""
        with os_errors(self.work_dir(layer_id)):
            remove_tree(self.work_dir(layer_id))

    def renew_work_dir(self, layer_id: int) -> None:
        """An empty work directory in the place of the one that is there."""
        self.finish(layer_id)
        with os_errors(self.work_dir(layer_id)):
            os.mkdir(self.work_dir(layer_id), 0o700)

    def drop(self, layer_ids: Iterable[int]) -> None:
        """Remove rows and their directories. Nothing may refer to them any more.

        A full disk does not stop it, since this is what makes room: a row whose directory is gone is not used.
        """
        for layer_id in layer_ids:
            self.use()
            with contextlib.suppress(StoreFullError):
                # Under this process's lease: a sweep of another one must not remove it at the same time.
                self._database.write(
                    "UPDATE layers SET state = 'dead', lease = ?, diff_id = '' WHERE id = ?",
                    (self._locks.lease(), layer_id),
                )
            with os_errors(f"{self.dir}/{layer_id}"):
                try:
                    remove_tree(f"{self.dir}/{layer_id}")
                except OSError:
                    self._database.write("UPDATE layers SET lease = '' WHERE id = ?", (layer_id,))  # anybody may try
                    raise
            self._database.write("DELETE FROM layers WHERE id = ?", (layer_id,))

    def _sweep_once(self) -> None:
        if not self._is_swept:
            self._is_swept = True
            with self._locks.exclusive("sweep"):
                self.sweep()

    def sweep(self, *, orphans: bool = False) -> None:
        """Remove what killed processes left behind. Directories are listed before rows, and rows before leases are
        looked at, so that whatever is being made right now is never taken for a leftover. `orphans`: finished layers
        that no chain has, too; a layer gets its chain in the transaction that finishes it."""
        if orphans:
            self._database.write(
                "UPDATE layers SET state = 'dead', lease = '', diff_id = '' WHERE state = 'ready'"
                " AND NOT EXISTS (SELECT 1 FROM snapshots WHERE snapshots.layer_id = layers.id)"
            )
        with os_errors(self.dir):
            self._locks.sweep_temporary()
            listed = [int(name) for name in os.listdir(self.dir) if name.isdecimal()]
        rows = {row[0]: row for row in self._database.rows("SELECT id, state, lease FROM layers")}
        unfinished = [row for row in rows.values() if row[1] != "ready"]
        live = self._locks.live_leases() if unfinished else set()
        self.drop(row[0] for row in unfinished if row[2] not in live)
        for layer_id in listed:
            if layer_id not in rows:
                with os_errors(f"{self.dir}/{layer_id}"), contextlib.suppress(FileNotFoundError):
                    remove_tree(f"{self.dir}/{layer_id}")
