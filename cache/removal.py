"""Removing a directory tree that somebody else filled: any depth, any permission bits, no symlink followed.

Several may remove the same tree at once, as the process that made it and one that sweeps do: what is gone already is no
error. Knows nothing of what the tree is.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat

_DEEPEST = 200
_TRIES = 20
"""How often what others move about in a tree while it is removed is removed again."""
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_tree(path: str) -> None:
    """Remove the directory at `path` and all below it. Idempotent; not atomic. OSError when something resists."""
    parent_dir, name = os.path.split(path)
    try:
        parent_fd = os.open(parent_dir, _DIRECTORY)
    except FileNotFoundError:
        return
    try:
        remove_at(parent_fd, name)
    finally:
        os.close(parent_fd)


def remove_at(parent_fd: int, name: str) -> None:
    """Remove what has that name in an open directory, whatever it is. Idempotent; not atomic."""
    try:
        status = os.stat(name, dir_fd=parent_fd, follow_symlinks=False)
    except FileNotFoundError:
        return
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISDIR(status.st_mode):
            _remove_directory(parent_fd, name)
        else:
            os.unlink(name, dir_fd=parent_fd)


def _remove_directory(parent_fd: int, name: str) -> None:
    """Empty and remove `name`. What lies too deep to hold a descriptor per level is moved up here and emptied next."""
    top_fd = _open_directory(parent_fd, name)
    try:
        for left in reversed(range(_TRIES)):
            while _empty(top_fd, top_fd, 0):
                pass
            if _rmdir(name, parent_fd, is_last=not left):
                return
    finally:
        os.close(top_fd)


def _rmdir(name: str, parent_fd: int, *, is_last: bool) -> bool:
    """Whether the directory is gone; it is not while others move something into it."""
    try:
        os.rmdir(name, dir_fd=parent_fd)
    except OSError as error:
        if is_last or error.errno != errno.ENOTEMPTY:
            raise
        return False
    return True


def _empty(top_fd: int, fd: int, depth: int) -> int:
    """Remove what is in the directory; returns how many directories were moved to the top instead."""
    moved = 0
    for name, is_directory in _members(fd):
        with contextlib.suppress(FileNotFoundError):
            if not is_directory:
                os.unlink(name, dir_fd=fd)
            elif depth >= _DEEPEST:
                _make_accessible(name, fd)
                os.rename(name, f".deep.{os.urandom(8).hex()}", src_dir_fd=fd, dst_dir_fd=top_fd)
                moved += 1
            else:
                below_fd = _open_directory(fd, name)
                try:
                    moved += _empty(top_fd, below_fd, depth + 1)
                finally:
                    os.close(below_fd)
                os.rmdir(name, dir_fd=fd)
    return moved


def _members(fd: int) -> list[tuple[str, bool]]:
    with os.scandir(fd) as entries:
        return [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]


def _open_directory(parent_fd: int, name: str) -> int:
    """The directory, made accessible to its owner where only its permission bits forbid to empty it."""
    if os.geteuid() != 0:
        _make_accessible(name, parent_fd)
    return os.open(name, _DIRECTORY, dir_fd=parent_fd)


def _make_accessible(name: str, parent_fd: int) -> None:
    with contextlib.suppress(OSError):
        os.chmod(name, 0o700, dir_fd=parent_fd)
