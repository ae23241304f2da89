"""Reaching what lies in a tree by directory descriptors, one component at a time, never through a symlink.

Knows nothing of layers. Paths are relative to the tree, "" for its root.
"""

from __future__ import annotations

import os

OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_KEPT = 64


class DirectoryCache:
    """Descriptors of the directories that were used last. They stay open until they are the oldest, or `clear`."""

    def __init__(self, root_dir: str) -> None:
        self.root_fd = os.open(root_dir, OPEN_DIRECTORY)
        self._fds: dict[str, int] = {}

    def get(self, path: str) -> int | None:
        """The open descriptor of a directory that was kept."""
        return self._fds.get(path) if path else self.root_fd

    def keep(self, path: str, fd: int) -> int:
        """Own `fd` as the directory `path`; the oldest one is closed when there are too many."""
        if len(self._fds) >= _KEPT:
            os.close(self._fds.pop(next(iter(self._fds))))
        self._fds[path] = fd
        return fd

    def open(self, path: str) -> int:
        """A descriptor of the directory `path`; OSError when a component is missing, no directory, or a symlink."""
        fd = self.get(path)
        if fd is not None:
            return fd
        above, missing = path, []
        # From the nearest one that is open: from the top, a deep path would close what it is about to need.
        while (fd := self.get(above)) is None:
            above, _, name = above.rpartition("/")
            missing.append(name)
        for name in reversed(missing):
            above = f"{above}/{name}" if above else name
            fd = self.keep(above, os.open(name, OPEN_DIRECTORY, dir_fd=fd))
        return fd

    def clear(self) -> None:
        """Forget every directory, because one was replaced."""
        for fd in self._fds.values():
            os.close(fd)
        self._fds.clear()

    def close(self) -> None:
        """Close all descriptors. Idempotent."""
        self.clear()
        if self.root_fd >= 0:
            os.close(self.root_fd)
            self.root_fd = -1


def read_limited(fd: int, size: int) -> bytes:
    """Exactly `size` bytes of a file, less only at its end."""
    chunk = os.read(fd, size)
    if len(chunk) in (0, size):
        return chunk
    parts = [chunk]
    missing = size - len(chunk)
    while missing and (chunk := os.read(fd, missing)):
        parts.append(chunk)
        missing -= len(chunk)
    return b"".join(parts)
