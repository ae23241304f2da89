"""Directories that steps keep for the next time, by id.

    <root>/cache-mounts/<sha256 of id>/0/       the shared directory, and the first private one
    <root>/cache-mounts/<sha256 of id>/N/       further private ones, for steps that run at the same time
    <root>/cache-mounts/<sha256 of id>/N.new    one that is being filled; N.gone one that is being removed

Who uses a directory holds the lock `cache-mount:<sha256>:<N>`; directories appear and vanish under the lock
`cache-mount-fill:<sha256>`, by a rename. Table `cache_mounts` tells the id and the last use. The id is never a path.
Knows not what is in them.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack

from cache.database import Database
from cache.digest import sha256_hex
from cache.errors import CacheError, os_errors
from cache.locks import Locks, OnWait
from cache.namedtuple import NamedTuple
from cache.removal import remove_tree

PRIVATE_AT_MOST = 64
_TOUCH_NS = 3600 * 10**9


class CacheMount(NamedTuple):
    """One directory. `mount_id` is "" for one that was made before ids were written down."""

    digest: str
    number: int
    mount_id: str
    created_ns: int
    used_ns: int
    path: str

    @property
    def lock_name(self) -> str:
        """What the user of the directory holds."""
        return _lock_name(self.digest, self.number)


class CacheMounts:
    """The cache mounts of one store. Any thread and process may use it."""

    def __init__(self, root: str, database: Database, locks: Locks, *, clock: Callable[[], int]) -> None:
        self._dir = os.path.join(root, "cache-mounts")
        self._database = database
        self._locks = locks
        self._clock = clock

    def path(self, digest: str, number: int) -> str:
        """Where a directory is, or would be."""
        return os.path.join(self._dir, digest, str(number))

    def take(self, digest: str, sharing: str, stack: ExitStack, on_wait: OnWait | None = None) -> int:
        """Lock a directory until `stack` closes: `locked` alone, `shared` with other sharers, `private` the first that
        nobody has. Its number; CacheError when all private ones are in use.

        Who takes several has to take them in the order of their digests, or two steps could wait for each other.
        """
        if sharing != "private":
            stack.enter_context(self._locks.fair(_lock_name(digest, 0), alone=sharing == "locked", on_wait=on_wait))
            return 0
        for number in range(PRIVATE_AT_MOST):
            if stack.enter_context(self._locks.try_exclusive(_lock_name(digest, number))):
                return number
        raise CacheError(f"all {PRIVATE_AT_MOST} private directories of the cache mount are in use")

    @contextlib.contextmanager
    def filling(self, digest: str, number: int) -> Iterator[str | None]:
        """An empty directory that becomes the cache mount when the block ends well; None when there is one already. A
        killed process leaves no half-filled one."""
        directory = self.path(digest, number)
        with self._locks.exclusive(_fill_name(digest)), os_errors(directory):
            if os.path.isdir(directory):
                yield None
                return
            filling = directory + ".new"
            remove_tree(filling)
            os.makedirs(filling)
            try:
                yield filling
            except BaseException:
                with contextlib.suppress(OSError):
                    remove_tree(filling)
                raise
            os.rename(filling, directory)

    def note_use(self, digest: str, number: int, mount_id: str) -> None:
        """Write down that a step uses the directory, at most once an hour; a full disk does not stop the step."""
        now = self._clock()
        found = self._database.row("SELECT used_ns FROM cache_mounts WHERE digest = ? AND number = ?", (digest, number))
        if found is not None and now - found[0] < _TOUCH_NS:
            return
        with contextlib.suppress(CacheError):
            self._database.write(
                "INSERT INTO cache_mounts (digest, number, id, created_ns, used_ns) VALUES (?, ?, ?, ?, ?)"
                " ON CONFLICT DO UPDATE SET id = excluded.id, used_ns = excluded.used_ns",
                (digest, number, mount_id, now, now),
            )

    def walk(self) -> Iterator[CacheMount]:
        """Every directory, by digest and number."""
        rows = {(row[0], row[1]): row[2:] for row in self._database.rows("SELECT * FROM cache_mounts")}
        for digest, name in self._names():
            if name.isdecimal():
                path = self.path(digest, int(name))
                try:
                    mtime_ns = os.stat(path).st_mtime_ns
                except FileNotFoundError:
                    continue
                mount_id, created_ns, used_ns = rows.get((digest, int(name)), ("", mtime_ns, mtime_ns))
                yield CacheMount(digest, int(name), mount_id, created_ns, used_ns, path)

    def leftovers(self) -> Iterator[str]:
        """Paths of directories that killed processes left half-filled or half-removed, or are at work on just now."""
        for digest, name in self._names():
            if not name.isdecimal():
                yield os.path.join(self._dir, digest, name)

    def _names(self) -> Iterator[tuple[str, str]]:
        for digest in _listed(self._dir):
            for name in _listed(os.path.join(self._dir, digest)):
                yield digest, name

    def remove(self, mount: CacheMount) -> bool:
        """Remove a directory unless a step uses it; whether it is gone. It is whole for its users, or not there."""
        with self._locks.try_exclusive(mount.lock_name) as is_ours:
            if not is_ours:
                return False
            gone = mount.path + ".gone"
            with os_errors(mount.path), self._locks.exclusive(_fill_name(mount.digest)):
                remove_tree(gone)
                with contextlib.suppress(FileNotFoundError):
                    os.rename(mount.path, gone)
                remove_tree(gone)
                self._database.write(
                    "DELETE FROM cache_mounts WHERE digest = ? AND number = ?", (mount.digest, mount.number)
                )
                with contextlib.suppress(OSError):
                    os.rmdir(os.path.dirname(mount.path))
        return True

    def sweep(self) -> None:
        """Remove what killed processes left half-filled or half-removed."""
        for digest in {os.path.basename(os.path.dirname(path)) for path in self.leftovers()}:
            with self._locks.exclusive(_fill_name(digest)):
                for path in [path for path in self.leftovers() if os.path.basename(os.path.dirname(path)) == digest]:
                    with os_errors(path):
                        remove_tree(path)


def digest_of(mount_id: str, domain: str = "") -> str:
    """The name of an id's directories, hex digits. Each trust domain has directories of its own."""
    return sha256_hex(os.fsencode(f"{domain}\0{mount_id}" if domain else mount_id))


def _lock_name(digest: str, number: int) -> str:
    return f"cache-mount:{digest}:{number}"


def _fill_name(digest: str) -> str:
    return f"cache-mount-fill:{digest}"


def _listed(path: str) -> list[str]:
    try:
        return sorted(os.listdir(path))
    except (FileNotFoundError, NotADirectoryError):
        return []
