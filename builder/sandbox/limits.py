"""Limits of a step as the files of its control groups, and what the groups say afterwards.

Sources: Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/{memory,cpusets}.rst. Runs under `python -I -S`.
"""

from __future__ import annotations

import contextlib
import errno
import os

from builder.errors import SandboxError
from builder.sandbox.cgroup import read, write
from builder.sandbox.spec import Limits
from cache.namedtuple import NamedTuple

_PERIOD = 100_000
"""The kernel's default, in microseconds."""
_HINTS = {
    "memory-swap": "the kernel counts swap only when it was started with swapaccount=1",
    "blkio-weight": "the disk's I/O scheduler has to know weights: bfq, or io.cost of cgroup v2",
}
"""What is missing where the kernel does not have a file."""
_WHOLE_DISKS = "the kernel limits whole disks: name the disk that the partition is on"
_UNFILLED = ("cpuset.cpus", "cpuset.mems")


class Setting(NamedTuple):
    """One limit: how the user calls it, the controller that keeps it (by its name in v1), the file and what to write
    there, and other files that some kernels have instead. Where one that is optional has no file, it is left."""

    name: str
    controller: str
    file: str
    value: str
    others: tuple[tuple[str, str], ...] = ()
    is_optional: bool = False


def settings(limits: Limits, *, is_v2: bool) -> list[Setting]:
    """What to write for the limits, in this order."""
    found = _memory(limits, is_v2) + _cpu(limits, is_v2)
    for name, value in (("cpus", limits.cpuset_cpus), ("mems", limits.cpuset_mems)):
        if value:
            found.append(Setting(f"cpuset-{name}", "cpuset", f"cpuset.{name}", value))
    if limits.pids is not None:
        found.append(Setting("pids-limit", "pids", "pids.max", "max" if limits.pids == -1 else str(limits.pids)))
    return found + _io(limits, is_v2)


_RATES = {"rbps": "read_bps", "wbps": "write_bps", "riops": "read_iops", "wiops": "write_iops"}


def _io(limits: Limits, is_v2: bool) -> list[Setting]:
    found = []
    if limits.io_weight is not None:
        weight = limits.io_weight
        file, other = ("io.bfq.weight", "io.weight") if is_v2 else ("blkio.weight", "blkio.bfq.weight")
        value = f"default {1 + (weight - 10) * 9999 // 990}" if is_v2 else str(weight)
        found.append(Setting("blkio-weight", "blkio", file, str(weight), ((other, value),)))
    for device, kind, rate in limits.io_rates:
        name = _RATES[kind]
        file, value = ("io.max", f"{kind}={rate}") if is_v2 else (f"blkio.throttle.{name}_device", str(rate))
        found.append(Setting(f"device-{name.replace('_', '-')}", "blkio", file, f"{device} {value}"))
    return found


def _memory(limits: Limits, is_v2: bool) -> list[Setting]:
    found = []
    if limits.memory is not None:
        file = "memory.max" if is_v2 else "memory.limit_in_bytes"
        found.append(Setting("memory", "memory", file, str(limits.memory)))
    # As much swap as memory unless it is said, as with Docker: what is swapped out would not count otherwise.
    both = 2 * limits.memory if limits.memory_swap is None and limits.memory else limits.memory_swap
    if both is not None:
        # One counts memory and swap together, the other swap alone.
        value = str(both - (limits.memory or 0)) if is_v2 else str(both)
        value = ("max" if is_v2 else "-1") if both == -1 else value
        file = "memory.swap.max" if is_v2 else "memory.memsw.limit_in_bytes"
        found.append(Setting("memory-swap", "memory", file, value, is_optional=limits.memory_swap is None))
    return found


def _cpu(limits: Limits, is_v2: bool) -> list[Setting]:
    found = []
    if limits.cpu_shares is not None:
        weight = 1 + (limits.cpu_shares - 2) * 9999 // 262142
        file, value = ("cpu.weight", weight) if is_v2 else ("cpu.shares", limits.cpu_shares)
        found.append(Setting("cpu-shares", "cpu", file, str(value)))
    if is_v2 and (limits.cpu_quota is not None or limits.cpu_period is not None):
        quota = "max" if limits.cpu_quota in (None, -1) else str(limits.cpu_quota)
        name = "cpu-period" if limits.cpu_quota is None else "cpu-quota"
        found.append(Setting(name, "cpu", "cpu.max", f"{quota} {limits.cpu_period or _PERIOD}"))
    if not is_v2 and limits.cpu_period is not None:
        found.append(Setting("cpu-period", "cpu", "cpu.cfs_period_us", str(limits.cpu_period)))
    if not is_v2 and limits.cpu_quota is not None:
        found.append(Setting("cpu-quota", "cpu", "cpu.cfs_quota_us", str(limits.cpu_quota)))
    return found


def apply(setting: Setting, group_dir: str) -> None:
    """Set one limit on a group. Raises SandboxError when the kernel refuses it."""
    refused: OSError | None = None
    for file, value in ((setting.file, setting.value), *setting.others):
        try:
            write(f"{group_dir}/{file}", value)
        except FileNotFoundError as error:
            refused = refused or error
        except OSError as error:
            refused = error
            break
        else:
            if setting.controller == "cpuset":
                _check_cpuset(setting, group_dir)
            return
    assert refused is not None
    if setting.is_optional and isinstance(refused, FileNotFoundError):
        return
    hint = _HINTS.get(setting.name) if isinstance(refused, FileNotFoundError) else None
    hint = _WHOLE_DISKS if refused.errno == errno.ENODEV else hint
    reason = os.strerror(refused.errno or 0).lower()
    raise SandboxError(
        f"{setting.name}={setting.value} cannot be set: {setting.file}: {reason}", hint=hint
    ) from refused


def _check_cpuset(setting: Setting, group_dir: str) -> None:
    """In v2 a group may ask for what there is not, and gets the rest, or all that the group above has."""
    path = f"{group_dir}/{setting.file}.effective"
    if os.path.exists(path) and _members(effective := read(path).strip()) != _members(setting.value):
        raise SandboxError(f"{setting.name}={setting.value} cannot be set: of these there are {effective} here")


def _members(numbers: str) -> set[int]:
    """Of a list like `0-2,4`."""
    ranges = (part.partition("-") for part in numbers.split(",") if part)
    return {each for low, _, high in ranges for each in range(int(low), int(high or low) + 1)}


def fill_cpuset(group_dir: str) -> None:
    """A new group of v1 has no processors and no memory nodes, and so takes no process: give it its parent's."""
    for file in _UNFILLED:
        if not read(f"{group_dir}/{file}").strip():
            write(f"{group_dir}/{file}", read(f"{os.path.dirname(group_dir)}/{file}"))


def killed_for_memory(groups: tuple[str, ...]) -> bool:
    """Whether the kernel has killed a process of these groups because they were out of memory."""
    for group in groups:
        for file in ("memory.events", "memory.oom_control"):
            with contextlib.suppress(OSError):
                rows = dict(line.split(" ", 1) for line in read(f"{group}/{file}").splitlines())
                if rows.get("oom_kill", "0") != "0":
                    return True
    return False
