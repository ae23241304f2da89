"""What overlayfs would show for a stack of layer directories, without mounting it.

A stack is a tuple of directories, top first. A name is taken from the topmost directory that has it; a whiteout
(character device 0/0) hides it in those below, an opaque directory hides all below (kernel documentation,
filesystems/overlayfs). Directories are only ever reached component by component through what `lookup` found to be a
real directory, so no symlink is followed. The directories must not change meanwhile.
"""

from __future__ import annotations

import errno
import os
import stat

from cache.namedtuple import NamedTuple

OVERLAY_XATTRS = ("trusted.overlay.", "user.overlay.")
"""What overlayfs writes down for itself."""
OPAQUE_XATTRS = ("trusted.overlay.opaque", "user.overlay.opaque")
Stack = tuple[str, ...]


class Found(NamedTuple):
    """A visible entry: where it really lies, and for a directory the stack of directories that it is merged from."""

    stat: os.stat_result
    path: str
    stack: Stack


def is_whiteout(status: os.stat_result) -> bool:
    """Whether this is overlayfs's mark for a deleted entry."""
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def is_opaque(directory: str | int) -> bool:
    """Whether a directory (a path or a descriptor) hides what lies below it."""
    names = _xattr_names(directory)
    return any(name in names and os.getxattr(directory, name) == b"y" for name in OPAQUE_XATTRS)


def lookup(stack: Stack, name: str) -> Found | None:
    """The entry `name` of the merged directory, None when there is none."""
    found: Found | None = None
    below: list[str] = []
    for directory in stack:
        path = f"{directory}/{name}"
        status = _lstat(path)
        if status is None:
            continue
        if is_whiteout(status) or (found is not None and not stat.S_ISDIR(status.st_mode)):
            break
        if found is None:
            found = Found(status, path, ())
        if not stat.S_ISDIR(status.st_mode):
            break
        below.append(path)
        if is_opaque(path):
            break
    return found._replace(stack=tuple(below)) if found is not None and below else found


def lookup_path(stack: Stack, path: str) -> Found | None:
    """The entry at a relative path without dots; None also when something on the way is no directory."""
    found: Found | None = None
    for name in path.split("/"):
        found = lookup(stack, name)
        if found is None:
            return None
        stack = found.stack
    return found


def names(stack: Stack) -> set[str]:
    """The names that the merged directory shows."""
    seen: set[str] = set()
    hidden: set[str] = set()
    for directory in stack:
        with os.scandir(directory) as entries:
            for entry in entries:
                if entry.name not in seen and entry.name not in hidden:
                    (hidden if is_whiteout(entry.stat(follow_symlinks=False)) else seen).add(entry.name)
    return seen


def _lstat(path: str) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _xattr_names(directory: str | int) -> list[str]:
    try:
        return os.listxattr(directory)
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return []
        raise
