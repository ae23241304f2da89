"""Makes an upper directory hold exactly what its layer tar says, before it becomes a layer.

Afterwards the directory needs nothing of what it was made upon: listing it is the layer, it can be verified alone, and
the same tree serves on any other base. Directory times stay as the step left them.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence

from cache.changes import Repair
from cache.dirfds import DirectoryCache
from cache.errors import os_errors
from cache.merged import OPAQUE_XATTRS
from cache.rootpaths import make_whiteout


def normalize(upper_dir: str, repairs: Sequence[Repair]) -> None:
    """Carry out the repairs that `changes.compare` found, in their order. Not atomic: only for an active snapshot."""
    if not repairs:
        return
    with os_errors(upper_dir):
        directories = DirectoryCache(upper_dir)
        try:
            for repair in repairs:
                _repair(directories, repair)
        finally:
            directories.close()


def _repair(directories: DirectoryCache, repair: Repair) -> None:
    parent, _, name = repair.path[1:].rpartition("/")
    if repair.kind == "opaque":
        _drop_opaque(directories.open(repair.path[1:]))
        return
    fd = directories.open(parent)
    before = os.fstat(fd)
    if repair.kind == "whiteout":
        make_whiteout(fd, name)
    elif stat.S_ISDIR(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode):
        os.rmdir(name, dir_fd=fd)
        directories.clear()
        fd = directories.open(parent)
    else:
        os.unlink(name, dir_fd=fd)
    os.utime(fd, ns=(before.st_atime_ns, before.st_mtime_ns))


def _drop_opaque(fd: int) -> None:
    for name in OPAQUE_XATTRS:
        try:
            os.removexattr(fd, name)
        except OSError as error:
            if error.errno not in (errno.ENODATA, errno.EPERM, errno.ENOTSUP):
                raise
