"""User-namespace remapping for root: steps run as users that own nothing on this machine, layers keep the image's ids.

The layers are mounted with their ids mapped to the range of the namespace (mount_setattr(2), MOUNT_ATTR_IDMAP), so that
0 of a file in a layer is 0 in the step and an unprivileged id outside. All of that is done here, by root; a step gets
descriptors, since it can reach neither the store nor any other path of the machine.
"""

from __future__ import annotations

import errno
import os
import pwd
import signal
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from builder.errors import BuildError, SandboxError
from builder.sandbox import capabilities, overlay, syscalls
from builder.sandbox.apart import in_mount_namespace
from builder.sandbox.idmap import Extent, IdMaps, subordinate_ids, write_maps
from builder.sandbox.snapshotter import Overlay
from builder.sandbox.spec import Mount, RootMount
from builder.snapshotters.directories import Directories, Scratch, directories_of
from cache.namedtuple import NamedTuple

RANGE = 65536
_FIRST, _LAST = 0x80000, 0x6FFF0000
"""Where systemd and others put containers that have no range of their own (UIDS-GIDS in systemd's documentation)."""
_PLACE = "/proc/fs"
_NODEV = syscalls.MOUNT_ATTR_NODEV


class Remapped(NamedTuple):
    """A user namespace, and the id outside that is 0 in it."""

    fd: int
    base: int


def make_namespace() -> Remapped:
    """A user namespace of RANGE ids that no other user has. Raises SandboxError."""
    base = free_range()
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.close(reading)
            syscalls.unshare(syscalls.CLONE_NEWUSER)
            os.write(writing, b"1")
            signal.pause()
        finally:
            os._exit(1)
    os.close(writing)
    try:
        if not os.read(reading, 1):
            raise SandboxError("a user namespace for --userns=auto cannot be made")
        extent = (Extent(0, base, RANGE),)
        write_maps(pid, IdMaps(extent, extent))
        return Remapped(os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC), base)
    except OSError as error:
        raise SandboxError(f"map the ids of --userns=auto: {(error.strerror or '').lower()}") from error
    finally:
        os.close(reading)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def free_range() -> int:
    """The first id of a range: that of `containers` in /etc/subuid and /etc/subgid, else one that nobody was given."""
    for first, size in subordinate_ids("/etc/subuid", ("containers",)):
        if size >= RANGE and (first, size) in subordinate_ids("/etc/subgid", ("containers",)):
            return first
    taken = [(user.pw_uid, 1) for user in pwd.getpwall()]
    for path in ("/etc/subuid", "/etc/subgid"):
        taken += subordinate_ids(path, _names_in(path))
    for first in range(_FIRST, _LAST, RANGE):
        if not any(start < first + RANGE and first < start + size for start, size in taken):
            return first
    raise SandboxError("no range of ids is free for --userns=auto", hint="give `containers` one in /etc/subuid")


def _names_in(path: str) -> set[str]:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return {line.partition(":")[0] for line in file}
    except OSError:
        return set()


class Idmapped(Overlay):
    """Overlays of mapped layers, made here. See the module."""

    name = "overlay"

    def __init__(self, namespace: Remapped, scratch: Scratch) -> None:
        self._namespace = namespace
        self._scratch = scratch

    @contextmanager
    def mounted(self, root: RootMount) -> Iterator[RootMount]:
        directories = Directories(root.lower_dirs, root.upper_dir, root.work_dir)
        with ExitStack() as stack:
            fd, upper_fd = self._mount(directories, stack, volatile=root.volatile)
            yield root._replace(lower_dirs=(), source=fd, upper_source=upper_fd)

    @contextmanager
    def attached(self, mount: Mount) -> Iterator[Mount]:
        with ExitStack() as stack:
            if mount.kind == "overlay":
                yield self._overlay(mount, stack)
            elif mount.kind == "bind" and isinstance(mount.source, str):
                yield self._bind(mount, mount.source, stack)
            else:
                yield mount

    def _overlay(self, mount: Mount, stack: ExitStack) -> Mount:
        directories = directories_of(mount, self._scratch, stack)
        fd, _ = self._mount(directories, stack, volatile=True)
        return mount._replace(source=fd)

    def _bind(self, mount: Mount, source: str, stack: ExitStack) -> Mount:
        if stat.S_ISSOCK(os.stat(source).st_mode):
            raise BuildError(
                f"mount on {mount.target}: an ssh agent does not answer other users than its own",
                hint="leave out --userns=auto",
            )
        try:
            fd = _mapped_clone(source, self._namespace.fd)
        except OSError as error:
            raise _unmappable(source, error) from error
        stack.callback(os.close, fd)
        return mount._replace(source=fd)

    def _mount(self, directories: Directories, stack: ExitStack, *, volatile: bool) -> tuple[int, int | None]:
        """Descriptors of the merged root and, seen with mapped ids, of its upper directory."""
        try:
            fd, upper_fd = in_mount_namespace(lambda: _merge(directories, self._namespace, volatile=volatile))
        except OSError as error:
            raise _unmappable(directories.common_dir, error) from error
        stack.callback(os.close, fd)
        if upper_fd is not None:
            stack.callback(os.close, upper_fd)
        return fd, upper_fd


def _unmappable(path: str, error: OSError) -> SandboxError:
    reason = os.strerror(error.errno or 0).lower()
    hint = None
    if error.errno in (errno.EINVAL, errno.EPERM, errno.ENOSYS):
        hint = "--userns=auto needs a filesystem that can map ids, and Linux 5.19: leave it out, or move the store"
    return SandboxError(f"map the ids of {path}: {reason}", hint=hint)


def _mapped_clone(path: str, namespace_fd: int) -> int:
    """A detached mount of `path` with the ids of a namespace, without devices. Raises OSError."""
    fd = syscalls.open_tree(syscalls.AT_FDCWD, path, syscalls.OPEN_TREE_CLONE)
    try:
        syscalls.mount_setattr(fd, syscalls.MOUNT_ATTR_IDMAP | _NODEV, userns_fd=namespace_fd)
    except OSError:
        os.close(fd)
        raise
    return fd


def _act_as(owner: int) -> None:
    """What overlayfs makes for itself belongs to whoever mounts it, who needs an id that the mapping knows."""
    syscalls.setfsuid(owner, owner)
    permitted = capabilities.permitted()
    syscalls.capset(permitted, permitted, 0)


def _merge(directories: Directories, namespace: Remapped, *, volatile: bool) -> tuple[int, int | None]:
    """What `_mount` returns; in a mount namespace of its own, where layers can be put on a mapped mount first."""
    if len(directories.lower_dirs) + (directories.upper_dir is not None) == 1:
        return _mapped_clone(directories.lower_dirs[0], namespace.fd), None
    common_dir = directories.common_dir
    tree = _mapped_clone(common_dir, namespace.fd)
    syscalls.move_mount(tree, syscalls.AT_FDCWD, _PLACE)
    os.close(tree)

    def mapped(path: str | None) -> str | None:
        return None if path is None else os.path.join(_PLACE, os.path.relpath(path, common_dir))

    lower_dirs = [mapped(path) or "" for path in directories.lower_dirs]
    upper_dir = mapped(directories.upper_dir)
    work_dir = mapped(directories.work_dir)
    _act_as(namespace.base)
    fd = overlay.mount_detached(lower_dirs, upper_dir, work_dir, attributes=_NODEV, volatile=volatile)
    upper_fd = None if upper_dir is None else os.open(upper_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    return fd, upper_fd
