"""Whatever ends a build, no process of it is left two seconds later: root's and an ordinary user's."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import Pybuild
from tests.ordinary import OrdinaryUser

SECONDS = 2
STUBBORN = "trap '' TERM INT HUP; (setsid sleep {0} &) ; sleep {0} & while :; do sleep {0}; done"
STARTED: list[subprocess.Popen[bytes]] = []
SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL]


def commands_with(marker: str) -> list[int]:
    """The processes with `marker` among their words."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if marker.encode() in words:
                found.append(int(entry.name))
    return found


def below(pid: int) -> set[int]:
    """A process and all that descend from it."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
    family = {pid}
    while more := {child for child, parent in parents.items() if parent in family} - family:
        family |= more
    return family


def alive(pids: set[int]) -> list[str]:
    """Those that run, by their command lines."""
    found = []
    for pid in pids:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
            words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if state != "Z":
            found.append(f"{pid} {state} {words}")
    return found


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return condition()


def start(who: Pybuild, *words: str) -> subprocess.Popen[bytes]:
    """A build in the background, all of whose descendants are found by its pid."""
    null = subprocess.DEVNULL
    argv, env = who.argv("build", *words, "."), who.environment()
    STARTED.append(subprocess.Popen(argv, cwd=who.cwd, env=env, stdin=null, stdout=null, stderr=null))
    return STARTED[-1]


@pytest.fixture(autouse=True)
def no_leftovers() -> Iterator[None]:
    """A build that a failed assertion leaves behind does not outlive its test."""
    yield
    for process in STARTED:
        process.kill()
        process.wait()
    STARTED.clear()


def end_and_look(process: subprocess.Popen[bytes], how: signal.Signals) -> None:
    family = below(process.pid)
    began = time.monotonic()
    process.send_signal(how)
    process.wait(timeout=10)
    assert wait_until(lambda: not alive(family), SECONDS - (time.monotonic() - began)), alive(family)
    assert process.returncode == (-how if how == signal.SIGKILL else 130)


@pytest.fixture(params=["root", "user"])
def who(request: pytest.FixtureRequest) -> Pybuild:
    found = request.getfixturevalue({"root": "pybuild", "user": "user"}[request.param])
    assert isinstance(found, Pybuild)
    return found


@pytest.mark.parametrize("how", SIGNALS)
def test_steps_that_ignore_signals(who: Pybuild, base_for_all: list[str], how: signal.Signals) -> None:
    marker = f"77{int(how)}{os.getpid()}"
    stages = "".join(f"FROM base AS s{number}\nRUN : {number}; {STUBBORN.format(marker)}\n" for number in range(2))
    who.write(Dockerfile=f"{stages}FROM base\nCOPY --from=s0 / /a\nCOPY --from=s1 / /b\n")
    process = start(who, *base_for_all)
    assert wait_until(lambda: len(commands_with(f"sleep\0{marker}")) == 6, 20)
    end_and_look(process, how)
    assert not commands_with(f"sleep\0{marker}")
    who.write(Dockerfile="FROM base\nRUN true\n")
    who.ok("build", *base_for_all, ".")


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_fetch_from_a_server_that_says_nothing(who: Pybuild, how: signal.Signals) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        who.write(Dockerfile=f"FROM scratch\nADD http://127.0.0.1:{port}/x.git /x\n")
        process = start(who)
        assert wait_until(lambda: bool(commands_with(f"127.0.0.1:{port}/x.git")), 20)
        end_and_look(process, how)
        assert not commands_with(f"127.0.0.1:{port}/x.git")


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("snapshotter", ["native", "fuse"])
def test_other_snapshotters(user: OrdinaryUser, base_for_all: list[str], how: signal.Signals, snapshotter: str) -> None:
    if snapshotter == "fuse":
        user.borrow_fuse()
    marker = f"78{int(how)}{os.getpid()}"
    user.write(Dockerfile=f"FROM base\nRUN {STUBBORN.format(marker)}\n")
    process = start(user, *base_for_all, "--snapshotter", snapshotter)
    assert wait_until(lambda: len(commands_with(f"sleep\0{marker}")) == 3, 20)
    end_and_look(process, how)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("program", ["pasta", "slirp4netns"])
def test_programs_that_make_networks(
    user: OrdinaryUser, base_for_all: list[str], how: signal.Signals, program: str
) -> None:
    user.borrow_tun(program)
    marker = f"76{int(how)}{os.getpid()}"
    user.write(Dockerfile=f"FROM base\nRUN ip addr show eth0; {STUBBORN.format(marker)}\n")
    process = start(user, *base_for_all, "--network=bridge")
    assert wait_until(lambda: len(commands_with(f"sleep\0{marker}")) == 3, 20)
    assert any(program in line.split()[2] for line in alive(below(process.pid)))
    end_and_look(process, how)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_container(who: Pybuild, base_for_all: list[str], how: signal.Signals) -> None:
    marker = f"79{int(how)}{os.getpid()}"
    who.write(Dockerfile="FROM base\n")
    who.ok("build", *base_for_all, "-t", "x", ".")
    null = subprocess.DEVNULL
    words = ["run", "--rm", "x", "sh", "-c", f"(setsid sleep {marker} &); exec sleep {marker}"]
    process = subprocess.Popen(
        who.argv(*words), cwd=who.cwd, env=who.environment(), stdin=null, stdout=null, stderr=null
    )
    assert wait_until(lambda: len(commands_with(f"sleep\0{marker}")) == 2, 20)
    family = below(process.pid)
    for _ in range(3 if how == signal.SIGINT else 1):
        process.send_signal(how)
        time.sleep(0.1)
    process.wait(timeout=10)
    assert wait_until(lambda: not alive(family), SECONDS), alive(family)
