"""A network made by pasta or slirp4netns, for one without rights over the machine's: root of a user namespace only."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from builder.errors import SandboxError
from builder.sandbox.net import userspace
from tests.builder.world import ANSWER, GREETING_PORT, SERVER, SERVER_6, UPLINK, UPLINK_6, World
from tests.conftest import PROJECT, require

_MAKE = """
import os, sys
from builder.sandbox.launcher import _library_dir
from builder.sandbox.net import netlink
netlink.load(_library_dir())
from builder.sandbox import syscalls
from builder.sandbox.net import userspace
userspace.PROGRAMS = (sys.argv[1],)
network = userspace.Userspace()
namespace = network.add_namespace()
pid = os.fork()
if not pid:
    syscalls.setns(namespace.fd, syscalls.CLONE_NEWNET)
    os.execv(sys.argv[2], [sys.argv[2], "sh", "-c", sys.argv[3]])
os.waitpid(pid, 0)
program = next(iter(network._running.values())).pid
network.remove_namespace(namespace)
print("gone" if not os.path.exists(f"/proc/{program}") else "there")
"""

# With its input open: older pastas do not pass on the other side's end to one that has said its own.
GREET = f"busybox sleep 1 | busybox timeout 10 busybox nc {{}} {GREETING_PORT}"

_OPEN = """
from builder.sandbox.launcher import _library_dir
from builder.sandbox.net.iptables import Iptables
from builder.sandbox.net.keeper import open_network
network, first = open_network(_library_dir(), Iptables(), None)
print(type(network).__name__, network.relay)
network.close()
"""


@pytest.fixture
def world(world: World) -> World:
    require(all(shutil.which(name) for name in (*userspace.PROGRAMS, "unshare")), "needs passt and slirp4netns")
    require(os.access("/dev/net/tun", os.R_OK | os.W_OK), "needs /dev/net/tun")
    return world


def python(world: World, code: str, *words: str) -> str:
    """What Python code says as root of a user namespace that has no rights over the machine."""
    words = ("unshare", "--user", "--map-root-user", "--mount", sys.executable, "-c", code, *words)
    done = subprocess.run(
        world.words(*words),
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("program", userspace.PROGRAMS)
def test_tcp_and_names(world: World, busybox: Path, program: str) -> None:
    """Names from a server on the machine's loopback interface, too, where the network's own relay is asked."""
    world.set_nameservers("127.0.0.1")
    world.serve(world.machine, "127.0.0.1")
    relay = "169.254.1.1" if program == "pasta" else "10.0.2.3"
    asked = (
        f"{GREET.format(SERVER)}; busybox nslookup -type=a x.example {SERVER};"
        f"busybox nslookup -type=a y.example {relay}; ! busybox nc -w 1 127.0.0.1 {GREETING_PORT} && echo hidden"
    )
    said = python(world, _MAKE, program, str(busybox), asked)
    assert f"hello {UPLINK}\n" in said
    assert said.count(ANSWER) == 2
    assert "hidden" in said
    assert "gone" in said


def test_ipv6_through_pasta(world: World, busybox: Path) -> None:
    said = python(world, _MAKE, "pasta", str(busybox), "busybox sleep 2; " + GREET.format(SERVER_6))
    assert f"hello {UPLINK_6}\n" in said


def test_it_is_used_where_no_bridge_can_be_made(world: World) -> None:
    assert "Userspace 169.254.1.1" in python(world, _OPEN)
    assert world.leftovers() == []


def test_no_program_is_an_error_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(userspace, "_PATH", "/nowhere")
    monkeypatch.setattr(userspace, "_TUN", "/dev/null")
    with pytest.raises(SandboxError, match="neither pasta nor slirp4netns") as caught:
        userspace.find_program()
    assert "--network=host" in str(caught.value.hint)
    assert "passt" in str(caught.value.hint)
