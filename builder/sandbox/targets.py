"""Mount points in a root: found without ever leaving it, made where they are missing, removed after the step.

A root is untrusted: every look-up goes through SafeRoot, every creation is by descriptor and single name.
Runs under `python -I -S`.
"""

from __future__ import annotations

import os
import posixpath
import stat

from builder.errors import BuildError
from builder.sandbox.fsops import SafeRoot
from builder.sandbox.operations import NEW_ROOT, SandboxState
from builder.sandbox.wire import Stub

_MAX_LINKS = 40


def open_in_root(root_fd: int, path: str, flags: int = os.O_PATH) -> int:
    """A descriptor of an existing path; symlinks are resolved as a process in the root would see them."""
    return SafeRoot(root_fd).open(path, flags)


def open_system_dir(root_fd: int, path: str) -> int:
    """A descriptor of the directory `path` (like "proc" or "dev/pts"), made with mode 0755 if it is missing.

    Raises BuildError if the image has a symlink or anything else there: what is mounted on it is trusted afterwards
    (CVE-2019-19921, CVE-2023-27561).
    """
    flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW
    root = SafeRoot(root_fd)
    try:
        return root.open_plain(path, flags)
    except FileNotFoundError:
        return _make_system_dir(root, path, flags)
    except OSError as error:
        raise BuildError(
            f"/{path} of the image is not a directory", hint="the sandbox mounts its own there; remove it in the image"
        ) from error


def _make_system_dir(root: SafeRoot, path: str, flags: int) -> int:
    """Its parent is one too, and a directory without a symlink on the way."""
    parent, name = posixpath.split(path)
    parent_fd = root.open_plain(parent or ".", flags)
    try:
        os.mkdir(name, 0o755, dir_fd=parent_fd)
        return SafeRoot(parent_fd).open_plain(name, flags)
    finally:
        os.close(parent_fd)


def open_target(state: SandboxState, target: str, *, is_directory: bool) -> int:
    """A descriptor of the mount point `target`, made if it is missing, with its parents.

    What had to be made is added to `state.stubs` where it lies in the upper directory. A symlink that leads nowhere
    is followed in the root and its end is made. Raises OSError, or BuildError for a target that is the root itself.
    """
    fd = _find_or_make(state, posixpath.normpath(f"/{target}"), is_directory=is_directory)
    if os.path.samestat(os.fstat(fd), os.fstat(state.root_fd)):
        os.close(fd)
        raise BuildError(f'mount target "{target}" is the root')
    return fd


def make_directories(state: SandboxState, path: str, uid: int, gid: int) -> int:
    """A descriptor of the directory `path`; missing levels are made for good, with this owner."""
    return _find_or_make(state, posixpath.normpath(f"/{path}"), is_directory=True, owner=(uid, gid))


def _find_or_make(state: SandboxState, path: str, *, is_directory: bool, owner: tuple[int, int] | None = None) -> int:
    for _ in range(_MAX_LINKS):
        try:
            return open_in_root(state.root_fd, path)
        except FileNotFoundError:
            parent, missing = _existing_parent(state.root_fd, path)
        try:
            if os.fstat(parent).st_dev == state.proc_device:
                raise FileNotFoundError(2, "nothing can be made in /proc", path)
            _make(state, parent, missing, is_directory=is_directory, owner=owner)
        except FileExistsError:
            # A symlink to something that is not there: go on with what it says.
            path = _through_link(path, parent, missing)
        finally:
            os.close(parent)
    raise OSError(40, "too many levels of symbolic links", path)


def _through_link(path: str, parent_fd: int, missing: list[str]) -> str:
    """`path` with its first missing name replaced by what that symlink says; as it is when it is none."""
    try:
        link = os.readlink(missing[0], dir_fd=parent_fd)
    except OSError:
        return path
    above = [] if link.startswith("/") else path.split("/")[: -len(missing)]
    return "/".join([*above, link, *missing[1:]])


def _existing_parent(root_fd: int, path: str) -> tuple[int, list[str]]:
    """The deepest directory above `path` that is there, and the names that are missing below it."""
    names = path.split("/")
    for count in range(len(names) - 1, 0, -1):
        try:
            fd = open_in_root(root_fd, "/".join(names[:count]) or "/", os.O_PATH | os.O_DIRECTORY)
        except FileNotFoundError:
            continue
        return fd, names[count:]
    raise FileNotFoundError(2, "no such file or directory", path)


def _make(
    state: SandboxState, parent_fd: int, names: list[str], *, is_directory: bool, owner: tuple[int, int] | None
) -> None:
    """Make `names`, each below the one before, directories but for the last one if it is to be a file."""
    fd = os.dup(parent_fd)
    try:
        for index, name in enumerate(names):
            before = os.fstat(fd)
            if is_directory or index < len(names) - 1:
                os.mkdir(name, 0o755, dir_fd=fd)
            else:
                os.mknod(name, stat.S_IFREG | 0o644, dir_fd=fd)
            if owner is None:
                _set_times(fd, before)
                _record(state, fd, name)
            else:
                os.chown(name, *owner, dir_fd=fd, follow_symlinks=False)
            child = SafeRoot(fd).open_plain(name, os.O_PATH | os.O_NOFOLLOW)
            os.close(fd)
            fd = child
    finally:
        os.close(fd)


def _record(state: SandboxState, parent_fd: int, name: str) -> None:
    """Note a new mount point, if the upper directory has it; one inside another mount is not our business."""
    path = os.readlink(f"/proc/self/fd/{parent_fd}").removeprefix(NEW_ROOT) + "/" + name
    if state.upper_fd < 0:
        return
    try:
        fd = SafeRoot(state.upper_fd).open_plain(path.lstrip("/"), os.O_PATH | os.O_NOFOLLOW)
    except OSError:
        return
    state.stubs.append(Stub(path, os.fstat(fd).st_ino))
    os.close(fd)


def _set_times(fd: int, before: os.stat_result) -> None:
    os.utime(f"/proc/self/fd/{fd}", ns=(before.st_atime_ns, before.st_mtime_ns))
