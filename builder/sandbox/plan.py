"""From a ProcessSpec to the operations that make its sandbox, in their order. Values only; nothing is done here.

Runs under `python -I -S`.
"""

from __future__ import annotations

import posixpath
from typing import NamedTuple

from builder.errors import BuildError
from builder.sandbox import capabilities, mounts, network, seccomp, syscalls
from builder.sandbox import filesystems as fs
from builder.sandbox import operations as ops
from builder.sandbox import process as proc
from builder.sandbox.cgroup import Hierarchy
from builder.sandbox.spec import DEFAULT_HOSTNAME, Mount, ProcessSpec, RootMount

_READ_BY_PROGRAMS = {"cpu", "cpuacct", "cpuset", "memory", "pids"}
_SAFE = fs.NOSUID | fs.NODEV | fs.NOEXEC


class Surroundings(NamedTuple):
    """What the launcher knows and a spec does not."""

    hierarchies: tuple[Hierarchy, ...]
    groups: tuple[str, ...]
    """Control group directories of this step."""
    guards_devices: bool
    permitted: int
    """The launcher's own capabilities: a step cannot have more."""
    etc_files: tuple[tuple[str, str], ...]
    """Name on the launcher's tmpfs and target of the files for /etc."""


def plan(spec: ProcessSpec, root: RootMount, surroundings: Surroundings) -> tuple[ops.Operation, ...]:
    """The operations, first to last. Raises BuildError for a spec that no sandbox can satisfy."""
    _check(spec)
    return (
        *_namespaces(spec, surroundings),
        ops.MountRoot(root, device_attributes(spec, surroundings)),
        *_system_mounts(spec, surroundings),
        *_step_mounts(spec, surroundings),
        *_restrictions(spec, root),
        ops.Pivot(),
        *_process(spec, surroundings),
    )


def _check(spec: ProcessSpec) -> None:
    if spec.network not in network.MODES:
        raise BuildError(f'unknown network mode "{spec.network}"', hint=f"expected {' or '.join(network.MODES)}")
    for mount in spec.mounts:
        if mount.kind not in mounts.KINDS:
            raise BuildError(f'unknown mount kind "{mount.kind}"', hint=f"expected one of {', '.join(mounts.KINDS)}")


def device_attributes(spec: ProcessSpec, surroundings: Surroundings) -> int:
    """MOUNT_ATTR_NODEV for everything writable, unless control groups or trust make it needless."""
    return 0 if spec.insecure or surroundings.guards_devices else fs.NODEV


def _namespaces(spec: ProcessSpec, surroundings: Surroundings) -> list[ops.Operation]:
    names = ["mount", "uts", "ipc", "cgroup"] + (["network"] if spec.network == network.NONE else [])
    planned: list[ops.Operation] = [ops.Unshare(tuple(names))]
    if surroundings.groups:
        # Before the cgroup namespace is made, whose root is wherever the process is then.
        planned.insert(0, ops.JoinCgroups(tuple(f"{group}/cgroup.procs" for group in surroundings.groups)))
    if spec.network == network.NONE:
        planned.append(ops.BringUpLoopback())
    return planned


def _system_mounts(spec: ProcessSpec, surroundings: Surroundings) -> list[ops.Operation]:
    pts_options = (("newinstance", ""), ("ptmxmode", "0666"), ("mode", "0620"), ("gid", "5"))
    shm_options = (("mode", "1777"), ("size", str(spec.shm_size)))
    protected = 0 if spec.insecure else syscalls.MOUNT_ATTR_RDONLY
    planned: list[ops.Operation] = [
        fs.MountFilesystem("proc", "proc", (), _SAFE),
        fs.MakeDevices(has_loop_devices=spec.insecure),
        fs.MountFilesystem("devpts", "dev/pts", pts_options, fs.NOSUID | fs.NOEXEC),
        fs.MountFilesystem("tmpfs", "dev/shm", shm_options, _SAFE),
        fs.MountFilesystem("mqueue", "dev/mqueue", (), _SAFE),
        fs.MountFilesystem("sysfs", "sys", (), _SAFE | protected),
    ]
    if surroundings.hierarchies:
        planned.append(fs.MountCgroupView(_cgroup_mounts(surroundings.hierarchies), _SAFE | protected))
    return planned


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


def _step_mounts(spec: ProcessSpec, surroundings: Surroundings) -> list[ops.Operation]:
    """The step's own mounts, outer ones first; its own /etc/hosts goes before the launcher's."""
    numbered = sorted(enumerate(spec.mounts), key=lambda entry: _parts(entry[1]))
    taken = {posixpath.normpath(f"/{mount.target}") for mount in spec.mounts}
    planned: list[ops.Operation] = [
        mounts.BindEtcFile(name, target) for name, target in surroundings.etc_files if target not in taken
    ]
    return planned + [mounts.AttachMount(mount, index) for index, mount in numbered]


def _parts(mount: Mount) -> list[str]:
    return posixpath.normpath(f"/{mount.target}").split("/")


def _restrictions(spec: ProcessSpec, root: RootMount) -> list[ops.Operation]:
    planned: list[ops.Operation] = []
    if not spec.insecure:
        planned += [fs.MaskPaths(fs.MASKED_PATHS), fs.ProtectPaths(fs.READ_ONLY_PATHS)]
    if spec.terminal:
        planned.append(proc.OpenTerminal())
    if root.read_only or spec.read_only_root:
        planned.append(ops.ProtectRoot())
    return planned


def _process(spec: ProcessSpec, surroundings: Surroundings) -> list[ops.Operation]:
    names = capabilities.NAMES if spec.insecure else spec.capabilities
    mask = capabilities.mask_of(names) & surroundings.permitted
    planned: list[ops.Operation] = [
        ops.SetHostname(spec.hostname or DEFAULT_HOSTNAME),
        proc.StartSession(),
        proc.LookUpUser(),
        proc.EnterDirectory(spec.cwd or "/"),
        proc.ConnectStreams(),
        proc.SetLimits(spec.rlimits, spec.umask),
    ]
    if spec.seccomp and not spec.insecure:
        planned.append(proc.InstallSeccomp(seccomp.compile_default(frozenset(names))))
    planned += [
        proc.DropPrivileges(mask, spec.no_new_privileges),
        proc.AnnounceStart(),
        proc.Execute(spec.argv),
    ]
    return planned
