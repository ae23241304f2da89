"""What this process uses of the store, noted where a pruner looks before it removes anything.

    run/gate            flock: shared while a use is noted, exclusive while a pruner decides
    run/leases/<lease>  holds the names that the lease's process uses, one a line: chain ids, digests of blobs

The order makes it safe: a use is noted first and the thing looked for afterwards. A pruner reads the notes and removes
the names while it has the gate alone, so what is found after noting it stays as long as the process lives. A note costs
one short write, once for a name and process. Knows neither snapshots nor blobs.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterable, Iterator

from cache.errors import CacheError, os_errors
from cache.locks import Locks
from cache.mutex import Lock


class Uses:
    """The names that one process uses. Any thread may use it."""

    def __init__(self, root: str, locks: Locks) -> None:
        self._path = os.path.join(root, "run", "gate")
        self._locks = locks
        self._guard = Lock()
        self._names: set[str] = set()
        self._fd = -1
        self._stays = False

    def hold(self, names: Iterable[str]) -> None:
        """Keep pruners from these names until the process ends, whether they are there or not. Idempotent.

        Where nothing can be noted (a full disk, a read-only store) every pruner has to wait for this process.
        """
        with self._guard:
            new = [name for name in names if name and name not in self._names]
            if not new or self._stays:
                return
            if self._open():
                fcntl.flock(self._fd, fcntl.LOCK_SH)
                try:
                    self._locks.note("".join(f"{name}\n" for name in new).encode("ascii"))
                    self._names.update(new)
                except CacheError:
                    self._stays = True
                finally:
                    if not self._stays:
                        fcntl.flock(self._fd, fcntl.LOCK_UN)

    def _open(self) -> bool:
        """Have the gate open; False where there is none and none can be made, since nobody can prune there either."""
        if self._fd < 0:
            flags = os.O_RDONLY | os.O_CLOEXEC | (0 if self._locks.is_read_only else os.O_CREAT)
            try:
                self._fd = os.open(self._path, flags, 0o600)
            except OSError:
                try:
                    self._fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
                except OSError:
                    return False
        return True

    @contextlib.contextmanager
    def deciding(self) -> Iterator[set[str]]:
        """The names that live processes use, this one among them; no other is noted while the block runs.

        The block has to be short: every build that looks something up waits for it.
        """
        with self._guard, os_errors(self._path):
            fd = os.open(self._path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                if self._stays:
                    fcntl.flock(self._fd, fcntl.LOCK_UN)
                fcntl.flock(fd, fcntl.LOCK_EX)
                yield self._locks.live_notes() | self._names
            finally:
                os.close(fd)
                if self._stays:
                    fcntl.flock(self._fd, fcntl.LOCK_SH)

    def close(self) -> None:
        """Let go of the gate; the notes go with the lease. Idempotent."""
        with self._guard:
            if self._fd >= 0:
                os.close(self._fd)
            self._fd, self._stays = -1, False
            self._names.clear()
