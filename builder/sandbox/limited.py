"""Control groups of steps with limits or with a parent that the user chose, in every hierarchy that is needed for it.

    <hierarchy>/<our own group, or the chosen parent>/pybuild-<pid>-<random>-limited/<class>/<step>

The limits of a whole build are the first one's, those of a step the last one's. In v2 only a group without processes
hands controllers down: where ours has some, which `delegation` could not set apart, the new one is made below the next
above that does. Runs under `python -I -S`.
"""

from __future__ import annotations

import contextlib
import os
import zlib
from collections.abc import Iterable

from builder.errors import SandboxError
from builder.sandbox import device_rules
from builder.sandbox.cgroup import GUARDED, OPEN, PREFIX, Hierarchy, check_moving, read, sweep, write
from builder.sandbox.device_nodes import numbers_of
from builder.sandbox.device_rules import DeviceRule
from builder.sandbox.limits import apply, fill_cpuset, settings
from builder.sandbox.refusal import Refusal, refused
from builder.sandbox.spec import Limits, ProcessSpec
from cache.namedtuple import NamedTuple

_RESTRICTING = {"blkio", "cpu", "cpuset", "memory", "pids"}
_NAMES_IN_V2 = {"blkio": "io"}
"""Controllers go by their names in v1 otherwise."""
_COUNTING = {"io", "memory"}
"""What tells the peak and the transfers of a step, besides keeping limits."""


def class_of(spec: ProcessSpec) -> str:
    """The class of a step's group: one of its own for each set of devices, which a rule above would keep shut."""
    if spec.insecure or not spec.devices:
        return OPEN if spec.insecure else GUARDED
    return f"{GUARDED}{zlib.crc32(repr(spec.devices).encode('utf-8', 'replace')):08x}"


def controllers_of(spec: ProcessSpec) -> set[str]:
    """The controllers, by their names in v1, that keep the limits of a step and of its build."""
    both = (*settings(spec.limits, is_v2=False), *settings(spec.build_limits, is_v2=False))
    return {setting.controller for setting in both}


def names_in_v2(controllers: Iterable[str]) -> set[str]:
    """What v2 calls them."""
    return {_NAMES_IN_V2.get(name, name) for name in controllers}


class Limited(NamedTuple):
    """The groups of one step, and whether they keep it from opening the host's devices."""

    groups: tuple[str, ...]
    guards_devices: bool


class LimitedGroups:
    """Makes groups that hold a step to its limits; whoever asked removes them."""

    def __init__(self, launcher_pid: int, hierarchies: tuple[Hierarchy, ...]) -> None:
        self._name = f"{PREFIX}{launcher_pid}-{os.urandom(4).hex()}"
        self._hierarchies = sorted(hierarchies, key=lambda hierarchy: not hierarchy.is_v2)
        self._guarded: dict[str, bool] = {}
        self._made: list[str] = []

    def create(self, step: int, kind: str, spec: ProcessSpec) -> Limited:
        """New groups with the spec's limits, below its parent. Raises SandboxError for what cannot be set."""
        groups: list[str] = []
        missing = controllers_of(spec)
        guarded, unused = False, None
        try:
            for hierarchy in self._hierarchies:
                controllers = missing & _controllers(hierarchy)
                guards = kind != OPEN and not guarded and (hierarchy.is_v2 or "devices" in hierarchy.controllers)
                is_wanted = bool(spec.cgroup_parent) and (hierarchy.is_v2 or _RESTRICTING & {*hierarchy.controllers})
                if not (controllers or guards or is_wanted):
                    continue
                try:
                    place = self._place(hierarchy, kind, spec, controllers)
                except SandboxError as error:
                    if controllers or (is_wanted and _RESTRICTING & _controllers(hierarchy)):
                        raise
                    # Where no group can be made, mount options keep devices shut; and v2 beside v1 has no controllers
                    # that hold anything back.
                    unused = error if is_wanted else unused
                    continue
                guarded = guarded or (guards and self._guard(place, hierarchy, spec))
                groups.append(_group(f"{place}/{step}", hierarchy))
                _apply(spec.limits, hierarchy, controllers, groups[-1])
                missing -= controllers
            if missing:
                raise SandboxError(
                    f"no limit on {', '.join(sorted(missing))} can be set: no control group here has that controller",
                    hint="mount it, or leave out the limit",
                )
            if unused is not None and not groups:
                raise unused
        except BaseException:
            for group in groups:
                os.rmdir(group)
            raise
        return Limited(tuple(groups), guarded)

    def close(self) -> None:
        """Remove what was made for the steps' groups to be in, unless others use it by now."""
        for made in reversed(self._made):
            with contextlib.suppress(OSError):
                os.rmdir(made)

    def _place(self, hierarchy: Hierarchy, kind: str, spec: ProcessSpec, controllers: set[str]) -> str:
        """The group of a class of steps, with these controllers for those below it."""
        wanted = names_in_v2(controllers) if hierarchy.is_v2 else set()
        refusals: list[Refusal] = []
        for base in _bases(hierarchy, spec.cgroup_parent, controllers):
            top = f"{base}/{self._name}-limited"
            highest = hierarchy.root_dir if spec.cgroup_parent else base
            try:
                check_moving(hierarchy, top)
                for group in (*_ancestors(base, highest), top, f"{top}/{kind}"):
                    is_new = self._make(group, hierarchy)
                    if is_new and group == top:
                        _apply(spec.build_limits, hierarchy, controllers, top)
                    _hand_down(group, wanted)
            except OSError as error:
                refusals.append(Refusal(base, error.errno or 0, wanted - _offered(base), hierarchy.is_v2))
                continue
            return f"{top}/{kind}"
        raise refused(wanted or controllers, refusals)

    def _make(self, group: str, hierarchy: Hierarchy) -> bool:
        """Make a group for others to be in unless it is there. Raises OSError."""
        if os.path.isdir(group):
            return False
        sweep(os.path.dirname(group))
        os.mkdir(group, 0o755)
        self._made.append(group)
        if "cpuset" in hierarchy.controllers:
            fill_cpuset(group)
        return True

    def _guard(self, place: str, hierarchy: Hierarchy, spec: ProcessSpec) -> bool:
        if place not in self._guarded:
            rules = [DeviceRule(*numbers_of(device), device.permissions) for device in spec.devices if device.path]
            self._guarded[place] = device_rules.guard(place, is_v2=hierarchy.is_v2, granted=rules)
        return self._guarded[place]


def _bases(hierarchy: Hierarchy, parent: str, controllers: set[str]) -> list[str]:
    if parent:
        return [os.path.normpath(f"{hierarchy.root_dir}/{parent}")]
    if hierarchy.is_v2 and controllers:
        return _ancestors(hierarchy.own_dir, hierarchy.root_dir)[::-1]
    return [hierarchy.own_dir]


def _ancestors(base: str, highest: str) -> list[str]:
    """From `highest` down to `base`."""
    found = [base]
    while found[-1] != highest and found[-1].startswith(f"{highest}/"):
        found.append(os.path.dirname(found[-1]))
    return found[::-1]


def _apply(limits: Limits, hierarchy: Hierarchy, controllers: set[str], group: str) -> None:
    for setting in settings(limits, is_v2=hierarchy.is_v2):
        if setting.controller in controllers:
            apply(setting, group)


def _hand_down(group: str, controllers: set[str]) -> None:
    """Let groups below one of v2 have controllers. Raises OSError, EBUSY where the group holds processes itself."""
    if not controllers:
        return
    missing = controllers.difference(read(f"{group}/cgroup.subtree_control").split())
    if missing:
        missing |= _COUNTING & _offered(group)
        write(f"{group}/cgroup.subtree_control", " ".join(f"+{name}" for name in sorted(missing)))


def _controllers(hierarchy: Hierarchy) -> set[str]:
    if not hierarchy.is_v2:
        return {*hierarchy.controllers}
    offered = _offered(hierarchy.root_dir)
    return offered | {name for name, other in _NAMES_IN_V2.items() if other in offered}


def _offered(group: str) -> set[str]:
    with contextlib.suppress(OSError):
        return {*read(f"{group}/cgroup.controllers").split()}
    return set()


def _group(path: str, hierarchy: Hierarchy) -> str:
    try:
        os.mkdir(path, 0o755)
        if "cpuset" in hierarchy.controllers:
            fill_cpuset(path)
    except OSError as error:
        raise SandboxError(f"control group {path} cannot be made: {os.strerror(error.errno or 0).lower()}") from error
    return path
