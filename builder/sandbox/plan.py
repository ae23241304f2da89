"""From a ProcessSpec to the operations that make its sandbox, in their order. Values only; nothing is done here.

Runs under `python -I -S`.
"""

from __future__ import annotations

import base64
import posixpath
import socket

from builder.errors import BuildError
from builder.sandbox import capabilities, mounts, network, seccomp
from builder.sandbox import filesystems as fs
from builder.sandbox import operations as ops
from builder.sandbox import process as proc
from builder.sandbox.cgroup import Hierarchy
from builder.sandbox.device_nodes import AddDevices
from builder.sandbox.spec import DEFAULT_HOSTNAME, Mount, ProcessSpec, RootMount
from cache.namedtuple import NamedTuple

_READ_BY_PROGRAMS = {"cpu", "cpuacct", "cpuset", "memory", "pids"}
TTY_GROUP = 5
_SAFE = fs.NOSUID | fs.NODEV | fs.NOEXEC


class Surroundings(NamedTuple):
    """What the launcher knows before a step is asked for."""

    hierarchies: tuple[Hierarchy, ...]
    groups: tuple[str, ...]
    """Control group directories of this step."""
    guards_devices: bool
    insecure: bool
    permitted: int
    """The launcher's own capabilities: a step cannot have more."""
    binds_devices: bool = False
    """Whether no device can be made, as in a user namespace below the machine's."""
    has_tty_group: bool = True
    """Whether the group that owns terminals, 5, is there."""


def preparation(surroundings: Surroundings) -> tuple[ops.Operation, ...]:
    """What every step begins with, whatever it is: done ahead, so that a step only waits for the rest."""
    # The cgroup namespace has its root wherever the process is when it is made.
    join = [ops.JoinCgroups(tuple(f"{group}/cgroup.procs" for group in surroundings.groups))]
    pts_options: fs.Options = (("newinstance", ""), ("ptmxmode", "0666"), ("mode", "0620"))
    if surroundings.has_tty_group:
        pts_options = (*pts_options, ("gid", str(TTY_GROUP)))
    planned: list[ops.Operation] = [
        *(join if surroundings.groups else []),
        ops.Unshare(("mount", "uts", "ipc", "cgroup")),
        fs.MakeScratch(),
        fs.MountFilesystem("proc", "proc", (), _SAFE),
        fs.MakeDevices(has_loop_devices=surroundings.insecure, is_bound=surroundings.binds_devices),
        fs.MountFilesystem("devpts", "dev/pts", pts_options, fs.NOSUID | fs.NOEXEC),
        fs.MountFilesystem("mqueue", "dev/mqueue", (), _SAFE),
    ]
    if surroundings.hierarchies:
        mounted = _cgroup_mounts(surroundings.hierarchies)
        planned.append(fs.MountCgroupView("cgroup", mounted, _SAFE | _protected(surroundings)))
    if not surroundings.insecure:
        planned += [fs.MaskPaths(fs.MASKED_IN_PROC), fs.ProtectPaths(fs.READ_ONLY_PATHS)]
    return (*planned, proc.StartSession())


def plan(
    spec: ProcessSpec, root: RootMount, surroundings: Surroundings, control: socket.socket
) -> tuple[ops.Operation, ...]:
    """The operations that follow the preparation. Raises BuildError for a spec that no sandbox can satisfy."""
    _check(spec)
    return (
        *([ops.RestartClocks()] if spec.restarts_clocks else []),
        *_network(spec),
        ops.MountRoot(root, device_attributes(surroundings)),
        *_system_mounts(spec, surroundings),
        *_devices(spec, surroundings),
        *_step_mounts(spec),
        *_restrictions(spec, root),
        ops.Pivot(),
        *_process(spec, surroundings, control),
    )


def _check(spec: ProcessSpec) -> None:
    if spec.network not in network.MODES:
        raise BuildError(f'unknown network mode "{spec.network}"', hint=f"expected {' or '.join(network.MODES)}")
    for mount in spec.mounts:
        if mount.kind not in mounts.KINDS:
            raise BuildError(f'unknown mount kind "{mount.kind}"', hint=f"expected one of {', '.join(mounts.KINDS)}")


def device_attributes(surroundings: Surroundings) -> int:
    """MOUNT_ATTR_NODEV for everything writable, unless control groups or trust make it needless."""
    return 0 if surroundings.insecure or surroundings.guards_devices else fs.NODEV


def _protected(surroundings: Surroundings) -> int:
    return 0 if surroundings.insecure else fs.READ_ONLY


def _network(spec: ProcessSpec) -> list[ops.Operation]:
    if spec.network == network.BRIDGE:
        return [ops.JoinNetwork(spec.hands_over_network)]
    return [ops.Unshare(("network",)), ops.BringUpLoopback()] if spec.network == network.NONE else []


def _system_mounts(spec: ProcessSpec, surroundings: Surroundings) -> list[ops.Operation]:
    shm_options = (("mode", "1777"), ("size", str(spec.shm_size)))
    planned: list[ops.Operation] = [
        fs.MoveFromSkeleton("proc", "proc"),
        fs.MoveFromSkeleton("dev", "dev"),
        fs.MountFilesystem("tmpfs", "dev/shm", shm_options, _SAFE),
        # Shows the network namespace of the process that mounts it.
        fs.MountFilesystem("sysfs", "sys", (), _SAFE | _protected(surroundings)),
    ]
    if surroundings.hierarchies:
        planned.append(fs.MoveFromSkeleton("cgroup", "sys/fs/cgroup"))
    return planned


def _devices(spec: ProcessSpec, surroundings: Surroundings) -> list[ops.Operation]:
    nodes = tuple(device for device in spec.devices if device.path)
    return [AddDevices(nodes, is_bound=surroundings.binds_devices)] if nodes else []


def _cgroup_mounts(hierarchies: tuple[Hierarchy, ...]) -> tuple[tuple[str, str, fs.Options], ...]:
    """What programs read their limits from; each further v1 hierarchy would cost every step a mount."""
    mounted: list[tuple[str, str, fs.Options]] = []
    for hierarchy in hierarchies:
        if hierarchy.name and not _READ_BY_PROGRAMS.intersection(hierarchy.controllers):
            continue
        options = [tuple(name.split("=", 1)) if "=" in name else (name, "") for name in hierarchy.controllers]
        pairs = tuple((key, value) for key, value in options)
        mounted.append((hierarchy.name, "cgroup2" if hierarchy.is_v2 else "cgroup", pairs))
    return tuple(mounted)


def _step_mounts(spec: ProcessSpec) -> list[ops.Operation]:
    """The step's own mounts, outer ones first."""
    numbered = sorted(enumerate(spec.mounts), key=lambda entry: _parts(entry[1]))
    return [mounts.AttachMount(mount, number) for number, mount in numbered]


def _parts(mount: Mount) -> list[str]:
    return posixpath.normpath(f"/{mount.target}").split("/")


def _restrictions(spec: ProcessSpec, root: RootMount) -> list[ops.Operation]:
    planned: list[ops.Operation] = []
    if not spec.insecure:
        planned.append(fs.MaskPaths((*fs.MASKED_IN_SYS, *fs.thermal_paths())))
    if spec.terminal:
        planned.append(proc.OpenTerminal())
    if root.read_only or spec.read_only_root:
        planned.append(ops.ProtectRoot())
    return planned


def _process(spec: ProcessSpec, surroundings: Surroundings, control: socket.socket) -> list[ops.Operation]:
    names = capabilities.NAMES if spec.insecure else spec.capabilities
    mask = capabilities.mask_of(names) & surroundings.permitted
    planned: list[ops.Operation] = [
        ops.SetHostname(spec.hostname or DEFAULT_HOSTNAME),
        proc.LookUpUser(spec.user, spec.env, spec.add_home, spec.groups),
        proc.EnterDirectory(spec.cwd or "/"),
        proc.ConnectStreams(),
        proc.SetLimits(spec.rlimits, spec.umask),
    ]
    if spec.seccomp_filter:
        planned.append(proc.InstallSeccomp(base64.b64decode(spec.seccomp_filter)))
    elif spec.seccomp and not spec.insecure:
        planned.append(proc.InstallSeccomp(seccomp.compile_default(frozenset(names))))
    return [
        *planned,
        proc.DropPrivileges(mask, spec.no_new_privileges),
        proc.AnnounceStart(control),
        proc.Execute(spec.argv),
    ]
