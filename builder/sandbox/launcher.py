"""The sandbox as the builder sees it: run a process described by a spec on a root, and hear how it ended.

Owns the launcher process, one per Launcher, started with the first step. Every step has a socket of its own, on which
the launcher and the step's pid 1 answer, so that threads can run steps at the same time without knowing each other.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
import signal
import socket
import stat
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from builder.entitlements import HOST_NETWORK
from builder.errors import BuildError, SandboxError
from builder.sandbox import syscalls
from builder.sandbox.delegation import Room
from builder.sandbox.network import BRIDGE, OwnNetwork, etc_mounts
from builder.sandbox.snapshotter import OVERLAY, Snapshotter
from builder.sandbox.spec import ExitStatus, Limits, Mount, ProcessSpec, RootMount
from builder.sandbox.stubs import remove_stubs
from builder.sandbox.userns import take_privileges
from builder.sandbox.validate import check
from builder.sandbox.wire import (
    CONTROL_FD,
    KILL,
    MAX_FDS,
    MAX_REPLY,
    MAY_CHANGE_NETWORK,
    NAMESPACE_FD,
    NETWORK,
    OWN_NETWORK,
    RUN,
    RUN_INSECURE,
    RUN_LIMITED,
    Message,
    Stub,
    decode_exit,
    decode_failure,
    encode,
    send_message,
)
from cache.namedtuple import NamedTuple

if TYPE_CHECKING:
    from builder.snapshotters.idmapped import Remapped


class Streams(NamedTuple):
    """Descriptors for the process's standard streams; None is an empty input, or output that nobody reads."""

    stdin_fd: int | None = None
    stdout_fd: int | None = None
    stderr_fd: int | None = None


class StartedStep(NamedTuple):
    """A step whose program is about to run; `terminal_fd` is its terminal's other side, `network_fd` its network
    namespace if the spec hands it over: the caller's to close."""

    step: int
    terminal_fd: int | None
    network_fd: int | None


class Launcher:
    """Runs processes in sandboxes. Safe to use from several threads; closing it ends every process."""

    def __init__(
        self,
        snapshotter: Snapshotter = OVERLAY,
        namespace: Remapped | None = None,
        *,
        granted: frozenset[str] = frozenset(),
    ) -> None:
        self.snapshotter = snapshotter
        self.granted = granted
        """The entitlements that processes may need."""
        self._namespace = namespace
        self._lock = threading.RLock()  # a signal handler may kill() while its thread holds it
        self._control: socket.socket | None = None
        self._pid = 0
        self._is_closed = False
        self._numbers = itertools.count(1)
        self._network_lock = threading.Lock()
        self._network_answers: socket.socket | None = None
        self._network: OwnNetwork | SandboxError | None = None
        self._room = Room()

    def __enter__(self) -> Launcher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        """Start the launcher process if it does not run yet. Idempotent; raises SandboxError."""
        with self._lock:
            if self._is_closed:
                raise SandboxError("the sandbox launcher was closed")
            if self._control is not None:
                return
            take_privileges()
            try:
                self._pid, self._control = _spawn(self._namespace)
            except OSError as error:
                raise SandboxError(f"start the sandbox launcher: {error.strerror}") from error

    def prepare_network(self) -> None:
        """Have a network for steps made while this process does something else. Idempotent; raises SandboxError."""
        self.start()
        with self._lock:
            if self._network_answers is not None:
                return
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                self._request(Message(NETWORK, 0, 0, os.fsencode(_library_dir()), (theirs.fileno(),)))
            self._network_answers = ours

    def network(self) -> OwnNetwork:
        """The network for steps whose spec says `bridge`; waits until it is there. Raises SandboxError that says why
        there can be none here."""
        self.prepare_network()
        with self._network_lock:
            if self._network is None:
                assert self._network_answers is not None
                self._network = _read_network(self._network_answers)
        if isinstance(self._network, SandboxError):
            raise SandboxError(str(self._network), hint=self._network.hint)
        return self._network

    def run(
        self,
        spec: ProcessSpec,
        root: RootMount,
        streams: Streams = Streams(),  # noqa: B008 - a value
        *,
        on_start: Callable[[StartedStep], None] | None = None,
    ) -> ExitStatus:
        """Run one process to its end; blocks this thread.

        Raises SandboxError when the sandbox cannot be made, CommandError (a BuildError) when the program cannot be
        started, BuildError for an unknown user, a bad working directory or a bad mount. Whatever way it ends, nothing
        of the step runs afterwards and the mount points that it needed are gone from the upper directory.
        """
        if spec.insecure and self._namespace is not None:
            raise BuildError("security.insecure means nothing to remapped users", hint="leave out --userns=auto")
        if self._namespace is not None and _has_groups_of_its_own(spec):
            raise BuildError("remapped users have no limits and no --cgroup-parent", hint="leave out --userns=auto")
        # Which network there can be was settled by whoever made the spec; the choice is no longer in it.
        check(spec, self.granted | {HOST_NETWORK})
        self.start()
        network = self.network() if spec.network == BRIDGE else None
        stubs: list[Stub] = []
        try:
            with contextlib.ExitStack() as opened:
                usable = opened.enter_context(self.snapshotter.mounted(root))
                wanted = (*etc_mounts(spec, network), *spec.mounts)
                mounts = tuple([opened.enter_context(self.snapshotter.attached(mount)) for mount in wanted])
                return self._run(spec._replace(mounts=mounts), usable, streams, stubs, on_start)
        finally:
            if root.upper_dir is not None and stubs:
                remove_stubs(root.upper_dir, stubs)

    def _run(
        self,
        spec: ProcessSpec,
        root: RootMount,
        streams: Streams,
        stubs: list[Stub],
        on_start: Callable[[StartedStep], None] | None,
    ) -> ExitStatus:
        """`run` of what can be mounted as it is; `stubs` gets the mount points that were made."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        step = next(self._numbers)
        with ours, contextlib.ExitStack() as opened:
            with theirs:
                wire_spec, fds = _descriptors(spec, streams, opened, theirs.fileno())
                if self._namespace is not None:
                    _give_pipes(fds[1:4], self._namespace.base)
                placed = _place(root, fds)
                kind = RUN_INSECURE if spec.insecure else RUN
                if spec.devices or _has_groups_of_its_own(spec):
                    kind = RUN_LIMITED
                    self._room.make(spec)
                self._request(Message(kind, step, _network_flags(spec), encode(wire_spec, placed), tuple(fds)))
            try:
                return self._follow(step, ours, stubs, on_start)
            except BaseException:
                self.kill(step, signal.SIGKILL)
                _drain(ours)
                raise

    def kill(self, step: int, number: int = signal.SIGKILL) -> None:
        """Send a signal to pid 1 of a step; no error if it has ended."""
        with self._lock, contextlib.suppress(OSError):
            if self._control is not None:
                send_message(self._control, Message(KILL, step, number, b"", ()))

    def close(self) -> None:
        """End every step and the launcher, for good. Idempotent."""
        with self._lock:
            self._is_closed = True
            if self._control is None:
                return
            self._control.close()
            self._control = None
            if self._network_answers is not None:
                self._network_answers.close()
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self._pid, 0)
            self._room.give_back()

    def _request(self, message: Message) -> None:
        with self._lock:
            if self._control is None:
                raise SandboxError("the sandbox launcher was closed")
            try:
                send_message(self._control, message)
            except OSError as error:
                raise SandboxError("the sandbox launcher ended unexpectedly") from error

    def _follow(
        self, step: int, answers: socket.socket, stubs: list[Stub], on_start: Callable[[StartedStep], None] | None
    ) -> ExitStatus:
        failure: BuildError | None = None
        for message, fds in _messages(answers):
            stubs += [Stub(*fields) for fields in message.get("stubs", ())]
            if "ready" in message:
                handed = dict(zip(message["ready"], fds, strict=True))
                if on_start is not None:
                    on_start(StartedStep(step, handed.get("terminal"), handed.get("network")))
                else:
                    for fd in fds:
                        os.close(fd)
            elif "failure" in message:
                failure = decode_failure(message["failure"])
            elif failure is None:
                return decode_exit(message["exit"])
        raise failure or SandboxError("the sandbox launcher ended unexpectedly")


def _place(root: RootMount, fds: list[int]) -> RootMount:
    """The root with its descriptors added to those of the message, and named by their place among them."""
    if root.source is not None:
        fds.append(root.source)
        root = root._replace(source=len(fds) - 2)
    if root.upper_source is not None:
        fds.append(root.upper_source)
        root = root._replace(upper_source=len(fds) - 2)
    return root


def _spawn(namespace: Remapped | None) -> tuple[int, socket.socket]:
    """The launcher's pid and our end of its control socket."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    mount_fd, program = _read_only_interpreter()
    main_path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "launcher_main.py")
    control = fcntl.fcntl(theirs, fcntl.F_DUPFD_CLOEXEC, 10)
    joined = [] if namespace is None else [(os.POSIX_SPAWN_DUP2, namespace.fd, NAMESPACE_FD)]
    words = [] if namespace is None else ["remapped"]
    try:
        with theirs:
            pid = os.posix_spawn(
                program,
                [os.path.realpath(sys.executable), "-I", "-S", "-X", "utf8", main_path, *words],
                {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ},
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDWR, 0),
                    (os.POSIX_SPAWN_DUP2, 0, 1),
                    (os.POSIX_SPAWN_DUP2, control, CONTROL_FD),
                    *joined,
                ],
                setsigmask=(),
                setsigdef=(signal.SIGPIPE,),
                setsid=True,  # a ^C at the terminal is for pybuild, from the launcher's first moment on
            )
    except OSError:
        ours.close()
        raise
    finally:
        os.close(control)
        os.close(mount_fd)
    return pid, ours


def _read_only_interpreter() -> tuple[int, str]:
    """A read-only mount that this process's interpreter is on, and its path there, good while the mount is open.

    A program in the sandbox may get hold of the file that the launcher runs, as /proc/self/exe, and must not be able to
    write it (CVE-2019-5736). The whole mount, not the one file, so that its path, and what is found by it, is the same.
    """
    program = os.path.realpath(sys.executable)
    mount_dir = os.path.dirname(program)
    while not os.path.ismount(mount_dir):
        mount_dir = os.path.dirname(mount_dir)
    # With all that is mounted below, because a user namespace may not uncover anything; read-only is the top alone.
    tree = syscalls.open_tree(syscalls.AT_FDCWD, mount_dir, syscalls.OPEN_TREE_CLONE | syscalls.AT_RECURSIVE)
    mount_fd = fcntl.fcntl(tree, fcntl.F_DUPFD_CLOEXEC, 10)
    os.close(tree)
    syscalls.mount_setattr(mount_fd, syscalls.MOUNT_ATTR_RDONLY)
    return mount_fd, f"/proc/self/fd/{mount_fd}/{os.path.relpath(program, mount_dir)}"


def _descriptors(
    spec: ProcessSpec, streams: Streams, opened: contextlib.ExitStack, answer_fd: int
) -> tuple[ProcessSpec, list[int]]:
    """The spec with descriptors replaced by their place, and what goes with it: answers, streams, mount sources."""
    null_fd = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    opened.callback(os.close, null_fd)
    fds = [answer_fd, *(null_fd if fd is None else fd for fd in streams)]
    mounts: list[Mount] = []
    for mount in spec.mounts:
        if isinstance(mount.source, int):
            fds.append(_detached(mount.source, opened))
            mounts.append(mount._replace(source=len(fds) - 2))
        else:
            mounts.append(mount)
    if len(fds) > MAX_FDS:
        raise SandboxError(f"{len(fds)} descriptors for one step: expected at most {MAX_FDS}")
    return spec._replace(mounts=tuple(mounts)), fds


def _has_groups_of_its_own(spec: ProcessSpec) -> bool:
    return bool(spec.cgroup_parent) or (spec.limits, spec.build_limits) != (Limits(), Limits())


def _network_flags(spec: ProcessSpec) -> int:
    if spec.network != BRIDGE:
        return 0
    may_change = spec.insecure or "CAP_NET_ADMIN" in spec.capabilities
    return OWN_NETWORK | (MAY_CHANGE_NETWORK if may_change else 0)


def _read_network(answers: socket.socket) -> OwnNetwork | SandboxError:
    """What the keeper of the network says, once it has made it or could not."""
    packet = answers.recv(MAX_REPLY)
    if not packet:
        return SandboxError("the process that keeps the network ended unexpectedly")
    message = json.loads(packet)
    if "failure" in message:
        return SandboxError(message["failure"], hint=message["hint"])
    return OwnNetwork(message["ipv6"], message["relay"], tuple(message["notes"]))


def _library_dir() -> str:
    """The directory that pyroute2 is installed in, or "": the launcher's interpreter knows no such places."""
    from importlib.machinery import PathFinder

    spec = PathFinder.find_spec("pyroute2")
    return os.path.dirname(os.path.dirname(spec.origin)) if spec is not None and spec.origin else ""


def _give_pipes(fds: Sequence[int], owner: int) -> None:
    """Let root of another namespace have the pipes of its streams: /dev/stdout opens them anew."""
    for fd in fds:
        if stat.S_ISFIFO(os.fstat(fd).st_mode):
            os.fchown(fd, owner, owner)


def _detached(fd: int, opened: contextlib.ExitStack) -> int:
    """A detached copy of the mount that `fd` is in; `fd` itself if it is the root of a detached mount already."""
    flags = syscalls.OPEN_TREE_CLONE | syscalls.AT_EMPTY_PATH | syscalls.AT_RECURSIVE
    try:
        tree = syscalls.open_tree(fd, "", flags)
    except OSError:
        # Before Linux 6.15 a detached mount cannot be copied, only given away.
        return fd
    opened.callback(os.close, tree)
    return tree


def _messages(answers: socket.socket) -> Iterator[tuple[dict[str, Any], list[int]]]:
    """What the step's pid 1 and the launcher say, until both have ended."""
    while True:
        payload, fds, _, _ = socket.recv_fds(answers, MAX_REPLY, 2, socket.MSG_CMSG_CLOEXEC)
        if not payload:
            return
        yield json.loads(payload), list(fds)


def _drain(answers: socket.socket) -> None:
    """Wait until nothing of the step is left."""
    with contextlib.suppress(OSError):
        while answers.recv(MAX_REPLY):
            pass
