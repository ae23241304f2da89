"""Control groups of steps: v2, v1 and both at once (cgroups(7)).

    <hierarchy>/<our own group>/pybuild-<pid>-<random>-<class>/<step>    one per step, removed when it ended

Our own group is the one above where `delegation` has set us apart. <pid> is the launcher's, <class> is `guarded`, where
only harmless devices can be opened, or `open` for insecure steps. Groups of a launcher that was killed are swept by the
next one. Where no group can be made, steps stay in ours and mount options keep devices shut. Runs under `python -I -S`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time

from builder.sandbox import device_rules
from cache.namedtuple import NamedTuple

GUARDED, OPEN = "guarded", "open"
PREFIX, APART = "pybuild-", "-apart"
_CLOSING_TRIES, _CLOSING_PAUSE = 50, 0.002


class Hierarchy(NamedTuple):
    """One mounted tree of control groups, and where this process is in it."""

    is_v2: bool
    name: str
    """The directory it is known by below /sys/fs/cgroup, "" when it is that directory itself."""
    controllers: tuple[str, ...]
    """Mount options that select it (v1): controllers, or `name=...`."""
    own_dir: str
    root_dir: str = ""
    """Where it is mounted."""


def find_hierarchies(proc_dir: str = "/proc/self") -> tuple[Hierarchy, ...]:
    """The hierarchies that are mounted here; empty where there are none. Raises OSError if /proc is not readable."""
    own_paths = _own_paths(proc_dir)
    found: dict[tuple[str, ...], Hierarchy] = {}
    with open(f"{proc_dir}/mountinfo", encoding="utf-8", errors="surrogateescape") as mounts:
        for line in mounts:
            left, _, right = line.partition(" - ")
            fstype, _, super_options = right.split(" ", 2)
            if fstype not in ("cgroup", "cgroup2"):
                continue
            mount_root, mount_dir = left.split(" ")[3:5]
            if mount_root.startswith("/.."):
                continue  # mounted before our cgroup namespace was made: what ours is called there is not told
            is_v2 = fstype == "cgroup2"
            controllers = () if is_v2 else _controllers(super_options.strip(), own_paths)
            if controllers in own_paths and controllers not in found:
                relative = os.path.relpath(own_paths[controllers], mount_root)
                # In another container's view our path can lie outside of what is mounted here.
                own_dir = mount_dir if relative.startswith("..") else os.path.normpath(f"{mount_dir}/{relative}")
                name = "" if is_v2 and mount_dir == "/sys/fs/cgroup" else os.path.basename(mount_dir)
                found[controllers] = Hierarchy(is_v2, name, controllers, own_dir, mount_dir)
    return tuple(found.values())


class StepGroups:
    """Makes and removes the groups of steps: in v2, else or also in the `devices` hierarchy of v1."""

    def __init__(self, launcher_pid: int, hierarchies: tuple[Hierarchy, ...]) -> None:
        self._name = f"{PREFIX}{launcher_pid}-{os.urandom(4).hex()}"
        useful = (h for h in hierarchies if h.is_v2 or "devices" in h.controllers)
        self._hierarchies = sorted(useful, key=lambda hierarchy: not hierarchy.is_v2)
        self._parents: dict[str, tuple[str, ...]] = {}
        self._guards: dict[str, bool] = {}
        self._leaving: list[str] = []
        for hierarchy in self._hierarchies:
            sweep(hierarchy.own_dir)

    def create(self, step: int, kind: str) -> tuple[str, ...]:
        """The directories of a new group for `step` below the parents of its class; fewer where none can be made."""
        if kind not in self._parents:
            self._make_parents(kind)
        groups = tuple(f"{parent}/{step}" for parent in self._parents[kind])
        for group in groups:
            os.mkdir(group, 0o755)
        return groups

    def guards_devices(self, kind: str) -> bool:
        """Whether the groups of a class keep steps from opening other devices than a container's usual ones."""
        return self._guards.get(kind, False)

    def remove(self, groups: tuple[str, ...]) -> None:
        """Remove a step's groups; nothing runs in them any more.

        A process leaves its group a moment after it was waited for, so what is still busy is tried again later.
        """
        self._leaving = [group for group in (*self._leaving, *groups) if not _remove_group(group)]

    def close(self) -> None:
        """Remove what is left, and the parents."""
        for _ in range(_CLOSING_TRIES):
            self.remove(())
            if not self._leaving:
                break
            time.sleep(_CLOSING_PAUSE)
        for parents in self._parents.values():
            self.remove(parents)

    def _make_parents(self, kind: str) -> None:
        made = []
        for hierarchy in self._hierarchies:
            parent = f"{hierarchy.own_dir}/{self._name}-{kind}"
            try:
                check_moving(hierarchy, parent)
                os.mkdir(parent, 0o755)
            except OSError:
                # Read-only or not ours: a container, mostly. Steps then share our group.
                continue
            made.append(parent)
            if hierarchy.is_v2:
                _count_below(parent)
            if kind == OPEN or device_rules.guard(parent, is_v2=hierarchy.is_v2):
                self._guards[kind] = kind == GUARDED
                break
        self._parents[kind] = tuple(made)


def _count_below(parent: str) -> None:
    """Have the steps' groups count memory and transfers, where a new group was given the controllers for that."""
    with contextlib.suppress(OSError):
        offered = {"memory", "io"}.intersection(read(f"{parent}/cgroup.controllers").split())
        write(f"{parent}/cgroup.subtree_control", " ".join(f"+{name}" for name in sorted(offered)))


def _own_paths(proc_dir: str) -> dict[tuple[str, ...], str]:
    """Path of this process's group by controllers, () for v2 (/proc/[pid]/cgroup, cgroups(7))."""
    with open(f"{proc_dir}/cgroup", encoding="utf-8", errors="surrogateescape") as file:
        rows = [line.rstrip("\n").split(":", 2) for line in file]
    return {tuple(controllers.split(",")) if controllers else (): _whole(path) for _, controllers, path in rows}


def _whole(path: str) -> str:
    """The group that `delegation` divided when it set apart the one with this path, else that itself."""
    above, _, name = path.rpartition("/")
    return above or "/" if name.startswith(PREFIX) and name.endswith(APART) else path


def _controllers(super_options: str, own_paths: dict[tuple[str, ...], str]) -> tuple[str, ...]:
    """Which of the hierarchies of /proc/self/cgroup a v1 mount is."""
    options = set(super_options.split(","))
    return next((names for names in own_paths if names and options.issuperset(names)), ("",))


def check_moving(hierarchy: Hierarchy, group: str) -> None:
    """Raises OSError where steps may not go from our own group to this one: in v2 that takes the right to write to what
    is above both (cgroup-v2.rst, "Delegation Containment")."""
    if hierarchy.is_v2:
        common = os.path.commonpath((hierarchy.own_dir, os.path.dirname(group)))
        os.close(os.open(f"{common}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC))


def _remove_group(group: str) -> bool:
    """Whether the group is gone; only a busy one is not."""
    try:
        os.rmdir(group)
    except OSError as error:
        return error.errno != errno.EBUSY
    return True


def sweep(own_dir: str) -> None:
    """Remove the groups of pybuild processes that are gone."""
    with contextlib.suppress(OSError):
        for name in os.listdir(own_dir):
            pid = name.removeprefix(PREFIX).partition("-")[0]
            if name.startswith(PREFIX) and pid.isdigit() and not is_running(pid):
                _remove_tree(f"{own_dir}/{name}")


def is_running(pid: str) -> bool:
    """Whether a process is there and no zombie, which one that was killed can stay for long (proc(5), stat)."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(") ")[2][:1] not in ("Z", "X")
    except OSError:
        return False


def read(path: str) -> str:
    """The text of a control file. Raises OSError."""
    with open(path, encoding="ascii") as file:
        return file.read()


def write(path: str, text: str) -> None:
    """Write to a control file in one go. Raises OSError."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def _remove_tree(group: str) -> None:
    with contextlib.suppress(OSError):
        for directory, _, _ in os.walk(group, topdown=False):
            os.rmdir(directory)
