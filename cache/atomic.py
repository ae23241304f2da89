"""Files that are either whole or not there: temporary file, fsync, rename, fsync of the directory.

The temporary file lies on the same file system as the target. A crash leaves it behind under its own name, for whoever
owns that directory to sweep. Knows nothing of the store's layout.
"""

from __future__ import annotations

import contextlib
import os
from types import TracebackType

from cache.errors import os_errors


class AtomicFile:
    """A file to write, which appears as `path` when the block ends well and vanishes when it does not.

    `path` may be set inside the block, for names that depend on what was written; `discard` drops the file.
    """

    def __init__(self, temporary_path: str, path: str = "") -> None:
        self.temporary_path = temporary_path
        self.path = path
        self._fd = -1

    def __enter__(self) -> AtomicFile:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os_errors(self.temporary_path):
            self._fd = os.open(self.temporary_path, flags, 0o644)
        return self

    def write(self, chunk: bytes | bytearray | memoryview) -> None:
        """Append all of `chunk`; CacheError (StoreFullError) when the disk refuses."""
        with os_errors(self.temporary_path):
            written = os.write(self._fd, chunk)
            while written < len(chunk):
                written += os.write(self._fd, memoryview(chunk)[written:])

    def discard(self) -> None:
        """Drop what was written; the block then ends without a file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            with contextlib.suppress(OSError):
                os.unlink(self.temporary_path)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._fd < 0:
            return
        try:
            if kind is None:
                self._publish()
        finally:
            self.discard()

    def _publish(self) -> None:
        with os_errors(self.path):
            os.fsync(self._fd)
            os.rename(self.temporary_path, self.path)
            os.close(self._fd)
            self._fd = -1
            sync_directory(os.path.dirname(self.path))


def sync_directory(path: str) -> None:
    """Make the names in a directory survive a power loss."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_atomic(path: str, content: bytes) -> None:
    """Replace `path` by a file that holds `content`: readers see the old one or the new one, never a part."""
    with AtomicFile(f"{path}.{os.urandom(6).hex()}.tmp", path) as file:
        file.write(content)
