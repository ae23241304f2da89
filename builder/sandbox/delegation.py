"""Room in our own control group of v2 for groups of steps that have limits.

Only a group without processes hands controllers down (cgroup-v2.rst, "No Internal Process Constraint"). So the
processes of a group that is ours to divide stay in one below it while a build has limits:

    <our own group>/pybuild-<pid>-<random>-apart

Ours to divide is a group that holds no other processes, and one that was delegated: by systemd, by the owner of the
group above, by whoever made the container. Runs in pybuild's own process, which sees the pids of all
of them.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Collection

from builder.sandbox.cgroup import APART, PREFIX, Hierarchy, find_hierarchies, is_running, read, write
from builder.sandbox.spec import ProcessSpec

_MOVING_TRIES = 20
"""Processes start others meanwhile."""
_DELEGATED = ("user.delegate", "trusted.delegate")
"""Attributes that systemd marks the groups with whose inside it leaves alone (systemd.resource-control(5))."""


class Room:
    """What this process does to its own group; safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._own_dir = ""

    def make(self, spec: ProcessSpec) -> None:
        """Let our own group hand down what the limits of a step need, if it has that; else do nothing: whoever makes
        the step's group is told why. Idempotent."""
        from builder.sandbox.limited import controllers_of, names_in_v2

        with self._lock:
            controllers = names_in_v2(controllers_of(spec))
            own = next((hierarchy for hierarchy in find_hierarchies() if hierarchy.is_v2), None)
            if controllers and own is not None and not self._own_dir and _is_above(own, spec.cgroup_parent):
                self._own_dir = own.own_dir
                _set_apart(own, controllers)

    def give_back(self) -> None:
        """Have the processes where they were, also those that a killed build set apart, unless others have their groups
        beside them by now: then the build that ends last does it, or nobody. Idempotent."""
        own_dir, self._own_dir = self._own_dir, ""
        with contextlib.suppress(OSError):
            names = [entry.name for entry in os.scandir(own_dir) if entry.is_dir()] if own_dir else []
            apart = [name for name in names if _is_left(name)]
            if not apart or not all(name.startswith(PREFIX) for name in names):
                return
            if handed_down := _controllers(own_dir, "subtree_control"):
                # There was none before: it held processes.
                write(f"{own_dir}/cgroup.subtree_control", " ".join(f"-{name}" for name in sorted(handed_down)))
            for name in apart:
                if _move(f"{own_dir}/{name}", own_dir):
                    os.rmdir(f"{own_dir}/{name}")


def _set_apart(own: Hierarchy, controllers: Collection[str]) -> None:
    with contextlib.suppress(OSError):
        if not _is_divisible(own, controllers):
            return
        apart_dir = f"{own.own_dir}/{PREFIX}{os.getpid()}-{os.urandom(4).hex()}{APART}"
        os.mkdir(apart_dir, 0o755)
        if not _move(own.own_dir, apart_dir):
            _move(apart_dir, own.own_dir)
            os.rmdir(apart_dir)


def _is_above(own: Hierarchy, parent: str) -> bool:
    """Whether the groups of steps are to be below our own."""
    base = os.path.normpath(f"{own.root_dir}/{parent}") if parent else own.own_dir
    return os.path.commonpath((base, own.own_dir)) == own.own_dir


def _is_left(name: str) -> bool:
    """Whether a group was set apart by this process, or by one that is gone."""
    pid = name.removeprefix(PREFIX).partition("-")[0]
    return name.startswith(PREFIX) and name.endswith(APART) and (pid == str(os.getpid()) or not is_running(pid))


def _is_divisible(own: Hierarchy, controllers: Collection[str]) -> bool:
    """Whether the processes of our own group are in the way, and may be moved. Raises OSError."""
    # The machine's own root has no type, and hands controllers down whatever is in it.
    if not os.path.exists(f"{own.own_dir}/cgroup.type") or not os.access(f"{own.own_dir}/cgroup.procs", os.W_OK):
        return False
    if not _controllers(own.own_dir, "controllers").issuperset(controllers):
        return False
    pids = read(f"{own.own_dir}/cgroup.procs").split()
    return bool(pids) and (_is_delegated(own) or all(map(_is_ours, pids)))


def _is_delegated(own: Hierarchy) -> bool:
    if own.own_dir == own.root_dir or not os.access(os.path.dirname(own.own_dir), os.W_OK):
        return True
    for name in _DELEGATED:
        with contextlib.suppress(OSError):
            if os.getxattr(own.own_dir, name) == b"1":
                return True
    return False


def _is_ours(pid: str) -> bool:
    """Whether a process is this one or was started by it; 0 is one that is not seen from here."""
    while pid not in ("0", "1", str(os.getpid())):
        try:
            with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
                pid = file.read().rpartition(") ")[2].split()[1]
        except (OSError, IndexError):
            return True  # it has ended
    return pid == str(os.getpid())


def _move(source_dir: str, target_dir: str) -> bool:
    """Move all processes of a group to another; whether none is left."""
    for _ in range(_MOVING_TRIES):
        pids = read(f"{source_dir}/cgroup.procs").split()
        if not pids:
            return True
        for pid in pids:
            try:
                write(f"{target_dir}/cgroup.procs", pid)
            except ProcessLookupError:
                continue
            except OSError:
                return False
    return False


def _controllers(group_dir: str, file: str) -> frozenset[str]:
    return frozenset(read(f"{group_dir}/cgroup.{file}").split())
