"""Locks and leases among the processes, and the threads of each, that share one store.

    run/locks/<sha256 of the name>   flock: exclusive or shared, gone when its exclusive holder is done
    run/locks/<sha256>.turn          flock: who waits for a fair lock stands in this queue
    run/leases/<lease>               flock held by the process that owns unfinished things (temporary files, active
                                     snapshots) as long as it lives; a lease that nobody holds is dead. What it holds
                                     is what the process has noted (uses)
    run/tmp/<lease>.<n>              temporary files of that process

The kernel drops a flock with its process, so nothing here has to be trusted after a kill. A lock file may be removed by
its holder, so whoever gets a lock checks that the name still means the file that it locked.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import os
from collections.abc import Callable, Iterable, Iterator

from cache.digest import sha256_hex
from cache.errors import CacheError, os_errors
from cache.mutex import Lock

OnWait = Callable[[str], None]


class Locks:
    """The locks of the store at `root`. One per process; its threads may share it."""

    def __init__(self, root: str, *, is_read_only: bool = False) -> None:
        self.is_read_only = is_read_only
        """Nothing can be written, so nobody has to be kept from anything: every lock is had at once."""
        self._locks_dir = os.path.join(root, "run", "locks")
        self._leases_dir = os.path.join(root, "run", "leases")
        self.temporary_dir = os.path.join(root, "run", "tmp")
        self._guard = Lock()
        self._lease = ""
        self._lease_fd = -1
        self._numbers = itertools.count(1)

    @contextlib.contextmanager
    def exclusive(self, name: str, on_wait: OnWait | None = None) -> Iterator[None]:
        """Hold the lock `name` alone; `on_wait(name)` is called once if somebody else has it now."""
        if self.is_read_only:
            yield
            return
        path = self._lock_path(name)
        fd = self._acquire(path, fcntl.LOCK_EX, name, on_wait)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                os.unlink(path)
            os.close(fd)

    @contextlib.contextmanager
    def try_exclusive(self, name: str) -> Iterator[bool]:
        """Hold the lock `name` alone if nobody has it now; yields whether it is held. Never waits."""
        if self.is_read_only:
            yield False
            return
        path = self._lock_path(name)
        with os_errors(path):
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        is_held = _try_flock(fd, fcntl.LOCK_EX) and _is_named(fd, path)
        try:
            yield is_held
        finally:
            if is_held:
                with contextlib.suppress(OSError):
                    os.unlink(path)
            os.close(fd)

    @contextlib.contextmanager
    def shared(self, name: str, on_wait: OnWait | None = None) -> Iterator[None]:
        """Hold the lock `name` together with other sharers, and without any exclusive holder."""
        fd = self._acquire(self._lock_path(name), fcntl.LOCK_SH, name, on_wait)
        try:
            yield
        finally:
            os.close(fd)

    @contextlib.contextmanager
    def fair(self, name: str, *, alone: bool, on_wait: OnWait | None = None) -> Iterator[None]:
        """Hold the lock `name` alone or together with sharers, in the order of asking: who waits to have it alone is
        not overtaken by sharers without end.

        Its files stay, because a queue is of those who have the same file open; for names of which there are few.
        """
        path = self._lock_path(name)
        waiting = [on_wait] if on_wait is not None else []

        def say(_name: str) -> None:
            if waiting:
                waiting.pop()(name)

        turn = self._acquire(f"{path}.turn", fcntl.LOCK_EX, name, say)
        try:
            fd = self._acquire(path, fcntl.LOCK_EX if alone else fcntl.LOCK_SH, name, say)
        finally:
            os.close(turn)
        try:
            yield
        finally:
            os.close(fd)

    def _lock_path(self, name: str) -> str:
        return os.path.join(self._locks_dir, sha256_hex(os.fsencode(name)))

    def _acquire(self, path: str, operation: int, name: str, on_wait: OnWait | None) -> int:
        with os_errors(path):
            while True:
                fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
                try:
                    if not _try_flock(fd, operation):
                        if on_wait is not None:
                            on_wait(name)
                            on_wait = None
                        fcntl.flock(fd, operation)
                    if _is_named(fd, path):
                        return fd
                except BaseException:
                    os.close(fd)
                    raise
                os.close(fd)

    def lease(self) -> str:
        """The name of this process's lease, taken at the first call and held until `close`."""
        with self._guard:
            if not self._lease:
                with os_errors(self._leases_dir):
                    self._lease, self._lease_fd = _new_lease(self._leases_dir)
            return self._lease

    def note(self, text: bytes) -> None:
        """Append to this process's lease; CacheError when it cannot be written, then nothing of it counts."""
        if self.is_read_only:
            raise CacheError(f"{self._leases_dir}: the store is read-only")
        self.lease()
        with os_errors(self._leases_dir):
            size = os.fstat(self._lease_fd).st_size
            try:
                if os.pwrite(self._lease_fd, text, size) == len(text):
                    return
            except OSError:
                os.ftruncate(self._lease_fd, size)
                raise
            os.ftruncate(self._lease_fd, size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def live_notes(self) -> set[str]:
        """The lines that live processes have noted."""
        lines: set[str] = set()
        for name in self.live_leases():
            with contextlib.suppress(FileNotFoundError), open(os.path.join(self._leases_dir, name), "rb") as file:
                lines.update(file.read().decode("ascii").split())
        return lines

    def temporary_path(self) -> str:
        """A fresh name for a temporary file, which is swept after this process is gone."""
        return os.path.join(self.temporary_dir, f"{self.lease()}.{next(self._numbers)}")

    def live_leases(self, *, remove: bool = True) -> set[str]:
        """The leases that a live process holds; lease files of dead processes are removed on the way, if `remove`."""
        remove = remove and not self.is_read_only
        with os_errors(self._leases_dir):
            names = os.listdir(self._leases_dir)
            return {name for name in names if not _is_dead_lease(os.path.join(self._leases_dir, name), remove)}

    def dead_leases(self) -> list[str]:
        """The leases that nobody holds any more."""
        with os_errors(self._leases_dir):
            names = set(os.listdir(self._leases_dir))
        return sorted(names - self.live_leases(remove=False))

    def idle(self, kept: Iterable[str]) -> list[str]:
        """The paths of lock files that nobody holds, without those of the fair locks `kept`."""
        stay = {path for name in kept for path in (self._lock_path(name), f"{self._lock_path(name)}.turn")}
        paths = [os.path.join(self._locks_dir, name) for name in sorted(os.listdir(self._locks_dir))]
        return [path for path in paths if path not in stay and _is_dead_lease(path, False)]

    def remove_idle(self, paths: Iterable[str]) -> None:
        """Remove lock files unless somebody has got hold of them meanwhile."""
        for path in paths:
            _is_dead_lease(path, True)

    def sweep_temporary(self) -> None:
        """Remove the temporary files that no live process owns. Names are read before leases, so none is too young."""
        names = os.listdir(self.temporary_dir)
        live = self.live_leases() if names else set()
        for name in names:
            if name.partition(".")[0] not in live:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(os.path.join(self.temporary_dir, name))

    def close(self) -> None:
        """Give the lease back. Idempotent."""
        with self._guard:
            if self._lease_fd >= 0:
                with contextlib.suppress(OSError):
                    os.unlink(os.path.join(self._leases_dir, self._lease))
                os.close(self._lease_fd)
            self._lease, self._lease_fd = "", -1


def _try_flock(fd: int, operation: int) -> bool:
    try:
        fcntl.flock(fd, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_named(fd: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False


def _new_lease(directory: str) -> tuple[str, int]:
    while True:
        name = os.urandom(8).hex()
        path = os.path.join(directory, name)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        if _try_flock(fd, fcntl.LOCK_EX) and _is_named(fd, path):
            return name, fd
        os.close(fd)  # a sweeper took it for a dead one between its creation and its lock


def _is_dead_lease(path: str, remove: bool) -> bool:
    """Whether nobody holds the file at `path`, or it is gone; it is then removed if `remove`."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        if not _try_flock(fd, fcntl.LOCK_EX):
            return False
        if remove:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
        return True
    finally:
        os.close(fd)
