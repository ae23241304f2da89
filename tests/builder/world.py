"""A machine of its own for tests of the network: a network namespace with an uplink to another one, the internet.

machine                                  internet
uplink 198.51.100.2/24 ────────────────  198.51.100.1/24, 203.0.113.5 with a server for names and one for greetings
       2001:db8:1::2/64                  2001:db8:1::1/64, 2001:db8:2::5 with the same
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MTU = 1380
SERVER, SERVER_6, UPLINK, UPLINK_6 = "203.0.113.5", "2001:db8:2::5", "198.51.100.2", "2001:db8:1::2"
GREETING_PORT = 7000
ANSWER = "203.0.113.77"
"""What the name server says to every question for an address."""

_SERVERS = f'''
import socket, struct, sys, threading
def greet(family, address):
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind((address, {GREETING_PORT})); listening.listen()
    while True:
        connection, peer = listening.accept()
        connection.sendall(f"hello {{peer[0]}}\\n".encode()); connection.close()
def answer(query):
    end = query.index(0, 12) + 5
    is_a = query[end - 4:end - 2] == b"\\0\\1"
    record = b"\\xc0\\x0c" + struct.pack("!HHIH", 1, 1, 60, 4) + socket.inet_aton("{ANSWER}")
    return query[:2] + struct.pack("!HHHHH", 0x8180, 1, is_a, 0, 0) + query[12:end] + (record if is_a else b"")
def names(family, address):
    serving = socket.socket(family, socket.SOCK_DGRAM); serving.bind((address, 53))
    while True:
        query, peer = serving.recvfrom(4096)
        serving.sendto(answer(query), peer)
def names_tcp(address):
    listening = socket.socket(); listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind((address, 53)); listening.listen()
    while True:
        connection, _ = listening.accept()
        query = connection.recv(4096)[2:]
        found = answer(query); connection.sendall(struct.pack("!H", len(found)) + found); connection.close()
for address in sys.argv[1:]:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    for target, arguments in ((greet, (family, address)), (names, (family, address))):
        threading.Thread(target=target, args=arguments).start()
    if family == socket.AF_INET:
        threading.Thread(target=names_tcp, args=(address,)).start()
print("ready", flush=True)
'''


class World:
    """See the module."""

    def __init__(self, name: str) -> None:
        self.machine, self.internet = f"{name}-machine", f"{name}-internet"
        self._etc = Path("/etc/netns") / self.machine
        self._servers: list[subprocess.Popen[str]] = []

    def set_nameservers(self, *addresses: str) -> None:
        """What the machine's /etc/resolv.conf says, for programs that are started from now on."""
        self._etc.mkdir(parents=True, exist_ok=True)
        (self._etc / "resolv.conf").write_text("".join(f"nameserver {address}\n" for address in addresses))

    def words(self, *words: str, where: str = "") -> list[str]:
        """A command line that runs another one on the machine, or in the internet."""
        return ["ip", "netns", "exec", where or self.machine, *words]

    def output(self, *words: str, where: str = "") -> str:
        """What a command writes there."""
        done = subprocess.run(self.words(*words, where=where), capture_output=True, text=True, timeout=30, check=False)
        return done.stdout + done.stderr

    def serve(self, where: str, *addresses: str) -> None:
        """Servers for names (UDP and TCP) and greetings on these addresses."""
        words = self.words(sys.executable, "-c", _SERVERS, *addresses, where=where)
        server = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        self._servers.append(server)

    def interfaces(self) -> list[str]:
        """The names of the machine's interfaces, without the loopback one."""
        lines = self.output("ip", "-o", "link").splitlines()
        return [line.split(": ")[1].partition("@")[0] for line in lines if ": lo:" not in line]

    def leftovers(self) -> list[str]:
        """Interfaces, tables and rules of pybuild's on the machine."""
        found = [name for name in self.interfaces() if name != "uplink"]
        found += [line for line in self.output("nft", "list", "tables").splitlines() if "pybuild" in line]
        for program in ("iptables", "ip6tables"):
            found += [line for line in self.output(program, "-S").splitlines() if "pybuild" in line]
        return found

    def make(self) -> None:
        for name in (self.machine, self.internet):
            _run("ip", "netns", "add", name)
            self.output("ip", "link", "set", "lo", "up", where=name)
            self.output("sysctl", "-w", "net.ipv4.ip_forward=0", "net.ipv6.conf.all.forwarding=0", where=name)
        peer = f"peer{os.getpid()}"
        _run("ip", "link", "add", "uplink", "mtu", str(MTU), "netns", self.machine, "type", "veth",
             "peer", "name", peer, "mtu", str(MTU), "netns", self.internet)  # fmt: skip
        for where, device, addresses in (
            (self.machine, "uplink", (f"{UPLINK}/24", f"{UPLINK_6}/64")),
            (self.internet, peer, ("198.51.100.1/24", "2001:db8:1::1/64")),
            (self.internet, "lo", (f"{SERVER}/32", f"{SERVER_6}/128")),
        ):
            for address in addresses:
                options = ("nodad",) if ":" in address else ()
                self.output("ip", "addr", "add", address, "dev", device, *options, where=where)
            self.output("ip", "link", "set", device, "up", where=where)
        self.output("ip", "route", "add", "default", "via", "198.51.100.1")
        self.output("ip", "-6", "route", "add", "default", "via", "2001:db8:1::1")
        self.set_nameservers(SERVER)
        self.serve(self.internet, SERVER, SERVER_6)

    def close(self) -> None:
        for server in self._servers:
            server.kill()
            server.wait()
            assert server.stdout is not None
            server.stdout.close()
        for name in (self.machine, self.internet):
            subprocess.run(["ip", "netns", "delete", name], check=False)
        shutil.rmtree(self._etc, ignore_errors=True)


@contextmanager
def make_world() -> Iterator[World]:
    """A world for the duration of the block."""
    world = World(f"pybuild-test-{os.getpid()}")
    try:
        world.make()
        yield world
    finally:
        world.close()


def _run(*words: str) -> None:
    subprocess.run(words, check=True)
