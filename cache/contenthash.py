"""The digests of the files of a directory of the machine that builds, as `cache.dirscan` saw them.

Bytes are read only of files that the stat cache does not know.
"""

from __future__ import annotations

import os
import time

from cache.dirfds import read_limited
from cache.dirscan import FileEntry, unreadable
from cache.errors import CacheError
from cache.statcache import FileDigests

_CHUNK = 1 << 20


def file_digest(path: str, entry: FileEntry, digests: FileDigests) -> str:
    """The xxh3-128, in hex, of the regular file at `path`, which `scan` saw as `entry`; from `digests` if it is
    unchanged.

    CacheError when it cannot be read, or is not the file that was scanned any more.
    """
    known = digests.get(entry.path)
    if (
        known is not None
        and known[2] == entry.ctime_ns
        and known[1] == entry.mtime_ns
        and known[0] == entry.size
        and known[3] == entry.ino
    ):
        return known[4]
    started_ns = time.time_ns()
    digest = _read_digest(path, entry)
    digests.remember(entry.path, (entry.size, entry.mtime_ns, entry.ctime_ns, entry.ino, digest), started_ns)
    return digest


def _read_digest(path: str, entry: FileEntry) -> str:
    import xxhash

    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(fd)
            if (status.st_ino, status.st_size, status.st_ctime_ns) != (entry.ino, entry.size, entry.ctime_ns):
                raise CacheError(f"{path}: the file changed while the context was read", hint="run the build again")
            if entry.size < _CHUNK:
                return xxhash.xxh3_128_hexdigest(read_limited(fd, _CHUNK))
            state = xxhash.xxh3_128()
            while chunk := read_limited(fd, _CHUNK):
                state.update(chunk)
            return state.hexdigest()
        finally:
            os.close(fd)
    except OSError as error:
        raise unreadable(error, path) from error
