"""Which devices a step may open: any may be made, only harmless ones opened, as with Docker.

By the `devices` controller of cgroup v1, or by an eBPF program on a v2 group (bpf(2), BPF_PROG_TYPE_CGROUP_DEVICE).
Without either, root in a step could make a node of the host's disk and read it. Runs under `python -I -S`.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable

from builder.sandbox import syscalls
from cache.namedtuple import NamedTuple

_ANY = -1
_ALLOWED_CHARACTER_DEVICES = (
    (1, 3),  # null
    (1, 5),  # zero
    (1, 7),  # full
    (1, 8),  # random
    (1, 9),  # urandom
    (5, 0),  # tty
    (5, 1),  # console
    (5, 2),  # ptmx
    (136, _ANY),  # pts
)

_BPF_PROG_LOAD, _BPF_PROG_ATTACH = 5, 8
_PROG_TYPE_CGROUP_DEVICE, _ATTACH_CGROUP_DEVICE, _ALLOW_MULTI = 15, 6, 2
_DEVICE_IS_BLOCK, _DEVICE_IS_CHARACTER, _ACCESS_MKNOD = 1, 2, 1
_ACCESS = {"m": 1, "r": 2, "w": 4}
_MOVE_REGISTER, _SPARE = 0xBF, 6


class DeviceRule(NamedTuple):
    """A device that may be opened besides the harmless ones: `b` or `c`, numbers, some of `rwm`."""

    kind: str
    major: int
    minor: int
    permissions: str


def guard(group_dir: str, *, is_v2: bool, granted: Iterable[DeviceRule] = ()) -> bool:
    """Restrict a fresh control group and those below it; False where this hierarchy cannot."""
    try:
        if is_v2:
            _attach_program(group_dir, granted)
        else:
            _write_rules(group_dir, granted)
    except OSError:
        return False
    return True


def _write_rules(group_dir: str, granted: Iterable[DeviceRule]) -> None:
    """Documentation/admin-guide/cgroup-v1/devices.rst."""
    rules = [("deny", "a"), ("allow", "c *:* m"), ("allow", "b *:* m")]
    for major, minor in _ALLOWED_CHARACTER_DEVICES:
        rules.append(("allow", f"c {major}:{'*' if minor == _ANY else minor} rwm"))
    rules += [("allow", f"{each.kind} {each.major}:{each.minor} {each.permissions}") for each in granted]
    for file, rule in rules:
        fd = os.open(f"{group_dir}/devices.{file}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, rule.encode())
        finally:
            os.close(fd)


def _attach_program(group_dir: str, granted: Iterable[DeviceRule]) -> None:
    program = device_program(granted)
    instructions = ctypes.create_string_buffer(program, len(program))
    licence = ctypes.create_string_buffer(b"Apache-2.0")
    attributes = struct.pack(
        "=IIQQ", _PROG_TYPE_CGROUP_DEVICE, len(program) // 8, ctypes.addressof(instructions), ctypes.addressof(licence)
    )
    program_fd = syscalls.bpf(_BPF_PROG_LOAD, attributes.ljust(120, b"\0"))
    group_fd = os.open(group_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        syscalls.bpf(_BPF_PROG_ATTACH, struct.pack("=IIII", group_fd, program_fd, _ATTACH_CGROUP_DEVICE, _ALLOW_MULTI))
    finally:
        os.close(group_fd)
        os.close(program_fd)


def device_program(granted: Iterable[DeviceRule] = ()) -> bytes:
    """eBPF: r1 is `struct bpf_cgroup_dev_ctx` (access << 16 | type, major, minor); the result is 1 to allow.

    Making a node is always allowed. Opening a character device is for those in the list, a block device for those that
    were granted.
    """
    load, move, shift_right, jump_equal, jump_not_equal, mask, leave = 0x61, 0xB7, 0x77, 0x15, 0x55, 0x57, 0x95
    access, kind, major, minor, context = 2, 3, 4, 5, 1
    deny, allow = ((move, 0, 0, 0), (leave, 0, 0, 0)), ((move, 0, 0, 1), (leave, 0, 0, 0))
    code: list[tuple[int, int, int, int]] = [
        (load, access | context << 4, 0, 0),
        (load, kind | context << 4, 0, 0),
        (load, major | context << 4, 4, 0),
        (load, minor | context << 4, 8, 0),
        (shift_right, access, 0, 16),
        (jump_not_equal, access, 2, _ACCESS_MKNOD),
        *allow,
        (mask, kind, 0, 0xFFFF),
    ]
    for each in granted:
        refused = ~sum(_ACCESS[letter] for letter in each.permissions) & 7
        code += [
            (jump_not_equal, kind, 7, _DEVICE_IS_CHARACTER if each.kind == "c" else _DEVICE_IS_BLOCK),
            (jump_not_equal, major, 6, each.major),
            (jump_not_equal, minor, 5, each.minor),
            (_MOVE_REGISTER, _SPARE | access << 4, 0, 0),
            (mask, _SPARE, 0, refused),
            (jump_not_equal, _SPARE, 2, 0),
            *allow,
        ]
    code += [(jump_equal, kind, 2, _DEVICE_IS_CHARACTER), *deny]
    for allowed_major, allowed_minor in _ALLOWED_CHARACTER_DEVICES:
        if allowed_minor == _ANY:
            code += [(jump_not_equal, major, 2, allowed_major), *allow]
        else:
            code += [(jump_not_equal, major, 3, allowed_major), (jump_not_equal, minor, 2, allowed_minor), *allow]
    code += deny
    return b"".join(struct.pack("=BBhi", *instruction) for instruction in code)
