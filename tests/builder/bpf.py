"""A classic BPF machine, for looking at what a seccomp filter decides (Documentation/networking/filter.rst)."""

from __future__ import annotations

import struct

ALLOW, KILL = "allow", "kill"
MACHINES = {
    ("x86_64", "x86_64"): 0xC000003E,
    ("x86_64", "i386"): 0x40000003,
    ("aarch64", "generic"): 0xC00000B7,
    ("aarch64", "arm"): 0x40000028,
    ("riscv64", "generic"): 0xC00000F3,
    ("loongarch64", "generic"): 0xC0000102,
}


def decide(program: bytes, audit_arch: int, number: int, *arguments: int) -> str | int:
    """What the machine makes of a call: ALLOW, KILL, or an errno."""
    call = struct.pack("=IIQ6Q", number, audit_arch, 0, *arguments, *(0,) * (6 - len(arguments)))
    accumulator, position = 0, 0
    while True:
        code, if_true, if_false, constant = struct.unpack_from("=HBBI", program, position * 8)
        position += 1
        if code == 0x20:
            accumulator = struct.unpack_from("=I", call, constant)[0]
        elif code == 0x54:
            accumulator &= constant
        elif code == 0x05:
            position += constant
        elif code in _TESTS:
            position += if_true if _TESTS[code](accumulator, constant) else if_false
        elif code == 0x06:
            return {0x7FFF0000: ALLOW, 0x80000000: KILL}.get(constant, constant & 0xFFFF)
        else:
            raise AssertionError(f"instruction {code:#x}")


_TESTS = {
    0x15: lambda left, right: left == right,
    0x25: lambda left, right: left > right,
    0x35: lambda left, right: left >= right,
    0x45: lambda left, right: left & right != 0,
}
