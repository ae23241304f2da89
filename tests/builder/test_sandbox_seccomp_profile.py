"""Profiles in Docker's JSON form: compiled for every machine, and the program interpreted."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest
from bpf import ALLOW, KILL, MACHINES, decide
from hypothesis import given
from hypothesis import strategies as st

from builder.errors import BuildError
from builder.sandbox.capabilities import DEFAULT, NAMES
from builder.sandbox.seccomp import compile_default
from builder.sandbox.seccomp_more_numbers import OTHERS, more_numbers_of
from builder.sandbox.seccomp_numbers import TABLES, numbers_of
from builder.sandbox.seccomp_profile import compile_profile

RULES = Path(__file__).resolve().parent / "data/docker-seccomp.rules"
OPERATORS = {"<": "LT", "==": "EQ", ">": "GT", "&": "MASKED_EQ"}
X86_64 = MACHINES["x86_64", "x86_64"]
ARGUMENTS = (0, 1, 8, 37, 38, 39, 40, 41, 0x11, 0x20000, 0x20008, 0x7E020000, 0x10000000, 0x3D0F00, 0xFFFFFFFF)


def dockers() -> str:
    """The rules of the file as a profile in Docker's JSON form."""
    others = {"X86_64": ("X86", "X32"), "AARCH64": ("ARM",), "S390X": ("S390",), "RISCV64": ()}
    arches = [
        {"architecture": f"SCMP_ARCH_{name}", "subArchitectures": [f"SCMP_ARCH_{each}" for each in more]}
        for name, more in others.items()
    ]
    rules = list(map(_rule, _lines()))
    return json.dumps({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1, "archMap": arches, "syscalls": rules})


def _lines() -> list[str]:
    return [line for line in RULES.read_text().splitlines() if not line.startswith("#")]


def _rule(line: str) -> dict[str, Any]:
    conditions, _, names = line.partition(":")
    found: dict[str, Any] = {"names": names.split(), "action": "SCMP_ACT_ALLOW", "includes": {}, "excludes": {}}
    for condition in filter(None, conditions.split(", ")):
        match condition.split():
            case ["errno", number]:
                found |= {"action": "SCMP_ACT_ERRNO", "errnoRet": int(number)}
            case ["arg", index, operator, value]:
                argument = {"index": int(index), "value": int(value, 16), "op": f"SCMP_CMP_{OPERATORS[operator]}"}
                found.setdefault("args", []).append(argument)
            case ["cap", name]:
                found["includes"]["caps"] = [name]
            case ["no-cap", name]:
                found["excludes"]["caps"] = [name]
            case ["arch", names]:
                found["includes"]["arches"] = names.split("|")
            case ["no-arch", names]:
                found["excludes"]["arches"] = names.split("|")
            case ["kernel", release]:
                found["includes"]["minKernel"] = release
            case _:
                raise AssertionError(condition)
    return found


@pytest.mark.parametrize(("machine", "table"), MACHINES)
@pytest.mark.parametrize("capabilities", [frozenset(DEFAULT), frozenset(), frozenset(NAMES)])
def test_the_default_is_dockers(machine: str, table: str, capabilities: frozenset[str]) -> None:
    """Every number of a call, with every argument that a rule looks at: the same as Docker's own file."""
    theirs = compile_profile(dockers(), capabilities, machine=machine, release="6.1.0")
    ours = compile_default(capabilities, machine)
    audit_arch = MACHINES[machine, table]
    by_number = {number: name for name, number in numbers_of(table).items()}
    for number in (*range(600), *range(0xF0000, 0xF0008)):
        expected = [decide(theirs, audit_arch, number, value) for value in ARGUMENTS]
        if by_number.get(number) in ("riscv_flush_icache", "riscv_hwprobe") and machine != "riscv64":
            continue
        assert [decide(ours, audit_arch, number, value) for value in ARGUMENTS] == expected, by_number.get(number)


def profile(default: str, *syscalls: dict[str, Any], **fields: Any) -> str:
    return json.dumps({"defaultAction": f"SCMP_ACT_{default}", "syscalls": syscalls, **fields})


def rule(names: str, action: str, *conditions: tuple[int, str, int, int], **fields: Any) -> dict[str, Any]:
    args = [{"index": i, "op": f"SCMP_CMP_{op}", "value": v, "valueTwo": w} for i, op, v, w in conditions]
    return {"names": names.split(), "action": f"SCMP_ACT_{action}", "args": args, **fields}


def verdict(text: str, name: str, *arguments: int) -> str | int:
    numbers = numbers_of("x86_64") | more_numbers_of("x86_64")
    program = compile_profile(text, frozenset(DEFAULT), machine="x86_64", release="6.1.0")
    return decide(program, X86_64, numbers[name], *arguments)


OPERATIONS = {
    "EQ": lambda left, value, _: left == value,
    "NE": lambda left, value, _: left != value,
    "LT": lambda left, value, _: left < value,
    "LE": lambda left, value, _: left <= value,
    "GT": lambda left, value, _: left > value,
    "GE": lambda left, value, _: left >= value,
    "MASKED_EQ": lambda left, value, other: left & value == other,
}
WORDS = st.one_of(
    st.sampled_from([0, 1, 0xFFFFFFFF, 0x100000000, 0x100000001, (1 << 64) - 1]), st.integers(0, (1 << 64) - 1)
)


@given(st.sampled_from(sorted(OPERATIONS)), WORDS, WORDS, st.lists(WORDS, min_size=6, max_size=6), st.integers(0, 5))
def test_comparisons_are_of_64_bits(operator: str, value: int, other: int, arguments: list[int], index: int) -> None:
    text = profile("ERRNO", rule("read", "ALLOW", (index, operator, value, other)))
    expected = ALLOW if OPERATIONS[operator](arguments[index], value, other) else errno.EPERM
    assert verdict(text, "read", *arguments) == expected


def test_all_conditions_must_hold_and_the_same_argument_twice_makes_alternatives() -> None:
    both = profile("ERRNO", rule("read", "ALLOW", (0, "EQ", 1, 0), (1, "GT", 5, 0)))
    assert [verdict(both, "read", 1, 6), verdict(both, "read", 1, 5), verdict(both, "read", 2, 6)] == [ALLOW, 1, 1]
    either = profile("ERRNO", rule("read", "ALLOW", (0, "EQ", 1, 0), (0, "EQ", 7, 0)))
    assert [verdict(either, "read", value) for value in (1, 7, 3)] == [ALLOW, ALLOW, 1]


def test_the_most_restrictive_rule_counts() -> None:
    rules = [rule("read", "ALLOW"), rule("read", "ERRNO", (0, "EQ", 3, 0), errnoRet=13), rule("read", "KILL_PROCESS")]
    assert verdict(profile("ERRNO", *rules[:2]), "read", 3) == 13
    assert verdict(profile("ERRNO", *rules[:2]), "read", 4) == ALLOW
    assert verdict(profile("ERRNO", *rules), "read", 4) == KILL
    many = [rule("read", "ERRNO", (0, "EQ", number, 0), (1, "NE", 1, 0), errnoRet=number) for number in range(1, 60)]
    assert [verdict(profile("ALLOW", *many), "read", value, 2) for value in (1, 42, 60)] == [1, 42, ALLOW]


def test_what_a_profile_allows_by_default() -> None:
    text = profile("ALLOW", rule("keyctl userfaultfd", "ERRNO"), {"name": "add_key", "action": "SCMP_ACT_ERRNO"})
    assert [verdict(text, name) for name in ("keyctl", "userfaultfd", "add_key", "read")] == [1, 1, 1, ALLOW]
    program = compile_profile(text, frozenset(), machine="x86_64", release="6.1.0")
    assert decide(program, X86_64, 5000) == ALLOW
    assert decide(program, MACHINES["x86_64", "i386"], 3) == KILL, "only the machine's own calls unless it says more"


def test_new_calls_fail_as_on_an_older_kernel() -> None:
    text = profile("ERRNO", rule("read", "ALLOW"), rule("openat2", "ALLOW"), defaultErrnoRet=5)
    program = compile_profile(text, frozenset(), machine="x86_64", release="6.1.0")
    assert [decide(program, X86_64, number) for number in (0, 1, 437, 438)] == [ALLOW, 5, ALLOW, errno.ENOSYS]


@pytest.mark.parametrize(
    ("fields", "applies"),
    [
        ({"includes": {"caps": ["CAP_CHOWN"]}}, True),
        ({"includes": {"caps": ["CAP_CHOWN", "CAP_SYS_ADMIN"]}}, False),
        ({"includes": {"arches": ["arm64"]}}, False),
        ({"includes": {"arches": ["arm64", "amd64"], "minKernel": "6.1"}}, True),
        ({"includes": {"minKernel": "6.2"}}, False),
        ({"excludes": {"caps": ["CAP_SYS_ADMIN"]}}, True),
        ({"excludes": {"caps": ["CAP_CHOWN"]}}, False),
        ({"excludes": {"arches": ["amd64"]}}, False),
        ({"excludes": {"minKernel": "4.8"}}, False),
        ({"excludes": {"minKernel": "6.10"}}, True),
    ],
)
def test_rules_that_depend_on_the_place(fields: dict[str, Any], applies: bool) -> None:
    text = profile("ERRNO", rule("read", "ALLOW", **fields))
    assert verdict(text, "read") == (ALLOW if applies else errno.EPERM)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Expecting value"),
        ("[]", "list"),
        ("{}", "'defaultAction' is missing"),
        ("[" * 100_000, "recursion"),
        (profile("NOTIFY"), 'action "SCMP_ACT_NOTIFY" is not supported'),
        (profile("ALLOW", rule("fly", "ERRNO")), 'system call "fly" is not known'),
        (profile("ALLOW", rule("read", "ERRNO", (6, "EQ", 0, 0))), "argument 6, expected 0 to 5"),
        (profile("ALLOW", rule("read", "ERRNO", (0, "EQ", 1 << 64, 0))), "expected 64 bits"),
        (profile("ALLOW", rule("read", "ERRNO", (0, "IS", 1, 0))), 'operator "SCMP_CMP_IS"'),
        (profile("ALLOW", rule("read", "ERRNO", errnoRet=1 << 16)), "errnoRet 65536"),
        (profile("ALLOW", {"name": "read", "names": ["read"], "action": "SCMP_ACT_ERRNO"}), 'both "name" and "names"'),
        (profile("ALLOW", rule("read", "ERRNO", includes={"minKernel": "new"})), 'kernel version "new"'),
        (profile("ALLOW", architectures=["SCMP_ARCH_X86"], archMap=[{}]), 'both "architectures" and "archMap"'),
        (profile("ALLOW", flags=["SECCOMP_FILTER_FLAG_LOG"]), '"flags" is not supported'),
        (profile("ALLOW", rule("read", 7)), "SCMP_ACT_7"),
        (profile("ALLOW", {"names": 3, "action": "SCMP_ACT_ERRNO"}), "int"),
    ],
)
def test_a_bad_profile_is_an_error(text: str, message: str) -> None:
    with pytest.raises(BuildError, match="seccomp profile: ") as caught:
        compile_profile(text, frozenset(), machine="x86_64", release="6.1.0")
    assert message in str(caught.value)


def test_a_profile_that_is_too_long_is_an_error() -> None:
    rules = [rule("read", "ERRNO", (0, "EQ", number, 0), (1, "EQ", number, 0)) for number in range(500)]
    with pytest.raises(BuildError, match="instructions, expected at most 4096"):
        compile_profile(profile("ALLOW", *rules), frozenset(), machine="x86_64", release="6.1.0")


def test_a_call_that_is_new_may_be_allowed() -> None:
    assert verdict(profile("ERRNO", rule("fly read", "ALLOW")), "read") == ALLOW


def test_the_tables_do_not_overlap() -> None:
    for table in TABLES:
        first, more = numbers_of(table), more_numbers_of(table)
        assert not first.keys() & more.keys()
        assert not set(first.values()) & set(more.values())
        assert not OTHERS & {*first, *more}
