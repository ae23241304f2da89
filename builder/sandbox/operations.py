"""What a sandbox is made of: operations that say what they do and do it, in the process that becomes pid 1.

Owns the state that operations share, and those on namespaces and on the root. Runs under `python -I -S`.
"""

from __future__ import annotations

import os
import time
from typing import Protocol

from builder.sandbox import network, overlay, syscalls
from builder.sandbox.diagnosis import why_forbidden
from builder.sandbox.passwd import ROOT, User
from builder.sandbox.spec import RootMount
from builder.sandbox.wire import Stub
from cache.namedtuple import NamedTuple

SCRATCH_DIR = "/proc/fs"
"""Where a step has its private tmpfs: a directory that every Linux has and no step needs a mount source from."""

NEW_ROOT = f"{SCRATCH_DIR}/root"
EMPTY_DIR = f"{SCRATCH_DIR}/empty"
SKELETON_DIR = f"{SCRATCH_DIR}/skeleton"
SOURCES_DIR = f"{SCRATCH_DIR}/sources"

_TIME_NAMESPACE = "/proc/self/ns/time_for_children"
_CLOCKS_START_NS = 10**9
"""Not zero, which some programs take for a clock that does not go."""

NAMESPACES = {
    "mount": syscalls.CLONE_NEWNS,
    "uts": syscalls.CLONE_NEWUTS,
    "ipc": syscalls.CLONE_NEWIPC,
    "cgroup": syscalls.CLONE_NEWCGROUP,
    "network": syscalls.CLONE_NEWNET,
}


class SandboxState:
    """What operations leave for later ones."""

    def __init__(self) -> None:
        self.fds: tuple[int, ...] = ()
        """Descriptors that came with the request: stdin, stdout, stderr, then sources of mounts."""
        self.root_fd = -1
        """The new root; while that is not there yet, the skeleton with the kernel's filesystems."""
        self.upper_fd = -1
        self.proc_device = -1
        """The st_dev of the sandbox's /proc."""
        self.terminal_fd = -1
        self.network_fd = -1
        """The network namespace, where somebody wants it."""
        self.device_attributes = 0
        """MOUNT_ATTR_NODEV where nothing else keeps a step from the host's devices."""
        self.stubs: list[Stub] = []
        self.user: User = ROOT
        self.env: dict[str, str] = {}


class Operation(Protocol):
    """One step on the way to a process in a sandbox."""

    def describe(self) -> str:
        """What it does, in the words that an error message begins with."""

    def perform(self, state: SandboxState) -> None:
        """Do it. Raises OSError, or BuildError where the image or the user is at fault."""


class JoinCgroups(NamedTuple):
    """Move to the step's own control groups, which become the root of its cgroup namespace."""

    procs_paths: tuple[str, ...]

    def describe(self) -> str:
        return "join the control groups"

    def perform(self, state: SandboxState) -> None:
        for path in self.procs_paths:
            fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(fd, b"0")
            finally:
                os.close(fd)


class Unshare(NamedTuple):
    """New namespaces, by name; the pid namespace is new already."""

    names: tuple[str, ...]

    def describe(self) -> str:
        return f"new namespaces: {', '.join(self.names)}"

    def perform(self, state: SandboxState) -> None:
        flags = 0
        for name in self.names:
            flags |= NAMESPACES[name]
        syscalls.unshare(flags)
        if "mount" in self.names:
            # Nothing that is mounted here may show up on the host; what the host mounts is still needed as a source.
            syscalls.mount("none", "/", flags=syscalls.MS_REC | syscalls.MS_SLAVE)


class RestartClocks(NamedTuple):
    """A time namespace in which the machine has just started. Not for the time of day, of which Linux has only one
    (time_namespaces(7))."""

    def describe(self) -> str:
        return "restart the clocks"

    def perform(self, state: SandboxState) -> None:
        if not os.path.exists(_TIME_NAMESPACE):
            return
        syscalls.unshare(syscalls.CLONE_NEWTIME)
        lines = []
        for name, clock in (("monotonic", time.CLOCK_MONOTONIC), ("boottime", time.CLOCK_BOOTTIME)):
            seconds, nanoseconds = divmod(_CLOCKS_START_NS - time.clock_gettime_ns(clock), 10**9)
            lines.append(f"{name} {seconds} {nanoseconds}\n")
        with open("/proc/self/timens_offsets", "w", encoding="ascii") as offsets:
            offsets.write("".join(lines))
        fd = os.open(_TIME_NAMESPACE, os.O_RDONLY | os.O_CLOEXEC)
        try:
            syscalls.setns(fd, syscalls.CLONE_NEWTIME)
        finally:
            os.close(fd)


class BringUpLoopback(NamedTuple):
    """The loopback interface of a new network namespace."""

    def describe(self) -> str:
        return "bring up the loopback interface"

    def perform(self, state: SandboxState) -> None:
        network.bring_up_loopback()


class JoinNetwork(NamedTuple):
    """The network namespace that was made for the step: the last descriptor of the request."""

    is_handed_over: bool

    def describe(self) -> str:
        return "join the network namespace"

    def perform(self, state: SandboxState) -> None:
        *fds, network_fd = state.fds
        syscalls.setns(network_fd, syscalls.CLONE_NEWNET)
        if self.is_handed_over:
            state.network_fd = network_fd
        else:
            os.close(network_fd)
        state.fds = tuple(fds)


class MountRoot(NamedTuple):
    """The new root: an overlay of the layers, or one plain directory."""

    root: RootMount
    attributes: int

    def describe(self) -> str:
        return f"mount the root of {len(self.root.lower_dirs)} layers"

    def perform(self, state: SandboxState) -> None:
        root = self.root
        fd = self._mount() if root.source is None else state.fds[root.source]
        if root.source is not None:
            syscalls.mount_setattr(fd, self.attributes)
        syscalls.move_mount(fd, syscalls.AT_FDCWD, NEW_ROOT)
        os.close(state.root_fd)
        state.root_fd = fd
        if root.upper_source is not None:
            state.upper_fd = state.fds[root.upper_source]
        elif root.upper_dir is not None:
            state.upper_fd = os.open(root.upper_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def _mount(self) -> int:
        root = self.root
        fd = overlay.mount_detached(
            root.lower_dirs, root.upper_dir, root.work_dir, attributes=self.attributes, volatile=root.volatile
        )
        if len(root.lower_dirs) + (root.upper_dir is not None) == 1:
            fd = clone_mount(fd, self.attributes | (0 if root.upper_dir else syscalls.MOUNT_ATTR_RDONLY))
        return fd


class ProtectRoot(NamedTuple):
    """The root read-only, once every mount point is there."""

    def describe(self) -> str:
        return "make the root read-only"

    def perform(self, state: SandboxState) -> None:
        syscalls.mount_setattr(state.root_fd, syscalls.MOUNT_ATTR_RDONLY)


class Pivot(NamedTuple):
    """The new root in the place of the host's, of which nothing stays (pivot_root(2))."""

    def describe(self) -> str:
        return "pivot to the new root"

    def perform(self, state: SandboxState) -> None:
        os.fchdir(state.root_fd)
        try:
            syscalls.pivot_root(".", ".")
        except PermissionError as error:
            raise why_forbidden("/", error) from error
        syscalls.umount2(".", syscalls.MNT_DETACH)
        os.chdir("/")
        syscalls.mount("none", "/", flags=syscalls.MS_REC | syscalls.MS_PRIVATE)
        if state.upper_fd >= 0:
            os.close(state.upper_fd)
            state.upper_fd = -1


class SetHostname(NamedTuple):
    """The name of the machine in the step's UTS namespace."""

    name: str

    def describe(self) -> str:
        return f'set the hostname "{self.name}"'

    def perform(self, state: SandboxState) -> None:
        try:
            syscalls.sethostname(self.name)
        except PermissionError as error:
            raise why_forbidden("hostname", error) from error


def clone_mount(fd: int, attributes: int, *, recursive: bool = False) -> int:
    """A detached bind mount of what `fd` names, with MOUNT_ATTR_* set; closes `fd`."""
    flags = syscalls.OPEN_TREE_CLONE | syscalls.AT_EMPTY_PATH | (syscalls.AT_RECURSIVE if recursive else 0)
    try:
        mount_fd = syscalls.open_tree(fd, "", flags)
    finally:
        os.close(fd)
    if attributes:
        syscalls.mount_setattr(mount_fd, attributes, recursive=recursive)
    return mount_fd
