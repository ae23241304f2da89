"""What a directory tree takes on the disk: blocks, as du(1) counts them, not the lengths of files.

A file with several names counts once for a Meter, another file system's mount point not at all. One descriptor is open
at a time, so that no depth and no length of path is too much. Knows nothing of the store.
"""

from __future__ import annotations

import os
import stat

_BLOCK = 512
"""The unit of st_blocks (stat(3type))."""
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Meter:
    """Measures trees of one file system. What vanishes meanwhile counts as far as it was seen."""

    def __init__(self, device: int) -> None:
        self._device = device
        self._seen: set[int] = set()

    @classmethod
    def of(cls, path: str) -> Meter:
        """A meter for the file system that `path` is on."""
        return cls(os.stat(path).st_dev)

    def size(self, path: str) -> int:
        """The bytes of a file, or of a directory and all below it; 0 when it is not there."""
        try:
            status = os.lstat(path)
            if not stat.S_ISDIR(status.st_mode) or status.st_dev != self._device:
                return self._own(status)
            fd = os.open(path, _DIRECTORY)
        except FileNotFoundError:
            return 0
        return self._own(status) + self._below(fd)

    def own(self, path: str) -> int:
        """The bytes of a file or a directory without what is in it; 0 when it is not there."""
        try:
            return self._own(os.lstat(path))
        except FileNotFoundError:
            return 0

    def _own(self, status: os.stat_result) -> int:
        if status.st_dev != self._device:
            return 0
        if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
            if status.st_ino in self._seen:
                return 0
            self._seen.add(status.st_ino)
        return status.st_blocks * _BLOCK

    def _below(self, fd: int) -> int:
        """What is in an open directory, which is closed: down by names, up again by `..`."""
        size, names = self._members(fd)
        pending = [names]
        try:
            while pending:
                if not pending[-1]:
                    pending.pop()
                    if pending:
                        fd = _move(fd, "..")
                    continue
                name = pending[-1].pop()
                try:
                    fd = _move(fd, name)
                except OSError:
                    continue
                more, names = self._members(fd)
                size += more
                pending.append(names)
        except OSError:  # a directory on the way up is gone: what is left of the tree is being removed
            return size
        finally:
            os.close(fd)
        return size

    def _members(self, fd: int) -> tuple[int, list[str]]:
        size, directories = 0, []
        with os.scandir(fd) as entries:
            for entry in entries:
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                size += self._own(status)
                if stat.S_ISDIR(status.st_mode) and status.st_dev == self._device:
                    directories.append(entry.name)
        return size, directories


def _move(fd: int, name: str) -> int:
    """Open a name in a directory instead of the directory."""
    other = os.open(name, _DIRECTORY, dir_fd=fd)
    os.close(fd)
    return other
