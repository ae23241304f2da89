"""Limits of `pybuild run`, which are those of a build: what a program sees of them, and what it hears of one it met."""

from __future__ import annotations

import pytest

from tests.conftest import Pybuild, require
from tests.e2e.test_resources import has, leftovers

SHOWN = {
    "memory": ("memory/memory.limit_in_bytes", "memory.max"),
    "cpu": ("cpu/cpu.cfs_quota_us", "cpu.max"),
    "weight": ("cpu/cpu.shares", "cpu.weight"),
    "set": ("cpuset/cpuset.cpus", "cpuset.cpus"),
    "pids": ("pids/pids.max", "pids.max"),
}


@pytest.fixture
def app(pybuild: Pybuild, based: list[str]) -> Pybuild:
    """The command on a store with the image `app`."""
    pybuild.write(Dockerfile="FROM base\n")
    pybuild.ok("build", *based, "-t", "app", ".")
    return pybuild


@pytest.fixture
def limiting() -> None:
    controllers = ("memory", "cpu", "cpuset", "pids")
    require(all(map(has, controllers)), f"needs control groups for {', '.join(controllers)}")


@pytest.mark.usefixtures("limiting")
def test_the_program_has_the_limits_of_docker_run(app: Pybuild) -> None:
    words = ("-m", "64m", "--cpus", "0.5", "-c", "512", "--cpuset-cpus", "0", "--cpuset-mems", "0", "--pids-limit", "9")
    shown = [f"echo {name} $(cd /sys/fs/cgroup; cat {' '.join(files)} 2>/dev/null)" for name, files in SHOWN.items()]
    said = app.ok("run", "--rm", *words, "app", "sh", "-c", "; ".join(shown)).stdout
    found = dict(line.split(" ", 1) for line in said.splitlines())
    assert found["memory"] == str(64 << 20)
    assert found["cpu"].split()[0] == "50000"
    assert found["weight"] in ("512", "20")
    assert (found["set"], found["pids"]) == ("0", "9")
    assert leftovers() == []


@pytest.mark.usefixtures("limiting")
def test_out_of_memory_is_said_with_the_limit(app: Pybuild) -> None:
    """The exit code is the program's, be it killed itself or another process of it."""
    taking = "head -c 200m /dev/zero | tail -c 150m >/dev/null"
    for script, code in ((f"{taking}; exit 3", 3), ("exec tail -c 150m </dev/zero", 137)):
        done = app("run", "--rm", "--resource", "memory=32m", "app", "sh", "-c", script)
        assert done.returncode == code
        assert "out of memory, the limit is 32 MiB (--memory)" in done.stderr
    assert "out of memory" not in app.ok("run", "--rm", "-m", "32m", "app", "true").stderr


@pytest.mark.usefixtures("limiting")
def test_processes_are_counted(app: Pybuild) -> None:
    done = app("run", "--rm", "--pids-limit", "3", "app", "sh", "-c", "sleep 1 & sleep 1 & sleep 1 & sleep 1 & wait")
    assert done.returncode != 0
    assert "can't fork" in done.stderr


def test_a_limit_that_cannot_be_set_is_an_error(app: Pybuild) -> None:
    require(has("cpuset"), "needs control groups for processors")
    done = app("run", "--rm", "--cpuset-cpus", "4000", "app", "true")
    assert done.returncode == 125
    assert "cpuset-cpus=4000 cannot be set" in done.stderr


@pytest.mark.parametrize(
    "words", [("-m", "x"), ("--memory-swap", "1g"), ("--cpus", "0"), ("--cgroup-parent", "a/../b")]
)
def test_malformed_limits_are_usage_errors(words: tuple[str, ...], pybuild: Pybuild) -> None:
    assert pybuild("run", "--rm", *words, "app", "true").returncode == 2
