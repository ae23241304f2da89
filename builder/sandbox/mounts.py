"""The mounts that a step asks for: directories and files of the host, layers, memory.

Sources are opened before their target, both by descriptor, so that nothing can be swapped between the look and the
mount (CVE-2024-23651, CVE-2024-1753). Runs under `python -I -S`.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable

from builder.errors import BuildError
from builder.sandbox import overlay, syscalls
from builder.sandbox.filesystems import NODEV, NOEXEC, NOSUID, READ_ONLY, new_filesystem
from builder.sandbox.operations import NEW_ROOT, SOURCES_DIR, SandboxState, clone_mount
from builder.sandbox.snapshotter import make_like
from builder.sandbox.spec import Mount
from builder.sandbox.targets import open_in_root, open_target
from cache.namedtuple import NamedTuple


class AttachMount(NamedTuple):
    """One mount of the step at its target."""

    mount: Mount
    number: int

    def describe(self) -> str:
        return f"mount {self.mount.kind} on {self.mount.target}"

    def perform(self, state: SandboxState) -> None:
        if self.mount.kind == "tmpfs":
            _attach_tmpfs(state, self.mount)
            return
        source_fd = _SOURCES[self.mount.kind](state, self.mount, self.number)
        is_directory = stat.S_ISDIR(os.fstat(source_fd).st_mode)
        target_fd = open_target(state, self.mount.target, is_directory=is_directory)
        _refuse_proc(target_fd, self.mount.target)
        if stat.S_ISDIR(os.fstat(target_fd).st_mode) != is_directory:
            source, target = ("a directory", "a file") if is_directory else ("a file", "a directory")
            raise BuildError(f'mount target "{self.mount.target}" is {target}, its source is {source}')
        syscalls.move_mount(source_fd, target_fd)
        os.close(source_fd)
        os.close(target_fd)


def _attach_tmpfs(state: SandboxState, mount: Mount) -> None:
    """A tmpfs with the mode of the directory it covers, or 1777 where there was none, unless one is given."""
    made_before = len(state.stubs)
    target_fd = open_target(state, mount.target, is_directory=True)
    _refuse_proc(target_fd, mount.target)
    mode = mount.options.get("mode")
    if mode is None:
        mode = 0o1777 if len(state.stubs) > made_before else stat.S_IMODE(os.fstat(target_fd).st_mode)
    options = [("mode", f"{mode:04o}")]
    options += [(key, str(mount.options[key])) for key in ("size", "uid", "gid") if mount.options.get(key)]
    attributes = NOSUID | state.device_attributes | (READ_ONLY if mount.read_only else 0)
    attributes |= NOEXEC if mount.options.get("noexec") else 0
    mount_fd = new_filesystem("tmpfs", tuple(options), attributes)
    syscalls.move_mount(mount_fd, target_fd)
    os.close(mount_fd)
    os.close(target_fd)


def _bind_source(state: SandboxState, mount: Mount, _number: int) -> int:
    """A detached copy of a host path's mount, or the descriptor that came with the request."""
    attributes = state.device_attributes | (READ_ONLY if mount.read_only else 0)
    if isinstance(mount.source, int):
        mount_fd = state.fds[mount.source]
        syscalls.mount_setattr(mount_fd, attributes, recursive=True)
        return mount_fd
    assert mount.source is not None, "a bind mount has a source"
    fd = os.open(mount.source, os.O_PATH | os.O_CLOEXEC)
    return clone_mount(_below(fd, mount), attributes, recursive=True)


def _overlay_source(state: SandboxState, mount: Mount, number: int) -> int:
    """Merged layers, or what came merged already.

    Written to a throw-away upper directory in memory unless they are read-only or bring one.
    """
    options = mount.options
    lower_dirs, upper_dir, work_dir = options["lower_dirs"], options.get("upper_dir"), options.get("work_dir")
    place = f"{SOURCES_DIR}/{number}"
    os.mkdir(place, 0o700)
    attributes = state.device_attributes | (READ_ONLY if mount.read_only else 0)
    if isinstance(mount.source, int):
        fd = state.fds[mount.source]
        syscalls.mount_setattr(fd, attributes)
        return _part(fd, mount, place, attributes)
    if upper_dir is None and not mount.read_only:
        upper_dir, work_dir = f"{place}/upper", f"{place}/work"
        make_like(upper_dir, lower_dirs)
        os.mkdir(work_dir, 0o755)
    fd = overlay.mount_detached(lower_dirs, upper_dir, work_dir, attributes=attributes, volatile=True)
    if len(lower_dirs) + (upper_dir is not None) == 1:
        return clone_mount(_below(fd, mount), attributes)
    return _part(fd, mount, place, attributes)


def _part(fd: int, mount: Mount, place: str, attributes: int) -> int:
    """The `subpath` of a detached mount as one of its own."""
    if not mount.options.get("subpath"):
        return fd
    # A part of a detached mount cannot be bound on every kernel, so the whole has to have a place first.
    os.mkdir(f"{place}/merged", 0o700)
    syscalls.move_mount(fd, syscalls.AT_FDCWD, f"{place}/merged")
    return clone_mount(_below(fd, mount), attributes)


def _file_source(_state: SandboxState, mount: Mount, number: int) -> int:
    """A file with the given content on this step's own tmpfs."""
    options = mount.options
    mode = 0o644 if options.get("mode") is None else options["mode"]
    path = f"{SOURCES_DIR}/{number}"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        content = memoryview(os.fsencode(options.get("content", "")))
        while content:
            content = content[os.write(fd, content) :]
        os.fchown(fd, options.get("uid", 0), options.get("gid", 0))
        os.fchmod(fd, mode)
    finally:
        os.close(fd)
    attributes = NOSUID | NODEV | (READ_ONLY if mount.read_only else 0) | (0 if mode & 0o111 else NOEXEC)
    return clone_mount(os.open(path, os.O_PATH | os.O_CLOEXEC), attributes)


_SOURCES: dict[str, Callable[[SandboxState, Mount, int], int]] = {
    "bind": _bind_source,
    "overlay": _overlay_source,
    "file": _file_source,
}
KINDS = ("tmpfs", *_SOURCES)


def _below(fd: int, mount: Mount) -> int:
    """The `subpath` of a source, resolved inside it; closes `fd` when that is another."""
    subpath = mount.options.get("subpath")
    if not subpath:
        return fd
    try:
        return open_in_root(fd, subpath)
    except OSError as error:
        raise BuildError(
            f'mount source "{subpath}" for {mount.target}: {os.strerror(error.errno or 0).lower()}'
        ) from error
    finally:
        os.close(fd)


def _refuse_proc(target_fd: int, target: str) -> None:
    """No mount in /proc, by whatever name: security decisions rest on what is read there (CVE-2019-16884)."""
    path = os.readlink(f"/proc/self/fd/{target_fd}")
    if f"{path}/".startswith(f"{NEW_ROOT}/proc/"):
        raise BuildError(f'mount target "{target}" is in /proc')
