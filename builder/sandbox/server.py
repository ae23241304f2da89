"""The launcher's own process: waits for requests, forks a pid 1 for each, reports how it ended.

One process is always forked ahead and has prepared what every step needs, so that a request only waits for the rest.
The launcher is pid 1 of a pid namespace of its own, so that nothing outlives it: when it dies, or when the program that
started it closes the control socket by ending in whatever way, the kernel kills every step. Single-threaded, which is
what makes forking and changing namespaces safe. Runs under `python -I -S`.
"""

from __future__ import annotations

import array  # noqa: F401 - socket.send_fds imports it, which must not be in each child
import contextlib
import gc
import importlib
import itertools
import os
import select
import signal
import socket
from typing import NoReturn

from builder.errors import BuildError, SandboxError
from builder.sandbox import capabilities, idmap, seccomp, syscalls
from builder.sandbox.cgroup import GUARDED, OPEN, StepGroups, find_hierarchies
from builder.sandbox.init import run_step
from builder.sandbox.limited import Limited, LimitedGroups, class_of
from builder.sandbox.limits import killed_for_memory
from builder.sandbox.net.keeper import keep
from builder.sandbox.net.pool import NetworkPool, PooledNamespace
from builder.sandbox.plan import TTY_GROUP, Surroundings
from builder.sandbox.spec import ExitStatus, exit_status
from builder.sandbox.usage import usage
from builder.sandbox.wire import (
    CONTROL_FD,
    EXIT_NOT_STARTED,
    KILL,
    MAY_CHANGE_NETWORK,
    NAMESPACE_FD,
    NETWORK,
    OWN_NETWORK,
    RUN,
    RUN_INSECURE,
    RUN_LIMITED,
    Message,
    decode,
    encode_exit,
    encode_failure,
    receive_message,
    send_message,
)
from cache.namedtuple import NamedTuple

_IMPORTED_LATE = ("encodings.ascii", "encodings.latin_1", "encodings.utf_8", "threading")


class Waiting(NamedTuple):
    """A process that has prepared a sandbox, or is about to, and waits for its request."""

    pid: int
    pidfd: int
    requests: socket.socket
    groups: tuple[str, ...]
    has_limits: bool = False
    network: PooledNamespace | None = None
    is_trusted: bool = True
    """Whether the step has no right to change its network namespace."""


class RunningStep(NamedTuple):
    """A pid 1 that has not ended yet."""

    step: int
    process: Waiting
    control: socket.socket
    """Where the one who asked for the step listens."""


def main(*, is_remapped: bool) -> None:
    """Become the launcher of the process at the other end of the control socket; returns when that is closed."""
    syscalls.close_range((NAMESPACE_FD if is_remapped else CONTROL_FD) + 1)
    outer_pid = os.getpid()
    keeping, pooling = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = _fork_apart(is_remapped=is_remapped)
    if pid:
        os.close(CONTROL_FD)
        pooling.close()
        _be_outer(pid, keeping, NAMESPACE_FD if is_remapped else None)
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    keeping.close()
    os.set_inheritable(CONTROL_FD, False)
    control = socket.socket(fileno=CONTROL_FD)
    server = Server(control, outer_pid, NetworkPool(pooling))
    try:
        server.serve()
    finally:
        server.close()


def _fork_apart(*, is_remapped: bool) -> int:
    """Fork pid 1 of a new pid namespace: 0 in there, else the child that ends with it.

    Children and threads of the caller go on in its own namespace, to which only the machine's root may return after
    unshare(2); anybody else has a process in between, and so has who becomes remapped users there.
    """
    if idmap.is_initial() and not is_remapped:
        own_namespace = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        syscalls.unshare(syscalls.CLONE_NEWPID)
        pid = os.fork()
        if pid:
            syscalls.setns(own_namespace, syscalls.CLONE_NEWPID)
        os.close(own_namespace)
        return pid
    between = os.fork()
    if between:
        return between
    if is_remapped:
        _enter_namespace()
        os.close(NAMESPACE_FD)
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    syscalls.unshare(syscalls.CLONE_NEWPID)
    pid = os.fork()
    if pid:
        syscalls.close_range(CONTROL_FD)
        _, status = os.waitpid(pid, 0)
        os._exit(exit_status(status).code)
    return 0


def _be_outer(pid: int, keeping: socket.socket, owner_fd: int | None) -> NoReturn:
    """Keep the network for the launcher, and end with it."""
    try:
        keep(keeping, pid, owner_fd)
    finally:
        os._exit(EXIT_NOT_STARTED)


def _enter_namespace() -> None:
    """Be root of the user namespace that came with the start, and of a mount namespace that belongs to it."""
    # Python's own files may be out of reach afterwards.
    for module in _IMPORTED_LATE:
        importlib.import_module(module)
    syscalls.setns(NAMESPACE_FD, syscalls.CLONE_NEWUSER)
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    # Otherwise /proc/self would be the machine's root's.
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 1)
    syscalls.unshare(syscalls.CLONE_NEWNS)


class Server:
    """The loop over requests and steps."""

    def __init__(self, control: socket.socket, outer_pid: int, network: NetworkPool) -> None:
        self._control = control
        self._network = network
        self._queued: list[Message] = []
        """Requests that wait for a network namespace."""
        self._steps: dict[int, RunningStep] = {}
        self._permitted = capabilities.permitted()
        makes_devices = idmap.is_initial() and self._permitted & capabilities.mask_of(("CAP_MKNOD",))
        self._binds_devices = not makes_devices
        self._has_tty_group = idmap.has_id("gid", TTY_GROUP)
        self._hierarchies = find_hierarchies()
        self._groups = StepGroups(outer_pid, self._hierarchies)
        self._limited = LimitedGroups(outer_pid, self._hierarchies)
        self._numbers = itertools.count(1)
        self._pid_namespace = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        self._poll = select.poll()
        self._poll.register(control, select.POLLIN)
        self._poll.register(network, select.POLLIN)
        self._spare: Waiting | None = None
        seccomp.compile_default(frozenset(capabilities.DEFAULT))
        # Children are short-lived copies: a collection in them would only copy pages.
        gc.collect()
        gc.freeze()
        gc.disable()

    def serve(self) -> None:
        """Handle requests and ends of steps until the control socket is closed."""
        self._fork_ahead()
        while True:
            for fd, _ in self._poll.poll():
                if fd in self._steps:
                    self._finish(self._steps.pop(fd))
                elif fd == self._network.fileno():
                    self._receive_network()
                elif not self._handle_request():
                    return

    def close(self) -> None:
        """Kill what still runs and remove the control groups."""
        for running in self._steps.values():
            _kill(running.process, signal.SIGKILL)
        for running in self._steps.values():
            self._finish(running)
        if self._spare is not None:
            self._discard(self._spare)
        self._groups.close()
        self._limited.close()

    def _handle_request(self) -> bool:
        """One message; False at the end of the socket."""
        message = receive_message(self._control)
        if message is None:
            return False
        if message.kind == KILL:
            self._signal(message)
        elif message.kind == NETWORK:
            self._network.open(os.fsdecode(message.body), message.fds[0])
            os.close(message.fds[0])
        elif message.number & OWN_NETWORK:
            self._queued.append(message)
            self._start_queued()
        else:
            self._start(message)
        return True

    def _signal(self, message: Message) -> None:
        for running in self._steps.values():
            if running.step == message.step:
                _kill(running.process, message.number)
        for queued in [each for each in self._queued if each.step == message.step]:
            self._queued.remove(queued)
            _refuse(queued, SandboxError("ended before it began"))

    def _receive_network(self) -> None:
        try:
            self._network.receive()
        except (OSError, SandboxError) as error:
            if self._queued:
                _refuse(self._queued.pop(0), error)
        self._start_queued()

    def _start_queued(self) -> None:
        """Start requests for which there is a network namespace now."""
        while self._queued and (namespace := self._network.take(len(self._queued))):
            message = self._queued.pop(0)
            self._start(message._replace(fds=(*message.fds, os.dup(namespace.fd))), namespace)

    def _start(self, message: Message, network: PooledNamespace | None = None) -> None:
        """Give a request to a waiting process; failures go to the one who asked."""
        try:
            is_trusted = not message.number & MAY_CHANGE_NETWORK
            process = self._hand_over(message)._replace(network=network, is_trusted=is_trusted)
        except (OSError, BuildError) as error:
            _refuse(message, error)
            if network is not None:
                self._network.give_back(network, is_trusted=True)
            return
        control = socket.socket(fileno=message.fds[0])
        for fd in message.fds[1:]:
            os.close(fd)
        self._steps[process.pidfd] = RunningStep(message.step, process, control)
        self._poll.register(process.pidfd, select.POLLIN)
        self._fork_ahead()

    def _hand_over(self, message: Message) -> Waiting:
        if message.kind == RUN and self._spare is not None:
            process, self._spare = self._spare, None
            try:
                send_message(process.requests, message)
            except OSError:
                # Killed while it waited, by whatever is short of memory.
                self._discard(process)
            else:
                process.requests.close()
                return process
        process = self._fork_limited(message) if message.kind == RUN_LIMITED else self._fork(_class_of(message))
        send_message(process.requests, message)
        process.requests.close()
        return process

    def _fork_ahead(self) -> None:
        with contextlib.suppress(OSError):
            self._spare = self._spare or self._fork(GUARDED)

    def _fork_limited(self, message: Message) -> Waiting:
        """A child in groups that hold it to the limits of the request."""
        spec, _ = decode(message.body)
        kind = class_of(spec)
        return self._fork(kind, self._limited.create(next(self._numbers), kind, spec))

    def _fork(self, kind: str, limited: Limited | None = None) -> Waiting:
        """A child that is pid 1 of a new pid namespace and waits for a request."""
        groups = limited.groups if limited else self._groups.create(next(self._numbers), kind)
        guards_devices = limited.guards_devices if limited else self._groups.guards_devices(kind)
        surroundings = Surroundings(
            self._hierarchies,
            groups,
            guards_devices,
            kind == OPEN,
            self._permitted,
            binds_devices=self._binds_devices,
            has_tty_group=self._has_tty_group,
        )
        ours, theirs = socket.socketpair()
        syscalls.unshare(syscalls.CLONE_NEWPID)
        try:
            pid = os.fork()
            if not pid:
                run_step(theirs.fileno(), surroundings)
        except OSError:
            ours.close()
            self._groups.remove(groups)
            raise
        finally:
            theirs.close()
            # The next child needs a namespace of its own, and unshare(2) makes it below the active one only.
            syscalls.setns(self._pid_namespace, syscalls.CLONE_NEWPID)
        return Waiting(pid, os.pidfd_open(pid), ours, groups, limited is not None)

    def _finish(self, running: RunningStep) -> None:
        """Collect a pid 1; when it is gone, so is everything else in its pid namespace."""
        self._poll.unregister(running.process.pidfd)
        status = self._collect(running.process)
        _send(running.control, encode_exit(status))
        running.control.close()

    def _discard(self, process: Waiting) -> None:
        _kill(process, signal.SIGKILL)
        process.requests.close()
        self._collect(process)

    def _collect(self, process: Waiting) -> ExitStatus:
        _, status, used = os.wait4(process.pid, 0)
        os.close(process.pidfd)
        if process.network is not None:
            self._network.give_back(process.network, is_trusted=process.is_trusted)
        killed = process.has_limits and killed_for_memory(process.groups)
        found = usage(process.groups, used)
        self._groups.remove(process.groups)
        return exit_status(status)._replace(out_of_memory=killed, usage=found)


def _class_of(message: Message) -> str:
    return OPEN if message.kind == RUN_INSECURE else GUARDED


def _kill(process: Waiting, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        syscalls.pidfd_send_signal(process.pidfd, number)


def _refuse(message: Message, error: OSError | BuildError) -> None:
    """Tell the one who asked why there is no step, and let go of what came with the request."""
    with socket.socket(fileno=message.fds[0]) as control:
        _send(control, encode_failure("start the step", error)[0])
    for fd in message.fds[1:]:
        os.close(fd)


def _send(control: socket.socket, message: bytes) -> None:
    # Whoever asked may have stopped listening.
    with contextlib.suppress(OSError):
        control.send(message)
