"""A network for a namespace made by a program, without any privilege outside of it: pasta, else slirp4netns.

The program sits in the middle: it has a tap device in the namespace, and ordinary sockets of the machine's. One runs
for each namespace, as a child of this process that ends with it. What listens on the machine's loopback interface is
not reachable through it.

Sources: pasta(1), slirp4netns(1).
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import socket
import time

from builder.errors import SandboxError
from builder.sandbox import syscalls
from builder.sandbox.net.namespaces import Namespace, new_namespace
from builder.sandbox.net.netlink import RouteSocket
from builder.sandbox.net.resolv import RELAY_ADDRESS
from cache.namedtuple import NamedTuple

PROGRAMS = ("pasta", "slirp4netns")
HINT = "install passt (it has pasta) or slirp4netns, or use --network=host"
_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
_SLIRP_RELAY = "10.0.2.3"
_NAME = "/proc/fs/netns"
"""In a directory that every Linux has, and no such program needs."""
_TUN = "/dev/net/tun"
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
        self._running: dict[int, Running] = {}
        self._numbers = itertools.count()

    def add_namespace(self) -> Namespace:
        """A network namespace of this process's user namespace, connected. Raises OSError, SandboxError."""
        fd, netlink = new_namespace()
        namespace = Namespace(fd, next(self._numbers))
        try:
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

    def close(self) -> None:
        """End every program. Idempotent."""
        while self._running:
            _end(self._running.popitem()[1])


def has_tun() -> bool:
    """Whether this process may make the device that the programs need."""
    return os.access(_TUN, os.R_OK | os.W_OK)


def find_program() -> str:
    """The path of pasta or slirp4netns. Raises SandboxError with what to do when neither can be used."""
    if not has_tun():
        what = "may not be opened" if os.path.exists(_TUN) else "is not there"
        way = f"make {_TUN} (mode 0666, device 10:200; for a container --device {_TUN})"
        raise SandboxError(f"{_TUN} {what}", hint=f"{way}, or use --network=host")
    for name in PROGRAMS:
        found = shutil.which(name, path=_PATH)
        if found:
            return found
    raise SandboxError(f"neither {' nor '.join(PROGRAMS)} is installed", hint=HINT)


def connect(namespace_fd: int, program: str) -> Running:
    """Start a program for a network namespace of this process's own user namespace; it ends with this process.

    It may need a moment until the namespace has its addresses. Raises OSError.
    """
    argv = _pasta(program) if os.path.basename(program) == "pasta" else _slirp4netns(program)
    reading, writing = os.pipe2(os.O_CLOEXEC)
    parent = os.getpid()
    pid = os.fork()
    if not pid:
        try:
            syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() == parent:
                os.setsid()
                # pasta gives up when it finds this ignored, as it is in Python.
                signal.signal(signal.SIGPIPE, signal.SIG_DFL)
                _name_namespace(namespace_fd)
                os.dup2(writing, 1)
                os.dup2(writing, 2)
                os.execv(program, argv)  # noqa: S606 - no shell is wanted
        finally:
            os._exit(127)
    os.close(writing)
    os.set_blocking(reading, False)
    return Running(pid, os.pidfd_open(pid), reading)


def _name_namespace(fd: int) -> None:
    """Give a namespace a path that holds for this process alone.

    By /proc/PID the program would need as many capabilities as this process has, and it gives up its own at once; newer
    ones close the descriptors that they were started with.
    """
    syscalls.unshare(syscalls.CLONE_NEWNS)
    syscalls.mount("none", "/", flags=syscalls.MS_REC | syscalls.MS_SLAVE)
    syscalls.mount("tmpfs", os.path.dirname(_NAME), fstype="tmpfs")
    os.close(os.open(_NAME, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    syscalls.mount(f"/proc/self/fd/{fd}", _NAME, flags=syscalls.MS_BIND)


def _pasta(program: str) -> list[str]:
    options = ["--foreground", "--quiet", "--config-net", "--netns", _NAME, "--netns-only", "--no-netns-quit"]
    # Nothing is forwarded into the namespace, and its gateway is not the machine's loopback interface.
    ports = ["--tcp-ports", "none", "--udp-ports", "none", "--tcp-ns", "none", "--udp-ns", "none", "--no-map-gw"]
    return [program, *options, *ports, "--dns-forward", RELAY_ADDRESS, "--ns-ifname", "eth0"]


def _slirp4netns(program: str) -> list[str]:
    options = ["--configure", f"--mtu={_MTU}", "--disable-host-loopback", "--enable-ipv6"]
    return [program, *options, "--netns-type=path", _NAME, "eth0"]


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
