"""The door to the privileges that a sandbox needs: those of root, or of a user namespace of this process's own.

Whoever lacks them moves into a new user namespace once, at the first thing that needs it, and everything below is the
same code as for root: a build whose results are all known never comes here. An ordinary user is root there, and has the
other ids that /etc/subuid gives him (newuidmap(1)), else none; the root of a container has the ids of the container.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

from builder.errors import SandboxError
from builder.sandbox import capabilities, idmap
from builder.sandbox.idmap import IdMaps
from cache.namedtuple import NamedTuple

_NEEDED = ("CAP_SYS_ADMIN", "CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP")


def has_privileges() -> bool:
    """Whether this process may make namespaces and mounts as it is."""
    permitted = capabilities.permitted()
    return not [name for name in _NEEDED if not permitted & capabilities.mask_of((name,))]


def take_privileges(say: Callable[[str], object] = lambda _: None) -> None:
    """Have what a sandbox needs afterwards. Idempotent; the first call must find a single thread.

    `say` hears why there are no other ids although they are wanted. Raises SandboxError, with what is missing as its
    hint, where no namespace can be made.
    """
    if has_privileges():
        return
    if threading.active_count() > 1:
        raise SandboxError("a user namespace cannot be entered with several threads")
    maps = idmap.identity_maps() if os.geteuid() == 0 else idmap.user_maps(os.geteuid(), os.getegid())
    if os.geteuid() and not maps.is_single and _mappers() is None:
        maps = IdMaps(maps.uids[:1], maps.gids[:1])
        say("only one user is mapped: newuidmap and newgidmap are not installed (Debian: uidmap)\n")
    _enter(maps, say)


class _Writer(NamedTuple):
    """A child outside of the new namespace, which waits to write its maps."""

    pid: int
    go_fd: int
    answer_fd: int


def _enter(maps: IdMaps, say: Callable[[str], object]) -> None:
    """Move this process to a user and a mount namespace with these ids."""
    from builder.sandbox import syscalls
    from builder.sandbox.diagnosis import SUBUID_HINT, why_no_namespace

    uid, gid = os.geteuid(), os.getegid()
    writer = None if maps.is_single else _fork_writer(maps)
    try:
        try:
            syscalls.unshare(syscalls.CLONE_NEWUSER | syscalls.CLONE_NEWNS)
        except OSError as error:
            raise why_no_namespace(error) from error
        failure = _finish(writer) if writer else _write_own(uid, gid)
        if failure and writer:
            # The namespace has no ids yet: with its own one it is of some use.
            say(f"only one user is mapped: {failure}\n")
            failure = _write_own(uid, gid)
    finally:
        if writer is not None:
            _release(writer)
    if failure:
        raise SandboxError(f"map the ids of a user namespace: {failure}", hint=SUBUID_HINT)
    if not has_privileges():
        raise why_no_namespace(None)


def _write_own(uid: int, gid: int) -> str:
    """Map this process's own user and group to root; "" or what went wrong."""
    try:
        idmap.deny_setgroups()
        single = IdMaps((idmap.Extent(0, uid, 1),), (idmap.Extent(0, gid, 1),))
        idmap.write_maps(os.getpid(), single)
    except OSError as error:
        return (error.strerror or str(error)).lower()
    return ""


def _fork_writer(maps: IdMaps) -> _Writer:
    """Only a process of the outer namespace may write more than one id, and newuidmap is set-uid there only."""
    parent = os.getpid()
    go_reading, go_writing = os.pipe2(os.O_CLOEXEC)
    answer_reading, answer_writing = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid:
        os.close(go_reading)
        os.close(answer_writing)
        return _Writer(pid, go_writing, answer_reading)
    try:
        os.close(go_writing)
        if os.read(go_reading, 1):
            os.write(answer_writing, _write(parent, maps, answer_writing).encode("utf-8", "replace") or b"\0")
    finally:
        os._exit(0)


def _write(pid: int, maps: IdMaps, output_fd: int) -> str:
    """Write the maps of `pid`; "" or what went wrong."""
    if os.geteuid() == 0:
        try:
            idmap.write_maps(pid, maps)
        except OSError as error:
            return f"{error.filename}: {error.strerror}"
        return ""
    mappers = _mappers()
    assert mappers is not None, "without them there is one id only"
    started = []
    for program, extents in zip(mappers, (maps.uids, maps.gids), strict=True):
        words = idmap.mapper_words(program, pid, extents)
        actions = [(os.POSIX_SPAWN_DUP2, output_fd, 1), (os.POSIX_SPAWN_DUP2, output_fd, 2)]
        started.append((program, os.posix_spawn(program, words, dict(os.environ), file_actions=actions)))
    failed = [program for program, child in started if os.waitpid(child, 0)[1]]
    return f"{' and '.join(failed)} failed" if failed else ""


def _finish(writer: _Writer) -> str:
    """Let the maps be written; "" or what went wrong."""
    os.write(writer.go_fd, b"1")
    answer = b""
    while chunk := os.read(writer.answer_fd, 4096):
        answer += chunk
    return "" if answer == b"\0" else answer.decode("utf-8", "replace").strip() or "the helper ended"


def _release(writer: _Writer) -> None:
    os.close(writer.go_fd)
    os.close(writer.answer_fd)
    os.waitpid(writer.pid, 0)


def _mappers() -> tuple[str, str] | None:
    def find(name: str) -> str | None:
        places = [*os.environ.get("PATH", "").split(":"), "/usr/bin", "/bin"]
        return next((path for place in places if os.access(path := f"{place or '.'}/{name}", os.X_OK)), None)

    return idmap.find_mappers(find)
