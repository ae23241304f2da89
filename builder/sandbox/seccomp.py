"""Docker's default seccomp profile as a BPF program (seccomp(2), Documentation/userspace-api/seccomp_filter.rst).

Owns what is allowed and the small assembler. What is not allowed fails with EPERM; calls that are newer than the
profile fail with ENOSYS, so that a C library falls back to what it used before. Numbers are found by binary search.
Runs under `python -I -S`.
"""

from __future__ import annotations

import errno
import functools
import os
import struct
from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias

from builder.errors import SandboxError
from builder.sandbox import seccomp_numbers

Code: TypeAlias = list[tuple[int, int, int, int]]
"""Instructions (code, jump if true, jump if false, constant) that only jump forward and end in a return."""

LOAD, RETURN, JUMP = 0x20, 0x06, 0x05
IF_EQUAL, IF_AT_LEAST, IF_ANY_BIT = 0x15, 0x35, 0x45
_NUMBER, _MACHINE, _ARGUMENT_0 = 0, 4, 16
ALLOW, ERRNO, KILL = 0x7FFF0000, 0x00050000, 0x80000000

_CLONE_NEW_ANYTHING = 0x7E020000
_X32_BIT = 0x40000000
_PRIVATE = 0xF0000
_PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)
_FORBIDDEN_FAMILIES = (38, 40)
"""AF_ALG opens the kernel's crypto code to everybody, AF_VSOCK reaches past every namespace."""

MACHINES: dict[str, tuple[tuple[int, str], ...]] = {
    "x86_64": ((0xC000003E, "x86_64"), (0x40000003, "i386")),
    "aarch64": ((0xC00000B7, "generic"), (0x40000028, "arm")),
    "riscv64": ((0xC00000F3, "generic"),),
    "loongarch64": ((0xC0000102, "generic"),),
}
"""AUDIT_ARCH_* of the calls a machine can make, and their number table."""

BY_CAPABILITY = {
    "CAP_DAC_READ_SEARCH": "open_by_handle_at",
    "CAP_SYS_ADMIN": "bpf clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr "
    "lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount open_tree perf_event_open quotactl quotactl_fd "
    "setdomainname sethostname setns syslog umount umount2 unshare",
    "CAP_SYS_BOOT": "reboot",
    "CAP_SYS_CHROOT": "chroot",
    "CAP_SYS_MODULE": "delete_module init_module finit_module",
    "CAP_SYS_PACCT": "acct",
    "CAP_SYS_PTRACE": "kcmp pidfd_getfd process_madvise",
    "CAP_SYS_RAWIO": "iopl ioperm",
    "CAP_SYS_TIME": "settimeofday stime clock_settime clock_settime64",
    "CAP_SYS_TTY_CONFIG": "vhangup",
    "CAP_SYS_NICE": "get_mempolicy mbind set_mempolicy set_mempolicy_home_node",
    "CAP_SYSLOG": "syslog",
    "CAP_BPF": "bpf",
    "CAP_PERFMON": "perf_event_open",
}
"""Calls that need one of their capabilities; every other call in the table is allowed."""


@functools.lru_cache(maxsize=8)
def compile_default(capabilities: frozenset[str], machine: str = os.uname().machine) -> bytes:
    """The profile for a process with these capabilities, as an array of `struct sock_filter`.

    Raises SandboxError on a machine whose system calls the tables do not have.
    """
    if machine not in MACHINES:
        raise SandboxError(f"no seccomp profile for {machine}", hint="steps without a filter need security=insecure")
    bodies = {}
    for _, table in MACHINES[machine]:
        numbers = seccomp_numbers.numbers_of(table)
        newest = newest_of(numbers.values())
        bodies[table] = by_number(_verdicts(numbers, capabilities), newest, refuse(errno.EPERM), refuse(errno.ENOSYS))
    return assemble(machine, bodies)


def assemble(machine: str, bodies: Mapping[str, Code]) -> bytes:
    """What `bodies` decides for each number table, as an array of `struct sock_filter`; other architectures end the
    process."""
    code: Code = [(RETURN, 0, 0, KILL)]
    for audit_arch, table in reversed(MACHINES[machine]):
        if table not in bodies:
            continue
        body = bodies[table]
        if table == "x86_64":
            # x32 calls carry the same AUDIT_ARCH; hardly any kernel has them, so no call is lost by refusing all.
            body = [(LOAD, 0, 0, _NUMBER), *branch(IF_AT_LEAST, _X32_BIT, yes=refuse(errno.ENOSYS), no=body)]
        code = [(LOAD, 0, 0, _MACHINE), *branch(IF_EQUAL, audit_arch, yes=body, no=code)]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)


def newest_of(numbers: Iterable[int]) -> int:
    """The highest number of the common table: some ARM calls have private ones far above it."""
    return max((number for number in numbers if number < _PRIVATE), default=0)


def _verdicts(numbers: Mapping[str, int], capabilities: frozenset[str]) -> dict[int, Code]:
    """What happens to each known number; the rest is refused."""
    guarded = {name for names in BY_CAPABILITY.values() for name in names.split()}
    for capability in capabilities & BY_CAPABILITY.keys():
        guarded -= set(BY_CAPABILITY[capability].split())
    verdicts = {number: RETURN_ALLOW for name, number in numbers.items() if name not in guarded}
    for name, make in _SPECIAL.items():
        if name in numbers and not (name.startswith("clone") and "CAP_SYS_ADMIN" in capabilities):
            verdicts[numbers[name]] = make()
    return verdicts


def by_number(verdicts: Mapping[int, Code], newest: int, unknown: Code, newer: Code) -> Code:
    """`verdicts` by the call's number; `unknown` for gaps up to `newest`, `newer` beyond."""
    return [(LOAD, 0, 0, _NUMBER), *_search(_ranges(verdicts, newest, unknown, newer))]


def _ranges(verdicts: Mapping[int, Code], newest: int, unknown: Code, newer: Code) -> list[tuple[int, Code]]:
    """The first number of each run of equal verdicts, from 0 up."""
    runs: list[tuple[int, Code]] = []
    edges = {0, newest + 1, *verdicts, *(number + 1 for number in verdicts)}
    for start in sorted(edges):
        code = verdicts.get(start, unknown if start <= newest else newer)
        if not runs or runs[-1][1] != code:
            runs.append((start, code))
    return runs


def _search(runs: list[tuple[int, Code]]) -> Code:
    """Binary search of the loaded number among the runs."""
    if len(runs) == 1:
        return runs[0][1]
    middle = len(runs) // 2
    return branch(IF_AT_LEAST, runs[middle][0], yes=_search(runs[middle:]), no=_search(runs[:middle]))


def branch(test: int, constant: int, *, yes: Code, no: Code) -> Code:
    """`yes` if the test holds, else `no`; a long way goes over an unconditional jump, as a conditional has 8 bits."""
    if len(no) <= 255:
        return [(test, len(no), 0, constant), *no, *yes]
    return [(test, 0, 1, constant), (JUMP, 0, 0, len(no)), *no, *yes]


def refuse(error: int) -> Code:
    """The call fails with this errno."""
    return [(RETURN, 0, 0, ERRNO | error)]


RETURN_ALLOW: Code = [(RETURN, 0, 0, ALLOW)]


def _by_first_argument(constants: tuple[int, ...], *, found: Code, other: Code) -> Code:
    """A decision on the low half of the first argument, which is all that the kernel reads of an int."""
    code = other
    for constant in reversed(constants):
        code = branch(IF_EQUAL, constant, yes=found, no=code)
    return [(LOAD, 0, 0, _ARGUMENT_0), *code]


def _clone() -> Code:
    refused = branch(IF_ANY_BIT, _CLONE_NEW_ANYTHING, yes=refuse(errno.EPERM), no=RETURN_ALLOW)
    return [(LOAD, 0, 0, _ARGUMENT_0), *refused]


_SPECIAL: dict[str, Callable[[], Code]] = {
    "clone": _clone,
    # Its flags are behind a pointer, out of a filter's sight: the C library falls back to clone.
    "clone3": lambda: refuse(errno.ENOSYS),
    "personality": lambda: _by_first_argument(_PERSONALITIES, found=RETURN_ALLOW, other=refuse(errno.EPERM)),
    "socket": lambda: _by_first_argument(_FORBIDDEN_FAMILIES, found=refuse(errno.EPERM), other=RETURN_ALLOW),
}
