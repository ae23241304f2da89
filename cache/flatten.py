"""Plain copies of merged layers, and what a step changed in one: what to do where nothing can be mounted.

`copy_merged` writes a whole tree; `to_upper` turns it, after somebody changed it, into the upper directory that
overlayfs would have had. Owners, modes, times and attributes are those of the layers. The names of one file stay names
of one file in a copy that is only read; in one that is written each is a file of its own, as overlayfs makes it when
one of them is changed.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time
from collections.abc import Mapping
from typing import TypeAlias

from cache import merged
from cache.changes import compare
from cache.dirfds import OPEN_DIRECTORY, DirectoryCache
from cache.errors import os_errors
from cache.merged import Found, Stack
from cache.normalize import normalize

Copied: TypeAlias = Mapping[str, tuple[int, int]]
"""Path of a file that was copied -> the inode and ctime_ns it had then."""
Links: TypeAlias = dict[tuple[int, int], str]
"""Device and inode of a file with several names -> the first path of its copy."""

_FICLONE = 0x40049409
_RACY_NS = 50_000_000
"""Times of files come from a clock that ticks: a change within the same tick leaves no trace."""


def copy_merged(stack: Stack, dest_dir: str, *, keep_links: bool = False) -> Copied:
    """Copy what `stack` (top first) shows into the empty directory `dest_dir`, which takes on the root's attributes.

    Returns what is known to be unchanged as long as it looks the same. CacheError when the disk refuses.
    """
    copied: dict[str, tuple[int, int]] = {}
    with os_errors(dest_dir):
        directories = DirectoryCache(dest_dir)
        try:
            _copy_all(stack, directories, copied, {} if keep_links else None)
        finally:
            directories.close()
    settled = time.clock_gettime_ns(time.CLOCK_REALTIME) - _RACY_NS
    return {path: known for path, known in copied.items() if known[1] < settled}


def to_upper(tree_dir: str, lower_dirs: Stack, copied: Copied) -> None:
    """Leave in a copy only what differs from `lower_dirs`, with whiteouts for what is gone. LayerError as `compare`."""
    _, repairs = compare(tree_dir, lower_dirs, copied=copied)
    normalize(tree_dir, repairs)


def _copy_all(
    stack: Stack, directories: DirectoryCache, copied: dict[str, tuple[int, int]], links: Links | None
) -> None:
    """From the top down, the attributes of directories from the bottom up, without recursion: any depth will do."""
    pending: list[tuple[str, Stack]] = [("", stack)]
    made = [("", stack[0])] if stack else []
    while pending:
        path, here = pending.pop()
        for name in sorted(merged.names(here)):
            found = merged.lookup(here, name)
            if found is None:
                continue
            below = f"{path}/{name}"
            fd = directories.open(path[1:])
            if stat.S_ISDIR(found.stat.st_mode):
                os.mkdir(name, 0o700, dir_fd=fd)
                pending.append((below, found.stack))
                made.append((below, found.path))
            elif links is None or not _link(found, directories, below, links):
                _copy_member(found, fd, name)
                status = os.stat(name, dir_fd=fd, follow_symlinks=False)
                copied[below] = (status.st_ino, status.st_ctime_ns)
    for path, source_dir in reversed(made):
        _finish_directory(directories.open(path[1:]), source_dir)


def _link(found: Found, directories: DirectoryCache, path: str, links: Links) -> bool:
    """Give a file that was copied another name; False if this is its first."""
    if found.stat.st_nlink < 2:
        return False
    first = links.setdefault((found.stat.st_dev, found.stat.st_ino), path)
    if first == path:
        return False
    (first_dir, first_name), (parent, name) = os.path.split(first), os.path.split(path)
    first_fd = os.open(".", OPEN_DIRECTORY, dir_fd=directories.open(first_dir[1:]))
    try:
        os.link(
            first_name,
            name,
            src_dir_fd=first_fd,
            dst_dir_fd=directories.open(parent[1:]),
            follow_symlinks=False,
        )
    finally:
        os.close(first_fd)
    return True


def _copy_member(found: Found, dest_fd: int, name: str) -> None:
    status = found.stat
    if stat.S_ISREG(status.st_mode):
        _copy_file(found, dest_fd, name)
        return
    if stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(found.path), name, dir_fd=dest_fd)
    else:
        os.mknod(name, status.st_mode, status.st_rdev, dir_fd=dest_fd)
    os.chown(name, status.st_uid, status.st_gid, dir_fd=dest_fd, follow_symlinks=False)
    if not stat.S_ISLNK(status.st_mode):
        os.chmod(name, stat.S_IMODE(status.st_mode), dir_fd=dest_fd)
    os.utime(name, ns=(status.st_atime_ns, status.st_mtime_ns), dir_fd=dest_fd, follow_symlinks=False)


def _copy_file(found: Found, dest_fd: int, name: str) -> None:
    source_fd = os.open(found.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=dest_fd)
        try:
            _copy_content(source_fd, fd)
            _copy_attributes(source_fd, fd, found.stat)
        finally:
            os.close(fd)
    finally:
        os.close(source_fd)


def _copy_content(source_fd: int, fd: int) -> None:
    """Shared extents where the filesystem has them, else all bytes inside the kernel."""
    try:
        fcntl.ioctl(fd, _FICLONE, source_fd)
        return
    except OSError:
        pass
    while os.sendfile(fd, source_fd, None, 1 << 30):
        continue


def _finish_directory(fd: int, source_dir: str) -> None:
    source_fd = os.open(source_dir, OPEN_DIRECTORY)
    try:
        _copy_attributes(source_fd, fd, os.fstat(source_fd))
    finally:
        os.close(source_fd)


def _copy_attributes(source_fd: int, fd: int, status: os.stat_result) -> None:
    """Owner, then mode (chown clears set-id bits), then attributes (chown clears capabilities), then times."""
    os.fchown(fd, status.st_uid, status.st_gid)
    os.fchmod(fd, stat.S_IMODE(status.st_mode))
    for name in _attributes(source_fd):
        os.setxattr(fd, name, os.getxattr(source_fd, name))
    os.utime(fd, ns=(status.st_atime_ns, status.st_mtime_ns))


def _attributes(fd: int) -> list[str]:
    try:
        names = os.listxattr(fd)
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return []
        raise
    return [name for name in names if not name.startswith(merged.OVERLAY_XATTRS)]
