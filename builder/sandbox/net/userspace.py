"""A network for a namespace made by a program, without any privilege outside of it: pasta, else slirp4netns.

The program sits in the middle: it has a tap device in the namespace, and ordinary sockets of the machine's. One runs
for each namespace, as a child of this process that ends with it. What listens on the machine's loopback interface is
not reachable through it.

Sources: pasta(1), slirp4netns(1).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import time
from typing import NamedTuple

from builder.errors import SandboxError
from builder.sandbox import syscalls
from builder.sandbox.net.bridge import Namespace, entered
from builder.sandbox.net.netlink import RouteSocket
from builder.sandbox.net.resolv import RELAY_ADDRESS

PROGRAMS = ("pasta", "slirp4netns")
HINT = "install passt (it has pasta) or slirp4netns, or use --network=host"
_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
_LOOPBACK = 1
_SLIRP_RELAY = "10.0.2.3"
_MTU = 65520
_READY_SECONDS, _READY_PAUSE = 10.0, 0.002


class Running(NamedTuple):
    """A program that serves one namespace, and what it writes when something is wrong."""

    pid: int
    pidfd: int
    errors_fd: int


class Userspace:
    """Namespaces with a program each. Raises SandboxError when there is none."""

    def __init__(self) -> None:
        self.program = find_program()
        self.notes: list[str] = []
        self.has_ipv6 = has_default_route(socket.AF_INET6)
        self.relay = RELAY_ADDRESS if os.path.basename(self.program) == "pasta" else _SLIRP_RELAY
        self._home_fd = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self._running: dict[int, Running] = {}

    def add_namespace(self) -> Namespace:
        """A network namespace of this process's user namespace, connected. Raises OSError, SandboxError."""
        syscalls.unshare(syscalls.CLONE_NEWNET)
        try:
            fd = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            netlink = RouteSocket()
        finally:
            syscalls.setns(self._home_fd, syscalls.CLONE_NEWNET)
        namespace = Namespace(fd, len(self._running))
        try:
            netlink.set_up(_LOOPBACK)
            running = connect(fd, self.program)
            self._running[fd] = running
            _wait_for_route(netlink, running)
        except BaseException:
            self.remove_namespace(namespace)
            raise
        finally:
            netlink.close()
        return namespace

    def remove_namespace(self, namespace: Namespace) -> None:
        """End the program and give the namespace up."""
        running = self._running.pop(namespace.fd, None)
        if running is not None:
            _end(running)
        os.close(namespace.fd)

    def inside(self, namespace: Namespace) -> contextlib.AbstractContextManager[None]:
        """Be in a step's namespace within the block."""
        return entered(namespace.fd, self._home_fd)

    def close(self) -> None:
        """End every program. Idempotent."""
        for running in self._running.values():
            _end(running)
        self._running.clear()


def find_program() -> str:
    """The path of pasta or slirp4netns. Raises SandboxError with what to do when neither can be used."""
    if not os.path.exists("/dev/net/tun"):
        raise SandboxError("there is no /dev/net/tun", hint="load the kernel module tun, or use --network=host")
    for name in PROGRAMS:
        found = shutil.which(name, path=_PATH)
        if found:
            return found
    raise SandboxError(f"neither {' nor '.join(PROGRAMS)} is installed", hint=HINT)


def connect(namespace_fd: int, program: str) -> Running:
    """Start a program for a network namespace of this process's own user namespace; it ends with this process.

    It may need a moment until the namespace has its addresses. Raises OSError.
    """
    path = f"/proc/{os.getpid()}/fd/{namespace_fd}"
    argv = _pasta(program, path) if os.path.basename(program) == "pasta" else _slirp4netns(program, path)
    reading, writing = os.pipe2(os.O_CLOEXEC)
    parent = os.getpid()
    pid = os.fork()
    if not pid:
        try:
            syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() == parent:
                os.setsid()
                os.dup2(writing, 1)
                os.dup2(writing, 2)
                os.execv(program, argv)  # noqa: S606 - no shell is wanted
        finally:
            os._exit(127)
    os.close(writing)
    os.set_blocking(reading, False)
    return Running(pid, os.pidfd_open(pid), reading)


def _pasta(program: str, path: str) -> list[str]:
    options = ["--foreground", "--quiet", "--config-net", "--netns", path, "--netns-only", "--no-netns-quit"]
    # Nothing is forwarded into the namespace, and its gateway is not the machine's loopback interface.
    ports = ["--tcp-ports", "none", "--udp-ports", "none", "--tcp-ns", "none", "--udp-ns", "none", "--no-map-gw"]
    return [program, *options, *ports, "--dns-forward", RELAY_ADDRESS, "--ns-ifname", "eth0"]


def _slirp4netns(program: str, path: str) -> list[str]:
    options = ["--configure", f"--mtu={_MTU}", "--disable-host-loopback", "--enable-ipv6"]
    return [program, *options, "--netns-type=path", path, "eth0"]


def _wait_for_route(netlink: RouteSocket, running: Running) -> None:
    """Until the namespace has a default route."""
    deadline = time.monotonic() + _READY_SECONDS
    while not any(not route.prefix_length for route in netlink.routes()):
        if time.monotonic() > deadline or os.waitid(os.P_PIDFD, running.pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            said = b""
            with contextlib.suppress(OSError):
                said = os.read(running.errors_fd, 4096)
            reason = " ".join(said.decode(errors="replace").split()) or "it did not get ready"
            raise SandboxError(f"the program that makes the network: {reason}", hint=HINT)
        time.sleep(_READY_PAUSE)


def _end(running: Running) -> None:
    with contextlib.suppress(OSError):
        syscalls.pidfd_send_signal(running.pidfd, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(running.pid, 0)
    os.close(running.pidfd)
    os.close(running.errors_fd)


def has_default_route(family: int) -> bool:
    """Whether the network namespace of this thread reaches other networks."""
    netlink = RouteSocket()
    try:
        return any(route.family == family and not route.prefix_length for route in netlink.routes())
    finally:
        netlink.close()
