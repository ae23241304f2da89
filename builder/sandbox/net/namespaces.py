"""Making and visiting network namespaces. What does so is a thread of its own each time.

A namespace is a thread's, and one without privileges over the machine's cannot come back to it (setns(2)): the thread
that visits ends there, the others never leave.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable

from builder.sandbox import syscalls
from builder.sandbox.apart import T, in_thread
from builder.sandbox.net.netlink import RouteSocket
from cache.namedtuple import NamedTuple

_LOOPBACK = 1


class Namespace(NamedTuple):
    """The network namespace of a step; `number` is one that no other of the build has now."""

    fd: int
    number: int


def new_namespace(owner_fd: int | None = None) -> tuple[int, RouteSocket]:
    """A descriptor of a new network namespace with a loopback interface that is up, and a socket in it. OSError.

    It belongs to the user namespace behind `owner_fd`, else to this process's.
    """

    def make() -> tuple[int, RouteSocket]:
        syscalls.unshare(syscalls.CLONE_NEWNET)
        return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC), RouteSocket()

    if owner_fd is None:
        fd, netlink = in_thread(make)
    else:
        fd = _make_owned(owner_fd)
        netlink = inside(fd, RouteSocket)
    try:
        netlink.set_up(_LOOPBACK)
    except BaseException:
        netlink.close()
        os.close(fd)
        raise
    return fd, netlink


def _make_owned(owner_fd: int) -> int:
    """A descriptor of a new network namespace of another user namespace, which no process with threads can enter."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        pid = os.fork()
        if not pid:
            try:
                syscalls.setns(owner_fd, syscalls.CLONE_NEWUSER)
                syscalls.unshare(syscalls.CLONE_NEWNET)
                socket.send_fds(theirs, [b"n"], [os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)])
            finally:
                os._exit(0)
        theirs.close()
        _, fds, _, _ = socket.recv_fds(ours, 1, 1, socket.MSG_CMSG_CLOEXEC)
        os.waitpid(pid, 0)
    if not fds:
        raise OSError(errno.EPERM, "a network namespace for remapped users cannot be made")
    return fds[0]


def inside(fd: int, work: Callable[[], T]) -> T:
    """What `work` returns or raises when it is called in a network namespace."""

    def visit() -> T:
        syscalls.setns(fd, syscalls.CLONE_NEWNET)
        return work()

    return in_thread(visit)
