"""Seccomp profiles in Docker's JSON form, made into a BPF program for this machine.

Owns the form (moby/profiles, seccomp.go; OCI runtime-spec, config-linux.md, seccomp) and the order of rules: of those
that match a call the most restrictive counts, and the default where none does. A rule's arguments must all match;
an argument that is named twice makes alternatives, as in runc. Calls newer than any that a refusing profile names
fail with ENOSYS, as in runc. Knows no process.
"""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Mapping
from typing import Any, TypeAlias

from builder.errors import BuildError
from builder.sandbox import seccomp
from builder.sandbox.seccomp import ALLOW, ERRNO, KILL, RETURN, Code
from builder.sandbox.seccomp_conditions import OPERATORS, Condition, when
from builder.sandbox.seccomp_more_numbers import OTHERS, more_numbers_of
from builder.sandbox.seccomp_numbers import TABLES, numbers_of
from cache.namedtuple import NamedTuple

_MAX_INSTRUCTIONS = 4096
_MAX_ARGUMENT = 5

_ACTIONS = {
    "SCMP_ACT_KILL_PROCESS": KILL,
    "SCMP_ACT_KILL": 0,
    "SCMP_ACT_KILL_THREAD": 0,
    "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_ERRNO": ERRNO,
    "SCMP_ACT_TRACE": 0x7FF00000,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_ALLOW": ALLOW,
}
"""The most restrictive first, as the kernel ranks them (seccomp(2))."""
_RANKS = {name: rank for rank, name in enumerate(_ACTIONS)}
_WITH_DATA = ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE")
_ARCHES = {
    "SCMP_ARCH_X86_64": "x86_64",
    "SCMP_ARCH_X86": "i386",
    "SCMP_ARCH_AARCH64": "generic",
    "SCMP_ARCH_ARM": "arm",
    "SCMP_ARCH_RISCV64": "generic",
    "SCMP_ARCH_LOONGARCH64": "generic",
}
_NATIVE = {
    "x86_64": ("amd64", "SCMP_ARCH_X86_64"),
    "aarch64": ("arm64", "SCMP_ARCH_AARCH64"),
    "riscv64": ("riscv64", "SCMP_ARCH_RISCV64"),
    "loongarch64": ("loong64", "SCMP_ARCH_LOONGARCH64"),
}


class Action(NamedTuple):
    """What happens to a call: a name of SCMP_ACT_*, and the errno or the tracer's number."""

    name: str
    number: int = 0

    @property
    def code(self) -> int:
        """The value that the filter returns (SECCOMP_RET_*)."""
        return _ACTIONS[self.name] | self.number


class Rule(NamedTuple):
    """Calls by name, and what happens to them when every condition holds."""

    names: tuple[str, ...]
    action: Action
    conditions: tuple[Condition, ...] = ()


class Profile(NamedTuple):
    """A profile for one machine and one set of capabilities: what does not apply there is left out."""

    default: Action
    tables: frozenset[str]
    """The number tables of the architectures that may make calls."""
    rules: tuple[Rule, ...]


Fields: TypeAlias = Mapping[str, Any]


def compile_profile(
    text: str,
    capabilities: frozenset[str],
    *,
    machine: str = os.uname().machine,
    release: str = os.uname().release,
) -> bytes:
    """The program for a process with these capabilities, as an array of `struct sock_filter`.

    Raises BuildError for a profile that is malformed, or that restricts what this version does not know.
    """
    if machine not in _NATIVE:
        raise BuildError(f"no seccomp filter can be made for {machine}")
    try:
        profile = read_profile(json.loads(text), capabilities, machine=machine, release=release)
    except KeyError as error:
        raise BuildError(f"seccomp profile: {error} is missing") from error
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise BuildError(f"seccomp profile: {error or type(error).__name__}") from error
    program = seccomp.assemble(machine, {table: _body(profile, table) for table in profile.tables})
    if len(program) // 8 > _MAX_INSTRUCTIONS:
        raise BuildError(f"seccomp profile: {len(program) // 8} instructions, expected at most {_MAX_INSTRUCTIONS}")
    return program


def read_profile(document: Fields, capabilities: frozenset[str], *, machine: str, release: str) -> Profile:
    """The profile as values. Raises ValueError, TypeError, KeyError or AttributeError where it is malformed."""
    arch, native = _NATIVE[machine]
    if document.get("architectures") and document.get("archMap"):
        raise ValueError('both "architectures" and "archMap" are given')
    for name in ("flags", "listenerPath"):
        if document.get(name):
            raise ValueError(f'"{name}" is not supported')
    wanted = [native, *(document.get("architectures") or ())]
    for entry in document.get("archMap") or ():
        if entry["architecture"] == native:
            wanted += entry.get("subArchitectures") or ()
    here = Place(arch, capabilities, _kernel(release))
    calls = [call for call in document.get("syscalls") or () if _applies(call, here)]
    return Profile(
        _action(document["defaultAction"], document.get("defaultErrnoRet")),
        frozenset(_ARCHES[name] for name in wanted if name in _ARCHES),
        tuple(rule for call in calls for rule in _rules(call)),
    )


class Place(NamedTuple):
    """What the conditions of a rule are about: architecture as Go names it, capabilities, kernel version."""

    arch: str
    capabilities: frozenset[str]
    kernel: tuple[int, int]


def _applies(call: Fields, here: Place) -> bool:
    """Whether a rule's includes and excludes let it count here."""
    excludes, includes = call.get("excludes") or {}, call.get("includes") or {}
    if here.arch in (excludes.get("arches") or ()) or here.capabilities.intersection(excludes.get("caps") or ()):
        return False
    if excludes.get("minKernel") and here.kernel >= _kernel(excludes["minKernel"]):
        return False
    if includes.get("arches") and here.arch not in includes["arches"]:
        return False
    if not here.capabilities.issuperset(includes.get("caps") or ()):
        return False
    return not includes.get("minKernel") or here.kernel >= _kernel(includes["minKernel"])


def _kernel(text: str) -> tuple[int, int]:
    match = re.match(r"(\d+)\.(\d+)", text)
    if match is None:
        raise ValueError(f'kernel version "{text}", expected MAJOR.MINOR')
    return int(match[1]), int(match[2])


def _action(name: str, number: int | None) -> Action:
    if name not in _ACTIONS:
        raise ValueError(f'action "{name}" is not supported, expected one of {", ".join(_ACTIONS)}')
    if name not in _WITH_DATA:
        return Action(name)
    number = errno.EPERM if number is None else number
    if not 0 <= number <= 0xFFFF:
        raise ValueError(f"errnoRet {number}, expected at most 65535")
    return Action(name, number)


def _rules(call: Fields) -> list[Rule]:
    """The rules of one entry: one, or one for each condition when two are about the same argument."""
    if call.get("name") and call.get("names"):
        raise ValueError('both "name" and "names" are given')
    names = (call["name"],) if call.get("name") else tuple(call["names"])
    action = _action(call["action"], call.get("errnoRet"))
    conditions = [_condition(fields) for fields in call.get("args") or ()]
    if len({condition.argument for condition in conditions}) < len(conditions):
        return [Rule(names, action, (condition,)) for condition in conditions]
    return [Rule(names, action, tuple(conditions))]


def _condition(fields: Fields) -> Condition:
    operator = fields["op"].removeprefix("SCMP_CMP_")
    condition = Condition(fields["index"], operator, fields.get("value", 0), fields.get("valueTwo", 0))
    if operator not in OPERATORS:
        raise ValueError(f'operator "{fields["op"]}", expected one of {", ".join(OPERATORS)}')
    if not 0 <= condition.argument <= _MAX_ARGUMENT:
        raise ValueError(f"argument {condition.argument}, expected 0 to {_MAX_ARGUMENT}")
    if not all(0 <= value < 1 << 64 for value in (condition.value, condition.other)):
        raise ValueError(f"value {condition.value}, expected 64 bits")
    return condition


def _body(profile: Profile, table: str) -> Code:
    """What the profile decides for the calls of one number table."""
    numbers = numbers_of(table) | more_numbers_of(table)
    default: Code = [(RETURN, 0, 0, profile.default.code)]
    by_number: dict[int, list[Rule]] = {}
    for rule in profile.rules:
        for name in rule.names:
            if name in numbers:
                by_number.setdefault(numbers[name], []).append(rule)
            elif _is_stricter(rule.action, profile.default) and name not in _known():
                raise BuildError(
                    f'seccomp profile: system call "{name}" is not known here, so that it cannot be restricted'
                )
    newest = seccomp.newest_of(by_number)
    refuses = profile.default.name == "SCMP_ACT_ERRNO" or _RANKS[profile.default.name] < _RANKS["SCMP_ACT_ERRNO"]
    newer = seccomp.refuse(errno.ENOSYS) if refuses else default
    verdicts = {number: _verdict(rules, default) for number, rules in by_number.items()}
    return seccomp.by_number(verdicts, newest, default, newer)


def _verdict(rules: list[Rule], default: Code) -> Code:
    """The most restrictive of the rules that match; what stands after one without conditions is never reached."""
    code: Code = []
    for rule in sorted(rules, key=lambda rule: _RANKS[rule.action.name]):
        code += when(rule.conditions, rule.action.code)
        if not rule.conditions:
            return code
    return code + default


def _is_stricter(action: Action, other: Action) -> bool:
    return _RANKS[action.name] < _RANKS[other.name]


def _known() -> set[str]:
    return {name for table in TABLES for name in (*numbers_of(table), *more_numbers_of(table))} | OTHERS
