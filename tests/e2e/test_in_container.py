"""pybuild inside a container: it builds, or it names the one option that is missing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Protocol

import pytest
from peers import docker, podman  # noqa: F401 - fixtures

from tests.conftest import PROJECT, require
from tests.ordinary import OrdinaryUser

UNCONFINED = ["--security-opt", "seccomp=unconfined"]
SHOWN = {"docker": ["--security-opt", "systempaths=unconfined"], "podman": ["--security-opt", "unmask=ALL"]}
VOLUME = ["-v", "pybuild-test:/var/lib/pybuild"]
DOCKERFILE = "FROM base\nRUN echo a > /a && chown 1000 /a && rm -r /home && cat /proc/self/status > /status\n"


class Engine(Protocol):
    def __call__(self, *arguments: str | Path, stdin: Path | None = None) -> str: ...


class Inside:
    """The command in containers of an image that has the machine's /usr."""

    def __init__(self, name: str, engine: Engine, user: OrdinaryUser, base: list[str]) -> None:
        self.name, self._engine, self._user = name, engine, user
        place = user.home / "container"
        for directory in ("usr", "proc", "sys", "dev", "tmp", "root", "context", "project", "libraries", "etc", "base"):
            (place / directory).mkdir(parents=True, exist_ok=True)
        for link in ("bin", "sbin", "lib", "lib64"):
            if not (place / link).is_symlink():
                (place / link).symlink_to(f"usr/{link}")
        (place / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
        archive = user.home / "container.tar"
        subprocess.run(["tar", "-c", "-f", archive, "-C", place, "."], check=True)
        engine("import", archive, "pybuild-host:1")
        self._base = base[1].partition("//")[2]

    def build(self, *options: str) -> subprocess.CompletedProcess[str]:
        python = f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}"
        require(os.path.exists(python), "the machine's python3 is another one than the tests'")
        libraries = next(path for path in sys.path if path.endswith("site-packages"))
        mounted = {"/usr": "/usr", PROJECT: "/project", libraries: "/libraries", self._user.cwd: "/context"}
        mounted[self._base] = "/base"
        volumes = [word for source, target in mounted.items() for word in ("-v", f"{source}:{target}:ro")]
        limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096"] if self.name == "podman" else []
        words = [
            "run",
            "--rm",
            "--network",
            "none",
            *limits,
            *volumes,
            "-e",
            "PYTHONPATH=/project:/libraries",
            *options,
        ]
        program = [
            python,
            "-m",
            "builder",
            "build",
            "--progress",
            "plain",
            "--build-context",
            "base=oci-layout:///base",
        ]
        try:
            return subprocess.CompletedProcess([], 0, self._engine(*words, "pybuild-host:1", *program, "/context"), "")
        except pytest.fail.Exception as error:
            return subprocess.CompletedProcess([], 1, "", str(error))


@pytest.fixture(params=["docker", "podman"])
def inside(request: pytest.FixtureRequest, user: OrdinaryUser, base_for_all: list[str]) -> Inside:
    engine = request.getfixturevalue(request.param)
    user.write(Dockerfile=DOCKERFILE)
    return Inside(request.param, engine, user, base_for_all)


@pytest.mark.xdist_group("peers")
def test_each_missing_option_is_named_until_it_builds(inside: Inside) -> None:
    given = list(VOLUME)
    options = [*UNCONFINED, *SHOWN[inside.name]]
    for _ in range(len(options) // 2):
        done = inside.build(*given)
        assert done.returncode, done.stdout
        assert "Traceback" not in done.stderr
        named = [word for word in options[1::2] if f"--security-opt {word}" in done.stderr]
        assert len(named) == 1, done.stderr
        assert named[0] not in given
        given += ["--security-opt", named[0]]
    done = inside.build(*given)
    assert done.stdout.startswith("sha256:") or "sha256:" in done.stdout, done.stderr


@pytest.mark.xdist_group("peers")
def test_without_a_volume_a_deletion_has_no_place(inside: Inside) -> None:
    done = inside.build(*UNCONFINED, *SHOWN[inside.name])
    assert done.returncode
    assert "snapshotter native" in done.stderr
    assert "--volume pybuild:" in done.stderr


@pytest.mark.xdist_group("peers")
def test_with_the_privileges_of_root(inside: Inside) -> None:
    """What --privileged gives, as far as the machine has it."""
    done = inside.build(*VOLUME, "--cap-add", "SYS_ADMIN", *UNCONFINED)
    assert "sha256:" in done.stdout, done.stderr
