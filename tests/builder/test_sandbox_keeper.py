"""What a build takes back of its network when it ends, at whatever moment that is."""

from __future__ import annotations

import subprocess
import sys

from tests.builder.world import World
from tests.conftest import PROJECT

_UNREAD = """
import os, select, socket, time
from builder.sandbox.net import keeper

class Slow(keeper.Keeper):
    def close(self):
        time.sleep(0.5)
        print("taken back", flush=True)

keeper.Keeper = Slow
keeping, pooling = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
launcher = os.fork()
if not launcher:
    keeping.close()
    select.select([pooling], [], [])
    os._exit(7)
pooling.close()
keeping.send(b"a namespace that nobody wants any more")
keeper.keep(keeping, launcher, None)
"""

_CLOSED_WHILE_ADDING = """
import threading, time
from builder.errors import SandboxError
from builder.sandbox.net import iptables

begun = threading.Event()
really_run = iptables._run

def run(program, table, *words, must_work=False):
    if words[0] == "-I":
        begun.set()
        time.sleep(0.3)
    return really_run(program, table, *words, must_work=must_work)

def add():
    try:
        rules.open_forwarding("pyb00000000", has_ipv6=True)
    except SandboxError as error:
        print(error)

iptables._run = run
rules = iptables.Iptables()
adding = threading.Thread(target=add)
adding.start()
begun.wait()
rules.close()
adding.join()
"""

_NOT_OWNED = """
from builder.sandbox.net import netfilter
netfilter._OWNER = 1 << 30
tables = netfilter.Tables()
tables.add("pyb00000000", [netfilter.Chain("forward", "filter", netfilter.FORWARD, 0, ())])
print(list(tables._names()))
tables.close()
"""


def python(code: str, world: World | None = None) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-c", code]
    return subprocess.run(
        world.words(*words) if world else words, cwd=PROJECT, capture_output=True, text=True, timeout=60, check=False
    )


def test_all_is_taken_back_though_the_launcher_did_not_read_what_was_sent_to_it() -> None:
    """The kernel says so by an error where there is an end otherwise."""
    done = python(_UNREAD)
    assert (done.stdout, done.returncode) == ("taken back\n", 7), done.stderr


def test_no_rule_is_added_once_they_are_closed(world: World) -> None:
    for program in ("iptables", "ip6tables"):
        world.output(program, "-P", "FORWARD", "DROP")
    assert python(_CLOSED_WHILE_ADDING, world).stdout == "the network was closed\n"
    assert "pyb" not in world.output("iptables", "-S") + world.output("ip6tables", "-S")


def test_tables_that_the_kernel_lets_nobody_own_are_removed(world: World) -> None:
    """As before Linux 5.12."""
    assert python(_NOT_OWNED, world).stdout == "['pybuild-pyb00000000']\n"
    assert world.leftovers() == []
