"""The gate in front of every process: what has to be granted, what no process could be; there is no way around it."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest
from sandboxes import Box

from builder.entitlements import DEVICE, EVERYTHING, HOST_NETWORK, INSECURE, allows
from builder.errors import BuildError
from builder.sandbox.capabilities import DEFAULT
from builder.sandbox.launcher import Launcher
from builder.sandbox.spec import Device, ProcessSpec
from builder.sandbox.validate import check
from tests.test_structure import MODULES, name_of

SPEC = ProcessSpec(("true",), network="none")
GPU = Device("/dev/gpu", "/dev/null", entitlement="vendor.com/gpu=0")
STARTERS = {
    "fork",
    "posix_spawn",
    "posix_spawnp",
    "execv",
    "execve",
    "execvp",
    "system",
    "popen",
    "spawnv",
    "fork_exec",
}
MAY_START = {
    "builder.sandbox.launcher": "the launcher",
    "builder.sandbox.server": "pid 1 of each step, after the gate",
    "builder.sandbox.process": "the program of a step, in its sandbox",
    "builder.sandbox.userns": "newuidmap, and who waits to start it",
    "cache.share": "itself, to look at a large tree: no program",
}
"""Who may start processes by system calls."""
MAY_RUN_PROGRAMS = (
    "builder.git.",
    "builder.snapshotters.",
    "builder.sandbox.net.",
    "builder.registry.",
    "builder.copying.",
)
"""Who may start programs of the machine: git, fuse-overlayfs, nft, pasta, credential helpers, skopeo."""


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({"insecure": True}, INSECURE),
        ({"seccomp": False}, INSECURE),
        ({"capabilities": (*DEFAULT, "CAP_SYS_ADMIN")}, INSECURE),
        ({"network": "host"}, HOST_NETWORK),
        ({"devices": (GPU,)}, f"{DEVICE}=vendor.com/gpu=0"),
    ],
)
def test_what_has_to_be_granted(fields: dict[str, Any], wanted: str) -> None:
    spec = SPEC._replace(**fields)
    with pytest.raises(BuildError, match="is not allowed") as caught:
        check(spec, frozenset())
    assert caught.value.hint == f"grant it with --allow {wanted}"
    check(spec, frozenset((wanted,)))
    check(spec, EVERYTHING)
    with pytest.raises(BuildError, match="is not allowed"):
        check(spec, EVERYTHING - {wanted.partition("=")[0]})


@pytest.mark.parametrize(
    ("granted", "expected"),
    [
        ("device", True),
        ("device=vendor.com/gpu=0", True),
        ("device=vendor.com/gpu", True),
        ("device=vendor.com/gpu=*", True),
        ("device=vendor.com/gpu=1", False),
        ("device=vendor.com", False),
        ("security.insecure", False),
    ],
)
def test_grants_of_devices(granted: str, expected: bool) -> None:
    assert allows({granted}, "device=vendor.com/gpu=0") is expected


def test_fewer_rights_need_no_grant() -> None:
    check(SPEC._replace(capabilities=("CAP_CHOWN",), no_new_privileges=True, seccomp_filter="AAAA"), frozenset())


@pytest.mark.parametrize(
    "fields",
    [
        {"argv": ()},
        {"argv": ("a\0b",)},
        {"env": ("A=\0",)},
        {"cwd": "/\0"},
        {"user": "a\0"},
        {"hostname": "x" * 65},
        {"hostname": "a/b"},
        {"hostname": "a\nb"},
    ],
)
def test_what_no_process_could_be(fields: dict[str, Any]) -> None:
    with pytest.raises(BuildError):
        check(SPEC._replace(**fields), EVERYTHING)


def test_a_launcher_grants_nothing_by_itself(box: Box) -> None:
    with Launcher() as launcher, pytest.raises(BuildError, match=r"security\.insecure is not allowed"):
        launcher.run(SPEC._replace(insecure=True), box.root())


def test_nobody_else_starts_processes() -> None:
    for path in MODULES:
        name = name_of(path)
        called = {
            node.func.attr
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
        }
        if called & STARTERS:
            assert name in MAY_START or name.startswith(MAY_RUN_PROGRAMS), (name, called & STARTERS)
        if "subprocess" in Path(path).read_text():
            assert name.startswith(MAY_RUN_PROGRAMS), name


def test_requests_of_steps_are_made_in_one_place() -> None:
    users = [name_of(path) for path in MODULES if "Message(kind, step" in path.read_text()]
    # The wire only reads what was written.
    assert users == ["builder.sandbox.launcher", "builder.sandbox.wire"]
