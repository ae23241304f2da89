"""Devices for steps and containers, and --security-opt: what is given, what is refused, what is in the key."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from builder.cdi import registry
from builder.devices import Wanted, find_devices
from builder.errors import BuildError
from tests.conftest import Pybuild

FUSE = "/dev/fuse"
STATUS = "grep -E '^(Seccomp|NoNewPrivs)' /proc/self/status"


@pytest.fixture(params=["root", "ordinary"])
def who(request: pytest.FixtureRequest) -> Pybuild:
    return request.getfixturevalue("pybuild" if request.param == "root" else "user")


def opened(path: str) -> str:
    return f"head -c 0 {path} && echo opened; true"


def test_a_path_is_a_device_for_every_run(who: Pybuild, base_for_all: list[str]) -> None:
    """/dev/zero under another name: it would be a harmless device wherever it lies."""
    who.write(Dockerfile="FROM base\nRUN head -c 4 /dev/sub/nil | wc -c && stat -c %F /dev/sub/nil\nRUN ls /dev/sub\n")
    words = ["build", *base_for_all, "--progress=plain", "--device", "/dev/zero:/dev/sub/nil:r"]
    done = who(*words, ".")
    assert done.returncode == 1
    assert 'device "/dev/zero" is not allowed' in done.stderr
    assert "--allow device=/dev/zero" in done.stderr
    done = who.ok(*words, "--allow", "device=/dev/zero", "-o", "type=local,dest=out", ".")
    assert "character special file" in done.stderr
    assert not (who.cwd / "out/dev/sub").exists()


def test_a_device_that_others_cannot_open(pybuild: Pybuild, based: list[str]) -> None:
    """The control group lets it be opened in the step that was granted it, as the permissions say, and in no other."""
    if not os.path.exists(FUSE):
        pytest.skip("this kernel has no /dev/fuse")
    node = os.stat(FUSE).st_rdev
    own = f"mknod /own c {os.major(node)} {os.minor(node)}; (exec 3<>/own) 2>/dev/null && echo given"
    pybuild.write(Dockerfile=f"FROM base\nRUN [ -c {FUSE} ] && (exec 3<>{FUSE}) && echo given; {own}; true\n")
    words = ["build", *based, "--progress=plain", "--no-cache"]
    assert "given" not in pybuild.ok(*words, ".").stderr.replace("echo given", "")
    done = pybuild.ok(*words, "--device", FUSE, "--allow", "device", ".")
    assert done.stderr.replace("echo given", "").count("given") == 2
    read_only = pybuild.ok(*words, "--device", f"{FUSE}:r", "--allow", "device", ".")
    assert "given" not in read_only.stderr.replace("echo given", "")
    pybuild.ok("build", *based, "-t", "base", ".")
    command = ["run", "--rm", "--device", f"{FUSE}:/dev/mine", "base", "sh", "-c", "exec 3<>/dev/mine && echo given"]
    assert pybuild.ok(*command).stdout == "given\n"


def test_devices_of_a_dockerfile_have_names(pybuild: Pybuild, based: list[str]) -> None:
    for name, message in (
        ("/dev/fuse", "is not VENDOR/CLASS=NAME"),
        ("vendor.example/none=0,required", "required device vendor.example/none=0 is not available"),
        ("nonsense,required", "is not VENDOR/CLASS=NAME"),
    ):
        pybuild.write(Dockerfile=f"FROM base\nRUN --device={name} true\n")
        done = pybuild("build", *based, "--allow", "device", ".")
        assert done.returncode == 1
        assert message in done.stderr
    pybuild.write(Dockerfile="FROM base\nRUN --device=vendor.example/none=0 true\n")
    pybuild.ok("build", *based, ".")


def test_what_a_cdi_spec_gives(tmp_path: Path) -> None:
    edits: dict[str, Any] = {
        "env": ["A=1"],
        "deviceNodes": [{"path": "/dev/x", "hostPath": "/dev/zero", "permissions": "r", "fileMode": 0o640}],
        "mounts": [{"hostPath": str(tmp_path), "containerPath": "/opt/x", "options": ["ro"]}],
        "additionalGids": [44],
    }
    spec = {"cdiVersion": "0.7.0", "kind": "a.example/x", "devices": [{"name": "0", "containerEdits": edits}]}
    (tmp_path / "x.json").write_text(json.dumps(spec))
    given = find_devices([Wanted("a.example/x=0")], registry.Registry((str(tmp_path),)))
    assert [(d.path, d.source, d.permissions, d.entitlement, d.mode) for d in given.devices] == [
        ("/dev/x", "/dev/zero", "r", "a.example/x=0", 0o640)
    ]
    assert (given.env, given.groups, given.mounts[0].target, given.mounts[0].read_only) == (
        ("A=1",),
        (44,),
        "/opt/x",
        True,
    )
    (tmp_path / "x.json").write_text(json.dumps({**spec, "containerEdits": {"hooks": [{"path": "/x"}]}}))
    with pytest.raises(BuildError, match="needs hooks"):
        find_devices([Wanted("a.example/x=0")], registry.Registry((str(tmp_path),)))


def test_a_device_of_a_cdi_spec(pybuild: Pybuild, based: list[str]) -> None:
    """With a spec in /var/run/cdi, which only root can write, under a name of the test's own."""
    directory = Path("/var/run/cdi")
    was_there = directory.exists()
    directory.mkdir(exist_ok=True)
    kind = f"pybuild-test.example/d{os.getpid()}"
    path = directory / f"pybuild-test-{os.getpid()}.yaml"
    path.write_text(
        f'cdiVersion: "0.6.0"\nkind: {kind}\ndevices:\n- name: "0"\n  containerEdits:\n'
        "    env: [FROM_CDI=yes]\n    deviceNodes:\n    - {path: /dev/from-cdi, hostPath: /dev/zero}\n"
    )
    try:
        pybuild.write(
            Dockerfile=f"FROM base\nRUN --device={kind}=0,required head -c 2 /dev/from-cdi | wc -c; echo $FROM_CDI\n"
        )
        words = ["build", *based, "--progress=plain", "."]
        done = pybuild(*words)
        assert f'device "{kind}=0" is not allowed' in done.stderr
        for grant in ("device", f"device={kind}=0", f"device={kind}"):
            done = pybuild.ok(*words, "--allow", grant, "--no-cache")
            assert done.stderr.split("FROM_CDI\n", 1)[1].split()[2::3][:2] == ["2", "yes"], done.stderr
        assert "is not allowed" in pybuild(*words, "--allow", "device=other.example/x", "--no-cache").stderr
    finally:
        path.unlink()
        if not was_there:
            directory.rmdir()


@pytest.mark.parametrize("how", ["build", "run"])
def test_security_options(who: Pybuild, base_for_all: list[str], how: str) -> None:
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}],
    }
    who.write(
        Dockerfile=f"FROM base\nRUN {STATUS}; mkdir /x && echo made; true\n",
        profile=json.dumps(profile),
        broken='{"defaultAction": "SCMP_ACT_FLY"}',
    )
    if how == "run":
        who.ok("build", *base_for_all, "-t", "base", ".")

    def said(*words: str, code: int = 0) -> str:
        if how == "build":
            done = who("build", *base_for_all, "--progress=plain", "--no-cache", *words, ".")
        else:
            command = f"{STATUS}; mkdir /y && echo made; true"
            done = who("run", "--rm", *words, "base", "sh", "-c", command)
        assert done.returncode == code or (code and done.returncode == 125), done.stderr
        return (done.stdout + done.stderr).replace("echo made", "").replace("\t", " ")

    plain = said()
    assert "Seccomp: 2" in plain
    assert "NoNewPrivs: 0" in plain
    assert "made" in plain
    filtered = said("--security-opt", "seccomp=profile", "--security-opt", "no-new-privileges")
    assert "Seccomp: 2" in filtered
    assert "NoNewPrivs: 1" in filtered
    assert "made" not in filtered
    assert "SCMP_ACT_FLY" in said("--security-opt", "seccomp=broken", code=1)
    assert "no such file" in said("--security-opt", "seccomp=nowhere", code=1)
    assert "is not known" in said("--security-opt", "label=disable", code=2)
    if how == "build":
        assert "seccomp=unconfined is not allowed" in said("--security-opt", "seccomp=unconfined", code=1)
    words = ["--allow", "security.insecure"] if how == "build" else []
    assert "Seccomp: 0" in said("--security-opt", "seccomp=unconfined", *words)


def test_security_options_are_in_the_key_and_nothing_is_as_before(pybuild: Pybuild, based: list[str]) -> None:
    pybuild.write(Dockerfile="FROM base\nRUN echo x > /x\n")
    words = ["build", *based, "--progress=plain"]
    pybuild.ok(*words, ".")
    assert "DONE" not in pybuild.ok(*words, ".").stderr
    assert "DONE" in pybuild.ok(*words, "--security-opt", "no-new-privileges", ".").stderr
    assert "DONE" not in pybuild.ok(*words, "--security-opt", "no-new-privileges", ".").stderr


def test_the_hostname_of_steps(pybuild: Pybuild, based: list[str]) -> None:
    pybuild.write(Dockerfile="FROM base\nRUN hostname\n")
    assert " buildkitsandbox\n" in pybuild.ok("build", *based, "--progress=plain", ".").stderr
    assert " here\n" in pybuild.ok("build", *based, "--progress=plain", "--hostname", "here", ".").stderr
    assert "is not valid" in pybuild("build", *based, "--hostname", "a b", ".").stderr
