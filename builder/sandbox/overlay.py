"""Overlay mounts of layers, made without a place in the tree (Documentation/filesystems/overlayfs.rst).

Owns the options that pybuild's layers rely on: no redirects, no metadata-only copies, no index, so that an upper
directory means the same to every kernel and to the differ. Knows directories, not snapshots. Runs under `python -I -S`.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence

from builder.errors import SandboxError
from builder.sandbox import syscalls

_OPTIONS = (("redirect_dir", "off"), ("metacopy", "off"), ("index", "off"))
_LONGEST_VALUE = 200
"""fsconfig(2) takes at most 255 bytes; longer paths go through /proc/self/fd."""

HOST_ATTRIBUTES = syscalls.MOUNT_ATTR_NODEV | syscalls.MOUNT_ATTR_NOSUID | syscalls.MOUNT_ATTR_NOEXEC
"""For mounts that only this process reads and writes: nothing of an image is run or opened as a device."""


def mount_detached(
    lower_dirs: Sequence[str],
    upper_dir: str | None = None,
    work_dir: str | None = None,
    *,
    attributes: int = HOST_ATTRIBUTES,
    volatile: bool = False,
) -> int:
    """A descriptor of the root of the merged directories (`lower_dirs` top first), attached nowhere.

    It is unmounted when the last descriptor in it is closed. Without an upper directory the root is read-only; one
    directory alone is opened as it is, none at all is an empty tmpfs. `volatile` leaves out every sync to the disk of
    the upper directory. Raises SandboxError.
    """
    try:
        if not lower_dirs and upper_dir is None:
            return _empty_root()
        if len(lower_dirs) + (upper_dir is not None) == 1:
            return os.open(upper_dir or lower_dirs[0], os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        return _overlay(lower_dirs, upper_dir, work_dir, attributes=attributes, volatile=volatile)
    except OSError as error:
        raise SandboxError(
            f"overlay of {len(lower_dirs)} lower directories: {error.strerror}: {error.filename}",
            hint="overlayfs needs a local filesystem with extended attributes, and Linux 5.12 or newer",
        ) from error


def _empty_root() -> int:
    fs_fd = syscalls.fsopen("tmpfs")
    try:
        syscalls.fsconfig_set_string(fs_fd, "mode", "0755")
        syscalls.fsconfig_create(fs_fd)
        return syscalls.fsmount(fs_fd, HOST_ATTRIBUTES | syscalls.MOUNT_ATTR_RDONLY)
    finally:
        os.close(fs_fd)


def _overlay(
    lower_dirs: Sequence[str], upper_dir: str | None, work_dir: str | None, *, attributes: int, volatile: bool
) -> int:
    """The overlay by fsopen(2); by mount(2) where the kernel does not know `lowerdir+` yet (before 6.8)."""
    opened: list[int] = []
    fs_fd = syscalls.fsopen("overlay")
    try:
        syscalls.fsconfig_set_string(fs_fd, "source", "overlay")
        lower = [_short(path, opened) for path in lower_dirs]
        _configure(fs_fd, lower)
        for key, path in (("upperdir", upper_dir), ("workdir", work_dir)):
            if path is not None:
                syscalls.fsconfig_set_string(fs_fd, key, _short(path, opened))
        for key, value in _OPTIONS:
            syscalls.fsconfig_set_string(fs_fd, key, value)
        if volatile and upper_dir is not None:
            syscalls.fsconfig_set_flag(fs_fd, "volatile")
        syscalls.fsconfig_create(fs_fd)
        return syscalls.fsmount(fs_fd, attributes | (0 if upper_dir is not None else syscalls.MOUNT_ATTR_RDONLY))
    finally:
        os.close(fs_fd)
        for fd in opened:
            os.close(fd)


def _configure(fs_fd: int, lower: Sequence[str]) -> None:
    """Name the lower directories, one by one where the kernel can, else in one string."""
    try:
        for path in lower:
            syscalls.fsconfig_set_string(fs_fd, "lowerdir+", path)
    except OSError as error:
        joined = ":".join(lower)
        if error.errno != errno.EINVAL or len(joined) > 255:
            raise
        syscalls.fsconfig_set_string(fs_fd, "lowerdir", joined)


def _short(path: str, opened: list[int]) -> str:
    """`path`, or a short name without special characters for it that is good while `opened` is."""
    if len(os.fsencode(path)) <= _LONGEST_VALUE and not any(c in path for c in ":\\,"):
        return path
    opened.append(os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
    return f"/proc/self/fd/{opened[-1]}"
