"""A file's bytes from one descriptor to another: in the kernel where it can, in bounded chunks always."""

from __future__ import annotations

import errno
import os

_SMALL = 128 << 10
_CHUNK = 64 << 20
_FICLONE = 0x40049409
"""ioctl_ficlone(2): the copy shares the source's blocks, where the filesystem can do that."""


def copy_content(source_fd: int, fd: int, size: int) -> None:
    """Copy everything from `source_fd`, which holds about `size` bytes, to `fd`; both at their beginning."""
    if size <= _SMALL:
        chunk = os.read(source_fd, _SMALL)
        if chunk:
            write_all(fd, chunk)
        if len(chunk) < _SMALL:
            return
    elif _clone(source_fd, fd):
        return
    try:
        while os.sendfile(fd, source_fd, None, _CHUNK):
            pass
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS):
            raise
        while chunk := os.read(source_fd, 1 << 20):
            write_all(fd, chunk)


def write_all(fd: int, chunk: bytes) -> None:
    """Write a whole chunk, however many calls it takes."""
    written = os.write(fd, chunk)
    while written < len(chunk):
        chunk = chunk[written:]
        written = os.write(fd, chunk)


def _clone(source_fd: int, fd: int) -> bool:
    import fcntl

    try:
        fcntl.ioctl(fd, _FICLONE, source_fd)
    except OSError:
        return False
    return True
