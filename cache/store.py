"""One store on disk: what holds what, and in which order it is opened.

    <root>/version           format version; an unknown one is refused, not guessed
    <root>/blobs/sha256      content-addressed files (blobs)
    <root>/snapshots/<id>    layer directories (trees)
    <root>/index.db          SQLite: layers, snapshots, records, images, memo, file digests (database)
    <root>/mac.key           what digests of secrets are keyed with (mackey)
    <root>/run               locks, leases, temporary files (locks)

Opening only opens: nothing is swept, listed or checked, so that a fully cached build pays next to nothing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING

from cache.atomic import write_atomic
from cache.blobs import BlobStore
from cache.database import Database
from cache.errors import CacheError, StoreVersionError, os_errors
from cache.images import ImageStore
from cache.layerrows import LayerRows
from cache.locks import Locks
from cache.materialize import Materializer
from cache.memo import Memo
from cache.records import RecordStore
from cache.snapshots import SnapshotStore
from cache.statcache import StatCache
from cache.trees import ROOT_MODE, Trees

if TYPE_CHECKING:
    from cache.keynotes import KeyNotes
    from cache.layerblobs import LayerBlobs

FORMAT_VERSION = "1"
_DIRECTORIES = ("blobs", "blobs/sha256", "snapshots", "snapshots/empty", "run", "run/locks", "run/leases", "run/tmp")
_FILES = {"version", "mac.key", "index.db", "index.db-wal", "index.db-shm"}
_NAMES = {"blobs", "snapshots", "run", "cache-mounts", "git"} | _FILES


class Store:
    """All parts of one store. `open` makes one; it is a context manager. Any thread may use it."""

    def __init__(self, root: str, *, boot_id: str | None, clock: Callable[[], int]) -> None:
        self.root = root
        self.locks = Locks(root)
        self.database = Database(os.path.join(root, "index.db"))
        self.blobs = BlobStore(root, self.locks)
        self.records = RecordStore(self.database, clock=clock)
        self.images = ImageStore(self.database, clock=clock)
        self.memo = Memo(self.database)
        self.statcache = StatCache(self.database, clock=clock)
        trees, rows = Trees(root, self.database, self.locks), LayerRows(self.database)
        self._materializer = Materializer(
            rows, trees, self.blobs, self.locks, boot_id=(lambda: boot_id) if boot_id is not None else read_boot_id
        )
        self.snapshots = SnapshotStore(self.database, trees, self._materializer, clock=clock)
        self._layers: LayerBlobs | None = None
        self._notes: KeyNotes | None = None

    @property
    def layers(self) -> LayerBlobs:
        """The blob forms of layers. Imported when somebody wants one, since a cached build does not."""
        if self._layers is None:
            from cache.layerblobs import LayerBlobs

            self._layers = LayerBlobs(self.database, self.blobs, self._materializer)
        return self._layers

    @property
    def notes(self) -> KeyNotes:
        """What explains keys. Imported when somebody wants it, since a cached build does not."""
        if self._notes is None:
            from cache.keynotes import KeyNotes

            self._notes = KeyNotes(self.database)
        return self._notes

    @classmethod
    def open(cls, root: str, *, boot_id: str | None = None, clock: Callable[[], int] = time.time_ns) -> Store:
        """The store at `root`, made when it is not there. `clock` gives nanoseconds since 1970, `boot_id` names this
        boot of the machine (default: the kernel's). StoreVersionError, StoreCorruptError, CacheError."""
        root = os.path.abspath(root)
        if not _has_version(root):
            _create(root)
        return cls(root, boot_id=boot_id, clock=clock)

    def mac_key(self) -> bytes:
        """The key for digests of secrets, which only this store has; made at the first call."""
        from cache.mackey import mac_key

        return mac_key(self.root)

    def close(self) -> None:
        """Give up leases and close the database. Idempotent."""
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


def _has_version(root: str) -> bool:
    """Whether a store of this format is there; StoreVersionError for another format."""
    path = os.path.join(root, "version")
    with os_errors(path):
        try:
            with open(path, "rb") as file:
                version = file.read(100).decode("utf-8", "replace").strip()
        except FileNotFoundError:
            return False
    if version != FORMAT_VERSION:
        hint = "use the program that made it, or name another store with PYBUILD_ROOT"
        raise StoreVersionError(f"{path}: unknown store format {version!r}: expected {FORMAT_VERSION!r}", hint=hint)
    return True


def _create(root: str) -> None:
    """Make the directories, then the version: a store without one was never finished. Idempotent."""
    with os_errors(root):
        os.makedirs(root, 0o700, exist_ok=True)
        strange = sorted(name for name in set(os.listdir(root)) - _NAMES if not name.startswith("version."))
        if strange:
            hint = "name an empty or a new directory with PYBUILD_ROOT"
            raise CacheError(f"{root}: not a store, and not empty: it has {strange[0]!r}", hint=hint)
        for name in _DIRECTORIES:
            os.makedirs(os.path.join(root, name), 0o700, exist_ok=True)
        os.chmod(os.path.join(root, "snapshots/empty"), ROOT_MODE)  # seen inside roots, unlike all the others
        write_atomic(os.path.join(root, "version"), FORMAT_VERSION.encode() + b"\n")
