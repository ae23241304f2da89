"""One store on disk: what holds what, and in which order it is opened.

    <root>/version           format version; an unknown one is refused, not guessed
    <root>/blobs/sha256      content-addressed files (blobs)
    <root>/snapshots/<id>    layer directories (trees)
    <root>/index.db          SQLite: layers, snapshots, records, images, memo, file digests (database)
    <root>/cache-mounts      directories that steps keep for the next time (cachemounts)
    <root>/mac.key           what digests of secrets are keyed with (mackey)
    <root>/run               locks, leases, temporary files, who uses what (locks, uses)

Opening only opens: nothing is swept, listed or checked, so that a fully cached build pays next to nothing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING

from cache.atomic import write_atomic
from cache.blobs import BlobStore
from cache.database import Database
from cache.errors import CacheError, StoreFullError, StoreVersionError, os_errors
from cache.images import ImageStore
from cache.layerrows import LayerRows
from cache.locks import Locks
from cache.materialize import Materializer
from cache.memo import Memo
from cache.records import RecordStore
from cache.snapshots import SnapshotStore
from cache.statcache import StatCache
from cache.trees import ROOT_MODE, OnLeftOut, Trees
from cache.uses import Uses

if TYPE_CHECKING:
    from cache.cachemounts import CacheMounts
    from cache.keynotes import KeyNotes
    from cache.layerblobs import LayerBlobs
    from cache.partial import PartialBlobs

FORMAT_VERSION = "1"
_DIRECTORIES = ("blobs", "blobs/sha256", "snapshots", "snapshots/empty", "run", "run/locks", "run/leases", "run/tmp")
_FILES = {"version", "mac.key", "index.db", "index.db-wal", "index.db-shm", "index.db-journal"}
_NAMES = {"blobs", "snapshots", "run", "cache-mounts", "git"} | _FILES


class Store:
    """All parts of one store. `open` makes one; it is a context manager. Any thread may use it."""

    def __init__(
        self, root: str, *, boot_id: str | None, clock: Callable[[], int], on_trees: Callable[[], None]
    ) -> None:
        self.root = root
        self.is_read_only = _is_read_only(root)
        self.locks = Locks(root, is_read_only=self.is_read_only)
        self.uses = Uses(root, self.locks)
        self.database = self._open_database()
        self.blobs = BlobStore(root, self.locks, self.uses)
        self.records = RecordStore(self.database, clock=clock)
        self.images = ImageStore(self.database, clock=clock)
        self.memo = Memo(self.database)
        self._clock = clock
        self.statcache = StatCache(self.database, clock=clock)
        self._trees = Trees(root, self.database, self.locks, on_trees)
        rows = LayerRows(self.database)
        self._materializer = Materializer(
            rows,
            self._trees,
            self.blobs,
            self.locks,
            boot_id=(lambda: boot_id) if boot_id is not None else read_boot_id,
        )
        self.snapshots = SnapshotStore(self.database, self._trees, self._materializer, self.uses, clock=clock)
        self._layers: LayerBlobs | None = None
        self._partial_blobs: PartialBlobs | None = None
        self._notes: KeyNotes | None = None

    def _open_database(self) -> Database:
        path = os.path.join(self.root, "index.db")
        upgrading = partial(self.locks.exclusive, "format")
        try:
            return Database(path, is_read_only=self.is_read_only, upgrading=upgrading)
        except StoreFullError:
            from cache.ballast import drop_ballast

            if not drop_ballast(self.root):
                raise
            return Database(path, upgrading=upgrading)

    @property
    def cache_mounts(self) -> CacheMounts:
        """The directories that steps keep. Imported when a step uses one."""
        from cache.cachemounts import CacheMounts

        return CacheMounts(self.root, self.database, self.locks, clock=self._clock)

    @property
    def layers(self) -> LayerBlobs:
        """The blob forms of layers. Imported when somebody wants one, since a cached build does not."""
        if self._layers is None:
            from cache.layerblobs import LayerBlobs

            self._layers = LayerBlobs(self.database, self.blobs, self._materializer)
        return self._layers

    def on_left_out(self, say: OnLeftOut) -> None:
        """Let `say` hear of each layer that is unpacked without its device nodes: their names, in the order of the
        layer's tar. Any thread may call it."""
        self._trees.on_left_out = say

    def sweep(self) -> None:
        """Remove what killed processes left behind: unfinished layers, temporary files, layers that no chain has."""
        with self.locks.exclusive("sweep"):
            self._trees.sweep(orphans=True)

    def drop_layers(self, layer_ids: Iterable[int]) -> None:
        """Remove layers whose rows say that they are dead."""
        self._trees.drop(layer_ids)

    @property
    def partial_blobs(self) -> PartialBlobs:
        """Blobs that are being fetched. Imported when somebody fetches one."""
        if self._partial_blobs is None:
            from cache.partial import PartialBlobs

            self._partial_blobs = PartialBlobs(self.root, self.blobs, self.locks)
        return self._partial_blobs

    @property
    def notes(self) -> KeyNotes:
        """What explains keys. Imported when somebody wants it, since a cached build does not."""
        if self._notes is None:
            from cache.keynotes import KeyNotes

            self._notes = KeyNotes(self.database)
        return self._notes

    @classmethod
    def open(
        cls,
        root: str,
        *,
        boot_id: str | None = None,
        clock: Callable[[], int] = time.time_ns,
        on_trees: Callable[[], None] = lambda: None,
    ) -> Store:
        """The store at `root`, made when it is not there. `clock` gives nanoseconds since 1970, `boot_id` names this
        boot of the machine (default: the kernel's). `on_trees` is called before the first use of layers' directories,
        whose files belong to any users. StoreVersionError, StoreCorruptError, CacheError."""
        root = os.path.abspath(root)
        if not _has_version(root):
            _create(root)
        return cls(root, boot_id=boot_id, clock=clock, on_trees=on_trees)

    def mac_key(self) -> bytes:
        """The key for digests of secrets, which only this store has; made at the first call."""
        from cache.mackey import mac_key

        return mac_key(self.root)

    def close(self) -> None:
        """Give up leases and close the database. Idempotent."""
        self.uses.close()
        self.locks.close()
        self.database.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_boot_id() -> str:
    """The kernel's name for this boot (random(4), `boot_id`)."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return "unknown"


def _is_read_only(root: str) -> bool:
    """Whether the file system of the store is mounted read-only."""
    with os_errors(root):
        return bool(os.statvfs(root).f_flag & os.ST_RDONLY)


def _has_version(root: str) -> bool:
    """Whether a store of this format is there; StoreVersionError for another format."""
    path = os.path.join(root, "version")
    with os_errors(path):
        try:
            with open(path, "rb") as file:
                _check_owner(root, os.fstat(file.fileno()).st_uid)
                version = file.read(100).decode("utf-8", "replace").strip()
        except FileNotFoundError:
            return False
    if version != FORMAT_VERSION:
        is_newer = version.isascii() and version.isdigit() and int(version) > int(FORMAT_VERSION)
        maker = "a newer pybuild made it: use that one" if is_newer else "use the program that made it"
        hint = f"{maker}, or name another store with PYBUILD_ROOT"
        raise StoreVersionError(f"{path}: unknown store format {version!r}: expected {FORMAT_VERSION!r}", hint=hint)
    return True


def _check_owner(root: str, owner: int) -> None:
    """CacheError unless the store is this user's own: with another's files in it, neither could go on using it."""
    if owner != os.geteuid():
        whose = "root" if owner == 0 else f"user {owner}"
        hint = "run pybuild as that user, or name another store with PYBUILD_ROOT"
        raise CacheError(f"{root}: the store belongs to {whose}: expected user {os.geteuid()}", hint=hint)


def _create(root: str) -> None:
    """Make the directories, then the version: a store without one was never finished. Idempotent."""
    from cache.ballast import put_ballast

    with os_errors(root):
        os.makedirs(root, 0o700, exist_ok=True)
        strange = sorted(name for name in set(os.listdir(root)) - _NAMES if not name.startswith("version."))
        if strange:
            hint = "name an empty or a new directory with PYBUILD_ROOT"
            raise CacheError(f"{root}: not a store, and not empty: it has {strange[0]!r}", hint=hint)
        for name in _DIRECTORIES:
            os.makedirs(os.path.join(root, name), 0o700, exist_ok=True)
        os.chmod(os.path.join(root, "snapshots/empty"), ROOT_MODE)  # seen inside roots, unlike all the others
        for name in ("run/gate", "run/gc"):  # nothing can be pruned yet, so the time until that begins now
            os.close(os.open(os.path.join(root, name), os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        put_ballast(root)
        write_atomic(os.path.join(root, "version"), FORMAT_VERSION.encode() + b"\n")
