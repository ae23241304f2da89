from __future__ import annotations

import ctypes
import errno
import os
import signal
import socket
from collections.abc import Callable

import pytest
from bpf import ALLOW, KILL, MACHINES, decide

from builder.errors import SandboxError
from builder.sandbox import syscalls
from builder.sandbox.capabilities import DEFAULT, NAMES, mask_of
from builder.sandbox.seccomp import BY_CAPABILITY, compile_default
from builder.sandbox.seccomp_numbers import numbers_of

GUARDED = {name for names in BY_CAPABILITY.values() for name in names.split()}
BY_ARGUMENT = {"clone", "clone3", "personality", "socket"}


@pytest.mark.parametrize(("machine", "table"), MACHINES)
@pytest.mark.parametrize("capabilities", [frozenset(DEFAULT), frozenset(), frozenset(NAMES)])
def test_every_number_has_the_verdict_of_its_name(machine: str, table: str, capabilities: frozenset[str]) -> None:
    program = compile_default(capabilities, machine)
    names = {number: name for name, number in numbers_of(table).items()}
    newest = max(number for number in names if number < 0xF0000)
    granted = {name for capability in capabilities & BY_CAPABILITY.keys() for name in BY_CAPABILITY[capability].split()}
    for number in range(newest + 100):
        name = names.get(number, "")
        if name in BY_ARGUMENT:
            continue
        expected = ALLOW if name and (name not in GUARDED or name in granted) else errno.EPERM
        if number > newest:
            expected = errno.ENOSYS
        assert decide(program, MACHINES[machine, table], number) == expected, (number, name)


@pytest.mark.parametrize(("machine", "table"), MACHINES)
def test_calls_that_depend_on_an_argument(machine: str, table: str) -> None:
    program = compile_default(frozenset(DEFAULT), machine)
    numbers, audit_arch = numbers_of(table), MACHINES[machine, table]

    def verdict(name: str, first: int) -> str | int:
        return decide(program, audit_arch, numbers[name], first)

    assert verdict("clone", 0x3D0F00) == ALLOW
    for flag in (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000):
        assert verdict("clone", flag | signal.SIGCHLD) == errno.EPERM
    assert verdict("clone3", 0) == errno.ENOSYS
    assert [verdict("personality", value) for value in (0, 8, 0x20000, 0x20008, 0xFFFFFFFF)] == [ALLOW] * 5
    assert verdict("personality", 0x40000) == errno.EPERM
    assert verdict("socket", socket.AF_INET6) == ALLOW
    assert [verdict("socket", family) for family in (38, 40)] == [errno.EPERM] * 2
    assert verdict("socket", 1 << 32 | 40) == errno.EPERM, "the kernel only looks at the low half"
    powerful = compile_default(frozenset(NAMES), machine)
    assert decide(powerful, audit_arch, numbers["clone"], 0x10000000) == ALLOW
    assert decide(powerful, audit_arch, numbers["clone3"]) == ALLOW


def test_calls_of_another_machine_kill_and_x32_is_not_there() -> None:
    program = compile_default(frozenset(DEFAULT), "x86_64")
    assert decide(program, 0xC00000B7, 1) == KILL
    assert decide(program, MACHINES["x86_64", "x86_64"], 0x40000000 | 1) == errno.ENOSYS


def test_a_machine_without_a_table_is_an_error_with_a_hint() -> None:
    with pytest.raises(SandboxError, match="no seccomp profile for vax") as caught:
        compile_default(frozenset(), "vax")
    assert caught.value.hint is not None


def test_the_program_fits_the_kernels_limit() -> None:
    assert max(len(compile_default(frozenset(DEFAULT), machine)) // 8 for machine, _ in MACHINES) < 4096


def in_child(action: Callable[[], int]) -> int:
    """The number that `action` returns in a child process under the default filter."""
    pid = os.fork()
    if not pid:
        code = 99
        try:
            syscalls.seccomp(compile_default(frozenset(DEFAULT)))
            code = action()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def raw(name: str, *arguments: int) -> int:
    """The errno of a raw system call, 0 for none."""
    libc = ctypes.CDLL(None, use_errno=True)
    table = "x86_64" if os.uname().machine == "x86_64" else "generic"
    result = libc.syscall(numbers_of(table)[name], *arguments)
    return ctypes.get_errno() if result < 0 else 0


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("getpid", (), 0),
        ("unshare", (0x10000000,), errno.EPERM),
        ("clone3", (0, 0), errno.ENOSYS),
        ("socket", (40, 1, 0), errno.EPERM),
        ("socket", (socket.AF_INET, 1, 0), 0),
        ("mount", (0, 0, 0, 0, 0), errno.EPERM),
        ("bpf", (0, 0, 0), errno.EPERM),
    ],
)
def test_the_kernel_decides_the_same(name: str, arguments: tuple[int, ...], expected: int) -> None:
    assert in_child(lambda: raw(name, *arguments)) == expected


def test_the_default_mask_is_dockers() -> None:
    assert mask_of(DEFAULT) == 0xA80425FB
    assert len(NAMES) == len(set(NAMES)) == 41
