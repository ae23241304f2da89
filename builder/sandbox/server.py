"""The launcher's own process: waits for requests, forks a pid 1 for each, reports how it ended.

It is pid 1 of a pid namespace of its own, so that nothing outlives it: when it dies, or when the program that started
it closes the control socket by ending in whatever way, the kernel kills every step. Single-threaded, which is what
makes forking and changing namespaces safe. Runs under `python -I -S`.

    private mounts of this process (on /proc/fs, a tmpfs)
      root      where a step attaches its root      empty      a directory that masks directories
      step      where a step has its own tmpfs      etc-<n>    contents of /etc/hosts and /etc/resolv.conf
"""

from __future__ import annotations

import array  # noqa: F401 - socket.send_fds imports it, which must not be in each child
import contextlib
import gc
import json
import os
import select
import signal
import socket
from typing import NamedTuple

from builder.errors import BuildError
from builder.sandbox import capabilities, network, syscalls
from builder.sandbox.cgroup import GUARDED, OPEN, StepGroups, find_hierarchies
from builder.sandbox.filesystems import new_filesystem
from builder.sandbox.init import run_plan
from builder.sandbox.operations import EMPTY_DIR, NEW_ROOT, SCRATCH_DIR, STEP_DIR, Operation, SandboxState
from builder.sandbox.plan import Surroundings, device_attributes, plan
from builder.sandbox.spec import DEFAULT_HOSTNAME, ProcessSpec, exit_status
from builder.sandbox.wire import CONTROL_FD, HEADER, KILL, MAX_FDS, decode, encode_failure


class RunningStep(NamedTuple):
    """A pid 1 that has not ended yet."""

    step: int
    pid: int
    pidfd: int
    control: socket.socket
    groups: tuple[str, ...]


def main() -> None:
    """Become the launcher of the process at the other end of the control socket; returns when that is closed."""
    syscalls.close_range(CONTROL_FD + 1)
    os.setsid()
    outer_pid = os.getpid()
    syscalls.unshare(syscalls.CLONE_NEWPID)
    pid = os.fork()
    if pid:
        os.close(CONTROL_FD)
        _, status = os.waitpid(pid, 0)
        os._exit(exit_status(status).code)
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    os.set_inheritable(CONTROL_FD, False)
    control = socket.socket(fileno=CONTROL_FD)
    server = Server(control, outer_pid)
    try:
        server.serve()
    finally:
        server.close()


class Server:
    """The loop over requests and steps."""

    def __init__(self, control: socket.socket, outer_pid: int) -> None:
        self._control = control
        self._steps: dict[int, RunningStep] = {}
        self._etc_files: dict[str, str] = {}
        self._permitted = capabilities.permitted()
        self._hierarchies = find_hierarchies()
        self._groups = StepGroups(outer_pid, self._hierarchies)
        self._pid_namespace = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        _make_private_mounts()
        self._poll = select.poll()
        self._poll.register(control, select.POLLIN)
        gc.collect()
        gc.freeze()

    def serve(self) -> None:
        """Handle requests and ends of steps until the control socket is closed."""
        while True:
            for fd, _ in self._poll.poll():
                if fd != self._control.fileno():
                    self._finish(self._steps.pop(fd))
                elif not self._handle_request():
                    return

    def close(self) -> None:
        """Kill what still runs and remove the control groups."""
        for running in self._steps.values():
            self._kill(running, signal.SIGKILL)
        for running in self._steps.values():
            self._finish(running)
        self._groups.close()

    def _handle_request(self) -> bool:
        """One message; False at the end of the socket."""
        header, fds, _, _ = socket.recv_fds(self._control, HEADER.size, MAX_FDS, socket.MSG_CMSG_CLOEXEC)
        header += _receive(self._control, HEADER.size - len(header)) if header else b""
        if len(header) < HEADER.size:
            return False
        kind, step, size, number = HEADER.unpack(header)
        if kind == KILL:
            for running in self._steps.values():
                if running.step == step:
                    self._kill(running, number)
            return True
        body = _receive(self._control, size)
        if len(body) < size:
            return False
        control = socket.socket(fileno=fds[0])
        try:
            self._start(step, body, control, tuple(fds[1:]))
        finally:
            for fd in fds[1:]:
                os.close(fd)
        return True

    def _start(self, step: int, body: bytes, control: socket.socket, fds: tuple[int, ...]) -> None:
        """Fork a pid 1 that performs the plan of one request; failures go to the one who asked."""
        groups: tuple[str, ...] = ()
        try:
            spec, root = decode(body)
            kind = OPEN if spec.insecure else GUARDED
            groups = self._groups.create(step, kind)
            surroundings = self._surroundings(spec, groups, kind)
            planned = plan(spec, root, surroundings)
            state = SandboxState(spec, fds, control)
            state.device_attributes = device_attributes(spec, surroundings)
            pid = self._fork(planned, state)
        except (OSError, BuildError) as error:
            self._groups.remove(groups)
            _send(control, encode_failure("start the step", error)[0])
            control.close()
            return
        pidfd = os.pidfd_open(pid)
        self._steps[pidfd] = RunningStep(step, pid, pidfd, control, groups)
        self._poll.register(pidfd, select.POLLIN)

    def _fork(self, planned: tuple[Operation, ...], state: SandboxState) -> int:
        """A child that is pid 1 of a new pid namespace."""
        syscalls.unshare(syscalls.CLONE_NEWPID)
        try:
            pid = os.fork()
            if not pid:
                run_plan(planned, state)
            return pid
        finally:
            # The next child needs a namespace of its own, and unshare(2) makes it below the active one only.
            syscalls.setns(self._pid_namespace, syscalls.CLONE_NEWPID)

    def _surroundings(self, spec: ProcessSpec, groups: tuple[str, ...], kind: str) -> Surroundings:
        hosts = network.hosts_text(spec.hostname or DEFAULT_HOSTNAME, spec.extra_hosts)
        etc_files = (
            (self._etc_file(hosts), "/etc/hosts"),
            (self._etc_file(network.resolv_conf_text(spec)), "/etc/resolv.conf"),
        )
        guards = self._groups.guards_devices(kind)
        return Surroundings(self._hierarchies, groups, guards, self._permitted, etc_files)

    def _etc_file(self, content: str) -> str:
        """The name of a file on the private tmpfs that holds `content`; steps only ever see it read-only."""
        if content not in self._etc_files:
            name = f"etc-{len(self._etc_files)}"
            with open(f"{SCRATCH_DIR}/{name}", "wb") as file:
                file.write(os.fsencode(content))
                os.fchmod(file.fileno(), 0o644)
            self._etc_files[content] = name
        return self._etc_files[content]

    def _finish(self, running: RunningStep) -> None:
        """Collect a pid 1; when it is gone, so is everything else in its pid namespace."""
        self._poll.unregister(running.pidfd)
        _, status = os.waitpid(running.pid, 0)
        self._groups.remove(running.groups)
        _send(running.control, json.dumps({"exit": exit_status(status)}).encode("ascii"))
        running.control.close()
        os.close(running.pidfd)

    def _kill(self, running: RunningStep, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            syscalls.pidfd_send_signal(running.pidfd, number)


def _make_private_mounts() -> None:
    syscalls.unshare(syscalls.CLONE_NEWNS)
    syscalls.mount("none", "/", flags=syscalls.MS_REC | syscalls.MS_SLAVE)
    mount_fd = new_filesystem("tmpfs", (("mode", "0700"),), syscalls.MOUNT_ATTR_NOSUID | syscalls.MOUNT_ATTR_NODEV)
    syscalls.move_mount(mount_fd, syscalls.AT_FDCWD, SCRATCH_DIR)
    os.close(mount_fd)
    for path in (NEW_ROOT, EMPTY_DIR, STEP_DIR):
        os.mkdir(path, 0o755)


def _receive(control: socket.socket, size: int) -> bytes:
    """Exactly `size` bytes, fewer at the end of the socket."""
    received = bytearray()
    while len(received) < size:
        chunk = control.recv(size - len(received))
        if not chunk:
            break
        received += chunk
    return bytes(received)


def _send(control: socket.socket, message: bytes) -> None:
    # Whoever asked may have stopped listening.
    with contextlib.suppress(OSError):
        control.send(message)
