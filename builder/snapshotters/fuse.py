"""Merged roots by fuse-overlayfs, for kernels that keep overlayfs from user namespaces.

The program serves a mount that is made here and attached nowhere: it gets the other end of the connection as its mount
point (/dev/fd/N, mount.fuse3(8)), and ends when the last one who has the mount lets go of it, in whatever way. Its
marks in the upper directory are then translated into those of overlayfs.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from builder.errors import SandboxError
from builder.sandbox import syscalls
from builder.sandbox.overlay import HOST_ATTRIBUTES
from builder.sandbox.snapshotter import OVERLAY
from builder.sandbox.spec import Mount, RootMount
from builder.snapshotters.directories import Directories, Scratch, directories_of
from cache import merged
from cache.dirfds import OPEN_DIRECTORY
from cache.errors import os_errors
from cache.rootpaths import make_whiteout, set_opaque

PROGRAM, DEVICE = "fuse-overlayfs", "/dev/fuse"
NODEV = syscalls.MOUNT_ATTR_NODEV
_SERVED_FD = 3
_OPAQUE_NAME, _WHITEOUT_PREFIX = ".wh..wh..opq", ".wh."
_OWN_XATTRS = "user.fuseoverlayfs."
_OPAQUE_XATTR = "user.fuseoverlayfs.opaque"


class Fuse:
    """See the module; `scratch` gives directories for changes that nobody keeps. `why_unusable` says what it lacks."""

    name = "fuse"

    def __init__(self, scratch: Scratch) -> None:
        self._scratch = scratch

    @contextmanager
    def mounted(self, root: RootMount) -> Iterator[RootMount]:
        directories = Directories(root.lower_dirs, root.upper_dir, root.work_dir)
        if directories.is_single:
            yield root
            return
        with _served(directories, NODEV) as fd:
            yield root._replace(lower_dirs=(), source=fd)

    @contextmanager
    def attached(self, mount: Mount) -> Iterator[Mount]:
        if mount.kind != "overlay":
            yield mount
            return
        with ExitStack() as stack:
            directories = directories_of(mount, self._scratch, stack)
            if directories.is_single:
                yield mount
                return
            yield mount._replace(source=stack.enter_context(_served(directories, NODEV)))

    @contextmanager
    def opened(
        self,
        lower_dirs: Sequence[str],
        upper_dir: str | None = None,
        work_dir: str | None = None,
        *,
        volatile: bool = False,
    ) -> Iterator[int]:
        directories = Directories(tuple(lower_dirs), upper_dir, work_dir)
        if directories.is_single:
            with OVERLAY.opened(lower_dirs, upper_dir, work_dir) as fd:
                yield fd
            return
        with _served(directories, HOST_ATTRIBUTES) as fd:
            yield fd


@contextmanager
def _served(directories: Directories, attributes: int) -> Iterator[int]:
    """A descriptor of the root that the program serves; the program ends with the block, and all it wrote is there."""
    device_fd = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    try:
        mount_fd = _new_mount(device_fd, attributes)
        said_fd = os.memfd_create(PROGRAM)
        process = _start(directories, device_fd, said_fd)
    finally:
        os.close(device_fd)
    try:
        _check(mount_fd, said_fd)
        yield mount_fd
    finally:
        os.close(mount_fd)
        os.waitpid(process, 0)
        os.close(said_fd)
    if directories.upper_dir is not None:
        with os_errors(directories.upper_dir):
            translate_marks(directories.upper_dir)


def _new_mount(device_fd: int, attributes: int) -> int:
    """A detached mount of the connection behind `device_fd` (fuse(4))."""
    options = (("fd", str(device_fd)), ("rootmode", "40000"), ("user_id", "0"), ("group_id", "0"))
    fs_fd = syscalls.fsopen("fuse")
    try:
        for key, value in (("source", PROGRAM), ("subtype", PROGRAM), *options):
            syscalls.fsconfig_set_string(fs_fd, key, value)
        for flag in ("allow_other", "default_permissions"):
            syscalls.fsconfig_set_flag(fs_fd, flag)
        syscalls.fsconfig_create(fs_fd)
        return syscalls.fsmount(fs_fd, attributes)
    finally:
        os.close(fs_fd)


def _start(directories: Directories, device_fd: int, said_fd: int) -> int:
    """Start the program on a connection; returns its pid."""
    options = ["lowerdir=" + ":".join(_escaped(path) for path in directories.lower_dirs)]
    if directories.upper_dir is not None and directories.work_dir is not None:
        options += [f"upperdir={_escaped(directories.upper_dir)}", f"workdir={_escaped(directories.work_dir)}"]
    words = [PROGRAM, "-f", "-o", ",".join(options), f"/dev/fd/{_SERVED_FD}"]
    return os.posix_spawnp(
        PROGRAM,
        words,
        dict(os.environ),
        file_actions=[
            (os.POSIX_SPAWN_DUP2, device_fd, _SERVED_FD),
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDWR, 0),
            (os.POSIX_SPAWN_DUP2, said_fd, 1),
            (os.POSIX_SPAWN_DUP2, said_fd, 2),
        ],
        setsid=True,  # a ^C at the terminal is for pybuild
    )


def _check(mount_fd: int, said_fd: int) -> None:
    """Wait for the first answer. Raises SandboxError with the program's own words when there is none."""
    try:
        os.stat(".", dir_fd=mount_fd)
    except OSError as error:
        said = os.pread(said_fd, 1000, 0).decode("utf-8", "replace").strip().splitlines()
        raise SandboxError(f"{PROGRAM}: {said[-1] if said else os.strerror(error.errno or 0).lower()}") from error


def _escaped(path: str) -> str:
    """A path in the list of an option; the program splits at commas and colons."""
    return path.replace("\\", "\\\\").replace(",", "\\,").replace(":", "\\:")


def translate_marks(upper_dir: str) -> None:
    """Give deletions and opaque directories the form that overlayfs has for them. Raises OSError."""
    pending = [upper_dir]
    while pending:
        where = pending.pop()
        with os.scandir(where) as entries:
            is_directory = {entry.name: entry.is_dir(follow_symlinks=False) for entry in entries}
        directories = {name for name, found in is_directory.items() if found}
        pending += [f"{where}/{name}" for name in directories]
        own = [name for name in os.listxattr(where) if name.startswith(_OWN_XATTRS)]
        marks = [name for name in is_directory.keys() - directories if name.startswith(_WHITEOUT_PREFIX)]
        if own or marks:
            fd = os.open(where, OPEN_DIRECTORY)
            try:
                _translate(fd, own, marks, directories)
            finally:
                os.close(fd)


def _translate(fd: int, own: Sequence[str], marks: Sequence[str], directories: set[str]) -> None:
    before = os.fstat(fd)
    if _OPAQUE_NAME in marks or (_OPAQUE_XATTR in own and os.getxattr(fd, _OPAQUE_XATTR) == b"y"):
        set_opaque(fd)
    for name in own:
        os.removexattr(fd, name)
    for name in marks:
        status = os.stat(name, dir_fd=fd, follow_symlinks=False)
        if status.st_size or not (stat.S_ISREG(status.st_mode) or merged.is_whiteout(status)):
            continue  # somebody's file, which no layer can hold
        os.unlink(name, dir_fd=fd)
        hidden = name.removeprefix(_WHITEOUT_PREFIX)
        if not hidden.startswith(".") and hidden not in directories:
            make_whiteout(fd, hidden)
    os.utime(fd, ns=(before.st_atime_ns, before.st_mtime_ns))


def why_unusable() -> str:
    """What this snapshotter lacks here, "" for nothing."""
    if shutil.which(PROGRAM) is None:
        return f"{PROGRAM} is not installed"
    try:
        os.close(os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return f"{DEVICE}: {os.strerror(error.errno or 0).lower()}"
    return ""
