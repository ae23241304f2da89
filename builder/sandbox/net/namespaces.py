"""Making and visiting network namespaces. What does so is a thread of its own each time.

A namespace is a thread's, and one without privileges over the machine's cannot come back to it (setns(2)): the thread
that visits ends there, the others never leave.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NamedTuple

from builder.sandbox import syscalls
from builder.sandbox.apart import T, in_thread
from builder.sandbox.net.netlink import RouteSocket

_LOOPBACK = 1


class Namespace(NamedTuple):
    """The network namespace of a step; `number` is one that no other of the build has now."""

    fd: int
    number: int


def new_namespace() -> tuple[int, RouteSocket]:
    """A descriptor of a new network namespace with a loopback interface that is up, and a socket in it. OSError."""

    def make() -> tuple[int, RouteSocket]:
        syscalls.unshare(syscalls.CLONE_NEWNET)
        return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC), RouteSocket()

    fd, netlink = in_thread(make)
    try:
        netlink.set_up(_LOOPBACK)
    except BaseException:
        netlink.close()
        os.close(fd)
        raise
    return fd, netlink


def inside(fd: int, work: Callable[[], T]) -> T:
    """What `work` returns or raises when it is called in a network namespace."""

    def visit() -> T:
        syscalls.setns(fd, syscalls.CLONE_NEWNET)
        return work()

    return in_thread(visit)
