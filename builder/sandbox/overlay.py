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
from builder.sandbox.idmap import is_initial

_OPTIONS = (("redirect_dir", "off"), ("metacopy", "off"), ("index", "off"))
_USER_OPTIONS = (("userxattr", ""), ("index", "off"))
"""In a user namespace overlayfs keeps its marks in user.overlay.*; it then never redirects nor copies metadata only."""
_LONGEST_VALUE = 200
"""fsconfig(2) takes at most 255 bytes; longer paths go through /proc/self/fd."""

_PLACE = "/proc/fs"
"""Where an overlay can be mounted for a moment: a directory that every Linux has."""

Options = Sequence[tuple[str, str]]

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
            f"overlay of {len(lower_dirs)} lower directories: {(error.strerror or '').lower()}: {error.filename}",
            hint="overlayfs needs a local filesystem with extended attributes, and Linux 5.12 or newer;"
            " --snapshotter native needs neither",
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
    """The overlay by fsopen(2), or by mount(2) where the kernel does not know `lowerdir+` yet (before 6.8)."""
    if upper_dir is None:
        attributes |= syscalls.MOUNT_ATTR_RDONLY
    named = [("upperdir", upper_dir), ("workdir", work_dir), *(_OPTIONS if is_initial() else _USER_OPTIONS)]
    options = [(key, value) for key, value in named if value is not None]
    if volatile and upper_dir is not None:
        options.append(("volatile", ""))
    try:
        return _by_fsopen(lower_dirs, options, attributes)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    return _by_mount(lower_dirs, options, attributes)


def _by_fsopen(lower_dirs: Sequence[str], options: Options, attributes: int) -> int:
    """One option per lower directory, so that any number of them fits."""
    opened: list[int] = []
    fs_fd = syscalls.fsopen("overlay")
    try:
        syscalls.fsconfig_set_string(fs_fd, "source", "overlay")
        for path in lower_dirs:
            syscalls.fsconfig_set_string(fs_fd, "lowerdir+", _short(path, opened))
        for key, value in options:
            if value:
                syscalls.fsconfig_set_string(fs_fd, key, _short(value, opened))
            else:
                syscalls.fsconfig_set_flag(fs_fd, key)
        syscalls.fsconfig_create(fs_fd)
        return syscalls.fsmount(fs_fd, attributes)
    finally:
        for fd in (fs_fd, *opened):
            os.close(fd)


def _by_mount(lower_dirs: Sequence[str], options: Options, attributes: int) -> int:
    """One page of options, enough for some 200 directories.

    mount(2) needs a place: in a mount namespace that a thread of its own has for as long as it takes.
    """
    from builder.sandbox.apart import in_mount_namespace

    return in_mount_namespace(lambda: _mount_and_copy(lower_dirs, options, attributes))


def _mount_and_copy(lower_dirs: Sequence[str], options: Options, attributes: int) -> int:
    """A detached copy of an overlay mounted in this thread's mount namespace."""
    opened: list[int] = []
    try:
        # Opened only now: a layer has to be on a mount of the namespace that the overlay is made in.
        words = ["lowerdir=" + ":".join(_by_descriptor(path, opened) for path in lower_dirs)]
        for key, value in options:
            shown = _by_descriptor(value, opened) if value.startswith("/") else value
            words.append(f"{key}={shown}" if shown else key)
        syscalls.mount("overlay", _PLACE, fstype="overlay", options=",".join(words))
    finally:
        for fd in opened:
            os.close(fd)
    mount_fd = syscalls.open_tree(syscalls.AT_FDCWD, _PLACE, syscalls.OPEN_TREE_CLONE)
    syscalls.mount_setattr(mount_fd, attributes)
    return mount_fd


def _short(value: str, opened: list[int]) -> str:
    """`value`, or if it is a long path or one with special characters a short name that is good while `opened` is."""
    if len(os.fsencode(value)) <= _LONGEST_VALUE and not any(c in value for c in ":\\,"):
        return value
    return _by_descriptor(value, opened)


def _by_descriptor(path: str, opened: list[int]) -> str:
    opened.append(os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
    return f"/proc/self/fd/{opened[-1]}"
