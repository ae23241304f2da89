"""The kernel's own filesystems in a sandbox: /proc, /dev, /sys, and what of them is hidden.

What is there and what is masked follows the OCI runtime specification (config-linux.md) and Docker's defaults. Runs
under `python -I -S`.
"""

from __future__ import annotations

import errno
import functools
import os
import stat

from builder.sandbox import syscalls
from builder.sandbox.diagnosis import why_forbidden
from builder.sandbox.operations import (
    EMPTY_DIR,
    NEW_ROOT,
    SCRATCH_DIR,
    SKELETON_DIR,
    SOURCES_DIR,
    SandboxState,
    clone_mount,
)
from builder.sandbox.targets import open_in_root, open_system_dir
from cache.namedtuple import NamedTuple

NOSUID, NODEV, NOEXEC = syscalls.MOUNT_ATTR_NOSUID, syscalls.MOUNT_ATTR_NODEV, syscalls.MOUNT_ATTR_NOEXEC
READ_ONLY = syscalls.MOUNT_ATTR_RDONLY

MASKED_IN_PROC = (
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
)
MASKED_IN_SYS = ("/sys/firmware", "/sys/devices/virtual/powercap")
_CPU_DIR = "/sys/devices/system/cpu"
READ_ONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

_CHARACTER_DEVICES = {
    "null": (1, 3),
    "zero": (1, 5),
    "full": (1, 7),
    "random": (1, 8),
    "urandom": (1, 9),
    "tty": (5, 0),
}
_DEVICE_LINKS = {
    "ptmx": "pts/ptmx",
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
}
_LOOP_DEVICES = 8

Options = tuple[tuple[str, str], ...]


def new_filesystem(fstype: str, options: Options, attributes: int) -> int:
    """A descriptor of a new detached filesystem; an option with an empty value is a flag. Raises OSError."""
    fs_fd = syscalls.fsopen(fstype)
    try:
        syscalls.fsconfig_set_string(fs_fd, "source", fstype)
        for key, value in options:
            if value:
                syscalls.fsconfig_set_string(fs_fd, key, value)
            else:
                syscalls.fsconfig_set_flag(fs_fd, key)
        syscalls.fsconfig_create(fs_fd)
        return syscalls.fsmount(fs_fd, attributes)
    finally:
        os.close(fs_fd)


def attach(state: SandboxState, mount_fd: int, system_dir: str) -> None:
    """Put a detached mount on a directory that belongs to the sandbox (relative to the root)."""
    target_fd = open_system_dir(state.root_fd, system_dir)
    syscalls.move_mount(mount_fd, target_fd)
    os.close(target_fd)


class MakeScratch(NamedTuple):
    """A tmpfs of this step alone, below /proc where it hides nothing that is needed, with a place for each use.

    Until the root is there, the kernel's filesystems are put together in its skeleton.
    """

    def describe(self) -> str:
        return "make a private tmpfs"

    def perform(self, state: SandboxState) -> None:
        mount_fd = new_filesystem("tmpfs", (("mode", "0700"),), NOSUID | NODEV)
        syscalls.move_mount(mount_fd, syscalls.AT_FDCWD, SCRATCH_DIR)
        for path in (NEW_ROOT, EMPTY_DIR, SKELETON_DIR, SOURCES_DIR):
            os.mkdir(os.path.basename(path), 0o755, dir_fd=mount_fd)
        os.close(mount_fd)
        state.root_fd = os.open(SKELETON_DIR, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


class MountFilesystem(NamedTuple):
    """One kernel filesystem at its usual place."""

    fstype: str
    target: str
    options: Options
    attributes: int

    def describe(self) -> str:
        return f"mount /{self.target}"

    def perform(self, state: SandboxState) -> None:
        try:
            mount_fd = new_filesystem(self.fstype, self.options, self.attributes)
        except PermissionError as error:
            if self.fstype == "sysfs":
                # It belongs to a network namespace that is not ours, or parts of it are hidden from us.
                mount_fd = _clone_tree("/sys", self.attributes)
            else:
                raise why_forbidden(f"/{self.target}", error) from error
        attach(state, mount_fd, self.target)
        if self.fstype == "proc":
            state.proc_device = os.fstat(mount_fd).st_dev
        os.close(mount_fd)


class MakeDevices(NamedTuple):
    """A tmpfs on /dev with the devices that every container has, and the loop devices for an insecure one.

    Where devices cannot be made, in a user namespace, they are the machine's own, bound to their place.
    """

    has_loop_devices: bool
    is_bound: bool

    def describe(self) -> str:
        return "make /dev"

    def perform(self, state: SandboxState) -> None:
        options = (("mode", "0755"), ("size", "65536k"))
        dev_fd = new_filesystem("tmpfs", options, NOSUID)
        for name, link in _DEVICE_LINKS.items():
            os.symlink(link, name, dir_fd=dev_fd)
        for name in ("pts", "shm", "mqueue"):
            os.mkdir(name, 0o755, dir_fd=dev_fd)
        if self.is_bound:
            attach(state, dev_fd, "dev")
            _bind_devices(dev_fd)
        else:
            self._make_nodes(dev_fd)
            attach(state, dev_fd, "dev")
        os.close(dev_fd)

    def _make_nodes(self, dev_fd: int) -> None:
        for name, (major, minor) in _CHARACTER_DEVICES.items():
            os.mknod(name, stat.S_IFCHR | 0o666, os.makedev(major, minor), dir_fd=dev_fd)
        if self.has_loop_devices:
            os.mknod("loop-control", stat.S_IFCHR | 0o660, os.makedev(10, 237), dir_fd=dev_fd)
            for minor in range(_LOOP_DEVICES):
                os.mknod(f"loop{minor}", stat.S_IFBLK | 0o660, os.makedev(7, minor), dir_fd=dev_fd)


class MountCgroupView(NamedTuple):
    """The control groups of this step, read-only: one mount for v2, one per v1 hierarchy."""

    target: str
    hierarchies: tuple[tuple[str, str, Options], ...]
    """Directory name ("" for v2 alone), fstype and options of each."""
    attributes: int

    def describe(self) -> str:
        return "mount /sys/fs/cgroup"

    def perform(self, state: SandboxState) -> None:
        if [name for name, _, _ in self.hierarchies] == [""]:
            mount_fd = new_filesystem("cgroup2", (), self.attributes)
            attach(state, mount_fd, self.target)
            os.close(mount_fd)
            return
        tmpfs_fd = new_filesystem("tmpfs", (("mode", "0755"),), self.attributes & ~READ_ONLY)
        for name, _, _ in self.hierarchies:
            os.mkdir(name, 0o755, dir_fd=tmpfs_fd)
        syscalls.mount_setattr(tmpfs_fd, self.attributes)
        attach(state, tmpfs_fd, self.target)
        os.close(tmpfs_fd)
        for name, fstype, options in self.hierarchies:
            mount_fd = new_filesystem(fstype, options, self.attributes)
            attach(state, mount_fd, f"{self.target}/{name}")
            os.close(mount_fd)


class MoveFromSkeleton(NamedTuple):
    """A filesystem that was made before the root, with everything that is mounted in it, to its place."""

    name: str
    target: str

    def describe(self) -> str:
        return f"mount /{self.target}"

    def perform(self, state: SandboxState) -> None:
        mount_fd = syscalls.open_tree(syscalls.AT_FDCWD, f"{SKELETON_DIR}/{self.name}", 0)
        attach(state, mount_fd, self.target)
        os.close(mount_fd)


@functools.cache
def thermal_paths() -> tuple[str, ...]:
    """What tells how busy each processor is, which says something of the work of others; not every machine has it."""
    if not os.path.isdir(f"{_CPU_DIR}/cpu0/thermal_throttle"):
        return ()
    names = sorted(name for name in os.listdir(_CPU_DIR) if name.removeprefix("cpu").isdigit())
    return tuple(f"{_CPU_DIR}/{name}/thermal_throttle" for name in names)


class MaskPaths(NamedTuple):
    """Kernel files covered by the sandbox's own /dev/null, directories by an empty one."""

    paths: tuple[str, ...]

    def describe(self) -> str:
        return "mask kernel paths"

    def perform(self, state: SandboxState) -> None:
        for path in self.paths:
            try:
                target_fd = open_in_root(state.root_fd, path)
            except (FileNotFoundError, NotADirectoryError):
                continue
            if stat.S_ISDIR(os.fstat(target_fd).st_mode):
                cover = clone_mount(os.open(EMPTY_DIR, os.O_PATH | os.O_CLOEXEC), READ_ONLY)
            else:
                cover = clone_mount(_open_null(state.root_fd), 0)
            syscalls.move_mount(cover, target_fd)
            os.close(cover)
            os.close(target_fd)


class ProtectPaths(NamedTuple):
    """Kernel directories that stay visible but cannot be written."""

    paths: tuple[str, ...]

    def describe(self) -> str:
        return "make kernel paths read-only"

    def perform(self, state: SandboxState) -> None:
        for path in self.paths:
            try:
                target_fd = open_in_root(state.root_fd, path)
            except FileNotFoundError:
                continue
            cover = clone_mount(os.dup(target_fd), READ_ONLY, recursive=True)
            syscalls.move_mount(cover, target_fd)
            os.close(cover)
            os.close(target_fd)


def _bind_devices(dev_fd: int) -> None:
    for name, numbers in _CHARACTER_DEVICES.items():
        path = f"/dev/{name}"
        fd = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        status = os.fstat(fd)
        if not stat.S_ISCHR(status.st_mode) or status.st_rdev != os.makedev(*numbers):
            os.close(fd)
            raise OSError(errno.ENODEV, "not the device that it is named for", path)
        device = clone_mount(fd, 0)
        os.mknod(name, stat.S_IFREG | 0o666, dir_fd=dev_fd)
        syscalls.move_mount(device, dev_fd, name)
        os.close(device)


def _clone_tree(path: str, attributes: int) -> int:
    """A detached copy of everything that is mounted at and below `path`."""
    return clone_mount(os.open(path, os.O_PATH | os.O_CLOEXEC), attributes, recursive=True)


def _open_null(root_fd: int) -> int:
    """The sandbox's /dev/null, which must be that device and nothing else (CVE-2025-31133)."""
    fd = open_in_root(root_fd, "/dev/null", os.O_PATH | os.O_NOFOLLOW)
    if not is_null(os.fstat(fd)):
        os.close(fd)
        raise OSError(22, "not the null device", "/dev/null")
    return fd


def is_null(status: os.stat_result) -> bool:
    """Whether this is the null device, whatever its name."""
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == os.makedev(1, 3)
