"""The process itself: terminal, descriptors, limits, working directory, user, privileges, program.

Performed after the pivot, so that every path is the image's. Runs under `python -I -S`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import resource
import signal
import socket
import stat
import struct
import termios

from builder.errors import BuildError
from builder.sandbox import idmap, passwd, syscalls
from builder.sandbox.diagnosis import missing_ids
from builder.sandbox.filesystems import is_null
from builder.sandbox.operations import SandboxState, clone_mount
from builder.sandbox.targets import make_directories, open_system_dir
from builder.sandbox.wire import CommandError
from cache.namedtuple import NamedTuple

_RLIMITS = "cpu fsize data stack core rss nproc nofile memlock as locks sigpending msgqueue nice rtprio rttime"
RLIMITS = tuple(_RLIMITS.split())
"""By their number (getrlimit(2)); the names are those of ulimit options."""

_TIOCSPTLCK, _TIOCGPTN, _TIOCGPTPEER = 0x40045431, 0x80045430, 0x5441


class StartSession(NamedTuple):
    """A session and a keyring of its own."""

    def describe(self) -> str:
        return "start a session"

    def perform(self, state: SandboxState) -> None:
        os.setsid()
        try:
            syscalls.keyctl_join_session_keyring()
        except OSError as error:
            # A container may forbid keyrings, to steps as well.
            if error.errno not in (errno.ENOSYS, errno.EPERM):
                raise


class OpenTerminal(NamedTuple):
    """A pseudo-terminal of the sandbox's own devpts, also known as /dev/console (pts(4))."""

    def describe(self) -> str:
        return "open a terminal"

    def perform(self, state: SandboxState) -> None:
        dev_fd, pts_fd = (open_system_dir(state.root_fd, path) for path in ("dev", "dev/pts"))
        state.terminal_fd = os.open("ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC, dir_fd=pts_fd)
        fcntl.ioctl(state.terminal_fd, _TIOCSPTLCK, struct.pack("i", 0))
        number = struct.unpack("i", fcntl.ioctl(state.terminal_fd, _TIOCGPTN, bytes(4)))[0]
        terminal = clone_mount(os.open(str(number), os.O_PATH | os.O_CLOEXEC, dir_fd=pts_fd), 0)
        os.mknod("console", stat.S_IFREG | 0o600, dir_fd=dev_fd)
        syscalls.move_mount(terminal, dev_fd, "console")
        for fd in (terminal, dev_fd, pts_fd):
            os.close(fd)


class LookUpUser(NamedTuple):
    """Who USER is in this image, and the environment that follows from it."""

    user: str
    env: tuple[str, ...]
    add_home: bool
    groups: tuple[int, ...] = ()

    def describe(self) -> str:
        return "look up the user"

    def perform(self, state: SandboxState) -> None:
        source = passwd.read_file(state.root_fd, "/etc/passwd")
        group = passwd.read_file(state.root_fd, "/etc/group")
        user = passwd.resolve_user(self.user, source, group)
        state.user = user._replace(groups=(*user.groups, *self.groups))
        _check_ids(state.user)
        pairs = (entry.partition("=") for entry in self.env)
        state.env = {name: value for name, separator, value in pairs if separator and name}
        if self.add_home and not state.env.get("HOME"):
            state.env["HOME"] = passwd.home_of(state.user.uid, source)


class ConnectStreams(NamedTuple):
    """stdin, stdout and stderr: those of the request, the terminal, or the sandbox's /dev/null."""

    def describe(self) -> str:
        return "connect the standard streams"

    def perform(self, state: SandboxState) -> None:
        if state.terminal_fd >= 0:
            terminal = fcntl.ioctl(state.terminal_fd, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY)
            fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
            os.fchown(terminal, state.user.uid, -1)
            sources = [terminal] * 3
        else:
            sources = [_stream(fd, state.user.uid) for fd in state.fds[:3]]
        for number, fd in enumerate(sources):
            os.dup2(fd, number)


class SetLimits(NamedTuple):
    """Resource limits, and the mask for new files."""

    rlimits: tuple[tuple[str, int, int], ...]
    umask: int

    def describe(self) -> str:
        return "set the resource limits"

    def perform(self, state: SandboxState) -> None:
        os.umask(self.umask)
        _limit_core_files()
        for name, soft, hard in self.rlimits:
            if name not in RLIMITS:
                raise BuildError(f'unknown ulimit "{name}"', hint=f"known are {', '.join(sorted(RLIMITS))}")
            try:
                resource.setrlimit(RLIMITS.index(name), (soft, hard))
            except ValueError as error:
                raise BuildError(f'ulimit "{name}={soft}:{hard}": {error}') from error


class EnterDirectory(NamedTuple):
    """The working directory; made for the user if it is missing, as BuildKit does."""

    path: str

    def describe(self) -> str:
        return f'change to the directory "{self.path}"'

    def perform(self, state: SandboxState) -> None:
        try:
            fd = make_directories(state, self.path, state.user.uid, state.user.gid)
            os.fchdir(fd)
            os.close(fd)
            # A directory that is open but outside of the root has no path here (CVE-2024-21626).
            os.getcwd()
        except OSError as error:
            raise BuildError(f'working directory "{self.path}": {os.strerror(error.errno or 0).lower()}') from error


class InstallSeccomp(NamedTuple):
    """The system call filter, while this process still has the right to install one."""

    program: bytes

    def describe(self) -> str:
        return "install the seccomp filter"

    def perform(self, state: SandboxState) -> None:
        syscalls.seccomp(self.program, syscalls.SECCOMP_FILTER_FLAG_SPEC_ALLOW)


class DropPrivileges(NamedTuple):
    """Become the user, with no more capabilities than `mask`; root keeps those, others have none."""

    mask: int
    no_new_privileges: bool

    def describe(self) -> str:
        return "drop privileges"

    def perform(self, state: SandboxState) -> None:
        _limit_bounding_set(self.mask)
        syscalls.prctl(syscalls.PR_CAP_AMBIENT, syscalls.PR_CAP_AMBIENT_CLEAR_ALL)
        user = state.user
        _become(user)
        kept = self.mask if user.uid == 0 else 0
        syscalls.capset(kept, kept, 0)
        if self.no_new_privileges:
            syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)


class AnnounceStart(NamedTuple):
    """Tell the one who asked that only the program itself is missing now, and hand over what is for them."""

    control: socket.socket

    def describe(self) -> str:
        return "announce the start"

    def perform(self, state: SandboxState) -> None:
        given = {"terminal": state.terminal_fd, "network": state.network_fd}
        handed = {name: fd for name, fd in given.items() if fd >= 0}
        message = json.dumps({"ready": list(handed), "stubs": state.stubs}).encode("ascii")
        socket.send_fds(self.control, [message], list(handed.values()))


class Execute(NamedTuple):
    """Run the program in the place of this one."""

    argv: tuple[str, ...]

    def describe(self) -> str:
        return f'exec "{self.argv[0]}"'

    def perform(self, state: SandboxState) -> None:
        for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        syscalls.close_range(3, syscalls.CLOSE_RANGE_CLOEXEC)
        name = self.argv[0]
        if "/" in name:
            _execute(name, self.argv, state.env)
        _search_path(name, self.argv, state.env)


def _limit_core_files() -> None:
    """No memory of a step in a core file, nor for a program of the machine that core_pattern names.

    The kernel starts that one, outside of the sandbox and as root, whatever the limit is, unless it is 1 (core(5)).
    """
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    limit = 1 if hard == resource.RLIM_INFINITY or hard > 1 else hard
    resource.setrlimit(resource.RLIMIT_CORE, (limit, limit))


def _stream(fd: int, uid: int) -> int:
    """The descriptor to use: never the host's null device, whose mode root in the sandbox could change."""
    if is_null(os.fstat(fd)):
        return os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    if uid and stat.S_ISFIFO(os.fstat(fd).st_mode):
        # /dev/stdout opens the pipe anew, which is then up to its owner and mode. A pipe of another user, outside of
        # this namespace, stays that user's: what is open can be written all the same.
        with contextlib.suppress(PermissionError):
            os.fchown(fd, uid, -1)
    return fd


def _check_ids(user: passwd.User) -> None:
    """BuildError for a user that this namespace does not have; root is always there."""
    missing = [user.uid] if user.uid and not idmap.has_id("uid", user.uid) else []
    missing += [gid for gid in (user.gid, *user.groups) if gid and not idmap.has_id("gid", gid)]
    # A user who mapped only himself keeps the groups that he has, whatever the image says.
    if missing and (missing[0] in (user.uid, user.gid) or idmap.has_setgroups()):
        raise BuildError(f"user {user.uid}:{user.gid}: id {missing[0]} is not mapped here", hint=missing_ids())


def _become(user: passwd.User) -> None:
    # The primary group among the others, or a file's "everybody but this group" does not hold (CVE-2022-36109).
    if idmap.has_setgroups():
        os.setgroups(list(dict.fromkeys((user.gid, *user.groups))))
    os.setresgid(user.gid, user.gid, user.gid)
    os.setresuid(user.uid, user.uid, user.uid)


def _limit_bounding_set(mask: int) -> None:
    for bit in range(64):
        if mask >> bit & 1:
            continue
        try:
            syscalls.prctl(syscalls.PR_CAPBSET_DROP, bit)
        except OSError as error:
            if error.errno == errno.EINVAL:
                return
            raise


def _search_path(name: str, argv: tuple[str, ...], env: dict[str, str]) -> None:
    """Try each directory of the environment's own PATH; returns only by an exception."""
    denied: CommandError | None = None
    for directory in env.get("PATH", "").split(":"):
        try:
            _execute(f"{directory or '.'}/{name}", argv, env)
        except CommandError as error:
            denied = denied or (error if error.status == 126 or error.hint else None)
    if denied is not None:
        raise denied
    raise CommandError(f'exec: "{name}": executable file not found in $PATH', status=127)


def _execute(path: str, argv: tuple[str, ...], env: dict[str, str]) -> None:
    try:
        if os.path.isdir(path):
            raise IsADirectoryError(errno.EISDIR, "is a directory", path)
        os.execve(path, argv, env)  # noqa: S606 - there is no shell in every image
    except OSError as error:
        reason = os.strerror(error.errno or 0).lower()
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            hint = f"{path} is there, the interpreter it names is not" if os.path.lexists(path) else None
            raise CommandError(f'exec: "{path}": {reason}', status=127, hint=hint) from error
        hint = None
        if error.errno == errno.ENOEXEC:
            hint = "a script needs a #! line, a program must be built for this machine's architecture"
        raise CommandError(f'exec: "{path}": {reason}', status=126, hint=hint) from error
