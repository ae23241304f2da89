"""Blobs that come from far: kept while they are incomplete, so that a killed process need not begin anew.

    run/downloads/<hex>    what has come so far of the blob of that digest; grows at its end, by one process at a time

The lock `download-<digest>` belongs to the process that fetches the blob; others wait for it and then find the blob.
The file becomes a blob by a rename, after all of it had the right digest; nothing else trusts it. Another thread may
read it as it grows. What nobody goes on with is removed after a week. Knows no network.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import time
from collections.abc import Iterator

from cache.atomic import sync_directory
from cache.blobs import BlobStore
from cache.digest import Digest
from cache.errors import BlobCorruptError, LayerError, os_errors
from cache.locks import Locks

_CHUNK = 1 << 20
_KEPT_SECONDS = 7 * 24 * 3600.0


class PartialBlob:
    """One blob on its way. `size` bytes are there, `content` has hashed them."""

    def __init__(self, path: str, digest: Digest) -> None:
        self.path = path
        self.digest = digest
        self.size = 0
        self.content = hashlib.sha256()
        self._fd = -1
        self._changed = threading.Condition()
        self._generation = 0
        self._error: BaseException | None = None
        self._is_done = False

    def open(self, limit: int) -> None:
        """Take up what is there, unless it is more than `limit` bytes."""
        with os_errors(self.path):
            self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            if os.fstat(self._fd).st_size > limit:
                os.ftruncate(self._fd, 0)
            while chunk := os.read(self._fd, _CHUNK):
                self.content.update(chunk)
                self._grown(len(chunk))

    def write(self, chunk: bytes) -> None:
        """Append `chunk`, which `content` has hashed already; CacheError (StoreFullError) when the disk refuses."""
        with os_errors(self.path):
            written = os.write(self._fd, chunk)
            while written < len(chunk):
                written += os.write(self._fd, memoryview(chunk)[written:])
        self._grown(len(chunk))

    def _grown(self, size: int) -> None:
        with self._changed:
            self.size += size
            self._changed.notify_all()

    def restart(self) -> None:
        """Throw away what is there: it was wrong. Whoever was reading it hears so."""
        with os_errors(self.path), self._changed:
            os.ftruncate(self._fd, 0)
            os.lseek(self._fd, 0, os.SEEK_SET)
            self.size = 0
            self.content = hashlib.sha256()
            self._generation += 1
            self._changed.notify_all()

    def publish(self, blob_path: str) -> None:
        """Make it a blob; BlobCorruptError when it is not the one that its digest names."""
        actual = Digest.of_hex(self.content.hexdigest())
        if actual != self.digest:
            raise BlobCorruptError(f"content does not match its digest: expected {self.digest}, got {actual}")
        with os_errors(self.path):
            os.fchmod(self._fd, 0o644)
            os.fsync(self._fd)
            os.rename(self.path, blob_path)
            sync_directory(os.path.dirname(blob_path))
        with self._changed:
            self._is_done = True
            self._changed.notify_all()

    def close(self, error: BaseException | None = None) -> None:
        """Nothing more comes: readers end with `error`, if it was not published. Idempotent."""
        with self._changed:
            if not self._is_done and self._error is None:
                self._error = error or LayerError(f"blob {self.digest} did not come to its end")
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1
            self._changed.notify_all()

    def follow(self) -> GrowingBlob | None:
        """A reader of what is there and of what still comes, None when nothing more does: it is a blob, or failed."""
        with self._changed:
            return GrowingBlob(self, os.dup(self._fd), self._generation) if self._fd >= 0 else None

    def await_more(self, offset: int, generation: int, is_unwanted: threading.Event) -> int:
        """How many bytes are there once there are more than `offset`; `offset` itself at the verified end.

        Raises what ended the download, and LayerError after a restart.
        """
        with self._changed:
            while True:
                if self._generation != generation or is_unwanted.is_set():
                    raise LayerError(f"blob {self.digest} came with wrong bytes")
                if self.size > offset or self._is_done:
                    return self.size
                if self._error is not None:
                    raise self._error
                self._changed.wait()

    def wake(self) -> None:
        """Let those who wait look again."""
        with self._changed:
            self._changed.notify_all()


class GrowingBlob:
    """Reads a blob while it comes; the end is only reached when all of it was right."""

    def __init__(self, partial: PartialBlob, fd: int, generation: int) -> None:
        self._partial = partial
        self._offset = 0
        self._fd = fd
        self._generation = generation
        self._is_closed = threading.Event()
        self._lock = threading.Lock()

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes, none at the verified end."""
        there = self._partial.await_more(self._offset, self._generation, self._is_closed)
        if there == self._offset:
            return b""
        with os_errors(self._partial.path), self._lock:
            if self._is_closed.is_set():
                raise LayerError(f"blob {self._partial.digest} is not read any further")
            chunk = os.pread(self._fd, min(there - self._offset, size if size >= 0 else _CHUNK), self._offset)
        self._offset += len(chunk)
        return chunk

    def close(self) -> None:
        """Close the file, even if another thread waits for more of it."""
        with self._lock:
            self._is_closed.set()
            os.close(self._fd)
        self._partial.wake()


class PartialBlobs:
    """The incomplete blobs of one store."""

    def __init__(self, root: str, blobs: BlobStore, locks: Locks) -> None:
        self._dir = os.path.join(root, "run", "downloads")
        self._blobs = blobs
        self._locks = locks

    @contextlib.contextmanager
    def fetching(self, digest: Digest, size: int) -> Iterator[PartialBlob | None]:
        """The incomplete blob, locked against other processes; None when the blob is there, perhaps just since another
        process brought it. What is there at the end of the block, and was not published, is kept for another time."""
        with self._locks.exclusive(f"download-{digest}"):
            if self._blobs.size(digest) == size:
                yield None
                return
            with os_errors(self._dir):
                os.makedirs(self._dir, 0o700, exist_ok=True)
            partial = PartialBlob(os.path.join(self._dir, digest.hex), digest)
            try:
                partial.open(size)
                yield partial
            except BaseException as error:
                partial.close(error)
                raise
            finally:
                partial.close()

    def publish(self, partial: PartialBlob) -> None:
        """Make a complete one a blob. BlobCorruptError."""
        partial.publish(self._blobs.path(partial.digest))

    def sweep(self) -> None:
        """Remove what nobody has gone on with for a week."""
        try:
            names = os.listdir(self._dir)
        except FileNotFoundError:
            return
        for name in names:
            path = os.path.join(self._dir, name)
            with contextlib.suppress(OSError):
                if time.time() - os.stat(path).st_mtime > _KEPT_SECONDS:
                    with self._locks.try_exclusive(f"download-sha256:{name}") as is_free:
                        if is_free:
                            os.unlink(path)
