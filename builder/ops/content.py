"""A file's bytes from one descriptor to another: in the kernel where it can, in bounded chunks always."""

from __future__ import annotations

import errno
import os

_SMALL = 128 << 10
_CHUNK = 64 << 20
_CANNOT = frozenset(
    (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EPERM, errno.EOPNOTSUPP, errno.EIO, errno.EBADF, errno.ETXTBSY)
)


def copy_content(source_fd: int, fd: int, size: int) -> None:
    """Copy everything from `source_fd`, which holds about `size` bytes, to `fd`; both at their beginning."""
    if size <= _SMALL:
        chunk = os.read(source_fd, _SMALL)
        if chunk:
            write_all(fd, chunk)
        if len(chunk) < _SMALL:
            return
    for method in (_by_range, _by_sendfile):
        try:
            method(source_fd, fd)
            return
        except OSError as error:
            if error.errno not in _CANNOT:
                raise
    while chunk := os.read(source_fd, 1 << 20):
        write_all(fd, chunk)


def write_all(fd: int, chunk: bytes) -> None:
    """Write a whole chunk, however many calls it takes."""
    written = os.write(fd, chunk)
    while written < len(chunk):
        chunk = chunk[written:]
        written = os.write(fd, chunk)


def _by_range(source_fd: int, fd: int) -> None:
    while os.copy_file_range(source_fd, fd, _CHUNK):
        pass


def _by_sendfile(source_fd: int, fd: int) -> None:
    while os.sendfile(fd, source_fd, None, _CHUNK):
        pass
