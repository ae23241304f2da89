"""What lies in a directory of the machine that builds, and the digests of its files.

`scan` reads names and metadata, `file_digest` reads bytes, and only those of files that the stat cache does not know.
Nothing is followed: a symlink is its target's text. Knows no ignore rules, `keep` has them.
"""

import gc
import os
import stat
import time
from collections.abc import Callable, Mapping
from operator import itemgetter
from typing import TypeAlias

from cache.dirfds import OPEN_DIRECTORY, read_limited
from cache.errors import CacheError
from cache.namedtuple import NamedTuple
from cache.statcache import FileDigests

Keep: TypeAlias = Callable[[str, bool], bool | None]
"""(path, is it a directory) -> True: it belongs to the result. False: it does not, but what is below it may (then the
directories above that do as well). None: neither it nor anything below does, and it is not walked."""

KIND_OF_TYPE = {
    stat.S_IFREG: "f",
    stat.S_IFDIR: "d",
    stat.S_IFLNK: "l",
    stat.S_IFIFO: "p",
    stat.S_IFCHR: "c",
    stat.S_IFBLK: "b",
    stat.S_IFSOCK: "s",
}
"""`FileEntry.kind` for the type bits of a mode (stat(2))."""
_CHUNK = 1 << 20
_BATCH = 4096
_name = itemgetter(0)
_new_tuple = tuple.__new__
"""NamedTuple's own constructor takes four times as long, and there are thousands of entries."""


class FileEntry(NamedTuple):
    """One entry of a tree. `path` is relative with slashes, `kind` one of f d l p c b s, `mode` the 12 bits."""

    path: str
    kind: str
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    ino: int
    ctime_ns: int
    linkname: str
    rdev: int
    """Of a device."""


def scan(
    root_dir: str, keep: Keep | None = None, *, inside: Mapping[str, Keep | None] | None = None
) -> dict[str, FileEntry]:
    """Every kept entry below `root_dir` by its path, in walk order: by the bytes of the names, a directory before what
    is in it. The root itself is not there. What lies in a directory that `inside` names is judged by the Keep that it
    has there (None keeps everything, for nothing) and no longer by `keep`. CacheError names what cannot be read."""
    found: dict[str, FileEntry] = {}
    is_collecting = gc.isenabled()
    gc.disable()  # entries are in no circle: every collection would only look at all of them again
    try:
        _scan(os.path.realpath(root_dir), "", _Judges(keep, inside or {}), found)
    except OSError as error:
        raise _unreadable(error, _subject(error, root_dir)) from error
    except RecursionError as error:
        raise CacheError(f"{root_dir}: its directories are nested too deep") from error
    finally:
        if is_collecting:
            gc.enable()
    return found


def fingerprint(found: Mapping[str, FileEntry]) -> str:
    """One name for all that a scan saw: trees with the same one hold the same files, unchanged since, by the same
    reasoning as the stat cache's. xxh3-128 in hex; for this machine only."""
    import marshal

    import xxhash

    state = xxhash.xxh3_128()
    entries = list(found.values())
    for start in range(0, len(entries), _BATCH):
        # Version 2 of marshal's format writes equal values alike; where it does not, the name is merely not found.
        state.update(marshal.dumps([tuple(entry) for entry in entries[start : start + _BATCH]], 2))
    return state.hexdigest()


def file_digest(path: str, entry: FileEntry, digests: FileDigests) -> str:
    """The xxh3-128, in hex, of the regular file at `path`, which `scan` saw as `entry`; from `digests` if it is
    unchanged.

    CacheError when it cannot be read, or is not the file that was scanned any more.
    """
    known = digests.get(entry.path)
    if (
        known is not None
        and known[2] == entry.ctime_ns
        and known[1] == entry.mtime_ns
        and known[0] == entry.size
        and known[3] == entry.ino
    ):
        return known[4]
    started_ns = time.time_ns()
    digest = _read_digest(path, entry)
    digests.remember(entry.path, (entry.size, entry.mtime_ns, entry.ctime_ns, entry.ino, digest), started_ns)
    return digest


class _Judges(NamedTuple):
    """What decides on the entries of one directory, and which directories have another judge for theirs."""

    keep: Keep | None
    inside: Mapping[str, Keep | None]

    def below(self, path: str) -> "_Judges":
        """The judges of what is in the directory at `path`."""
        return _Judges(self.inside[path], {}) if path in self.inside else self


def _scan(directory: str, prefix: str, judges: _Judges, found: dict[str, FileEntry]) -> None:
    """One directory and all below it. In one piece and by descriptor, since it runs for every file of every build."""
    keep = judges.keep
    fd = os.open(directory, OPEN_DIRECTORY)
    try:
        with os.scandir(fd) as entries:
            members = [(entry.name, entry) for entry in entries]
        members.sort(key=_name if "".join([name for name, _ in members]).isascii() else _name_bytes)
        for name, member in members:
            path = prefix + name
            if keep is not None and not (verdict := keep(path, member.is_dir(follow_symlinks=False))):
                if verdict is False and member.is_dir(follow_symlinks=False):
                    _scan_exceptions(f"{directory}/{name}", path, judges.below(path), found)
                continue
            status = member.stat(follow_symlinks=False)
            mode = status.st_mode
            kind = KIND_OF_TYPE[mode & 0o170000]
            found[path] = _new_tuple(
                FileEntry,
                (
                    path,
                    kind,
                    mode & 0o7777,
                    status.st_uid,
                    status.st_gid,
                    status.st_size,
                    status.st_mtime_ns,
                    status.st_ino,
                    status.st_ctime_ns,
                    os.readlink(name, dir_fd=fd) if kind == "l" else "",
                    status.st_rdev if kind in "cb" else 0,
                ),
            )
            if kind == "d":
                _scan(f"{directory}/{name}", path + "/", judges.below(path), found)
    finally:
        os.close(fd)


def _scan_exceptions(directory: str, path: str, judges: _Judges, found: dict[str, FileEntry]) -> None:
    """Walk a directory that is left out; it comes back, in front of them, if anything below it is kept."""
    below: dict[str, FileEntry] = {}
    _scan(directory, path + "/", judges, below)
    if below:
        found[path] = _directory_entry(path, os.lstat(directory))
        found.update(below)


def _directory_entry(path: str, status: os.stat_result) -> FileEntry:
    owner = status.st_uid, status.st_gid
    times = status.st_mtime_ns, status.st_ino, status.st_ctime_ns
    return FileEntry(path, "d", status.st_mode & 0o7777, *owner, status.st_size, *times, "", status.st_rdev)


def _name_bytes(member: tuple[str, object]) -> bytes:
    return os.fsencode(member[0])


def _read_digest(path: str, entry: FileEntry) -> str:
    import xxhash

    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(fd)
            if (status.st_ino, status.st_size, status.st_ctime_ns) != (entry.ino, entry.size, entry.ctime_ns):
                raise CacheError(f"{path}: the file changed while the context was read", hint="run the build again")
            if entry.size < _CHUNK:
                return xxhash.xxh3_128_hexdigest(read_limited(fd, _CHUNK))
            state = xxhash.xxh3_128()
            while chunk := read_limited(fd, _CHUNK):
                state.update(chunk)
            return state.hexdigest()
        finally:
            os.close(fd)
    except OSError as error:
        raise _unreadable(error, path) from error


def _unreadable(error: OSError, path: str) -> CacheError:
    """These are no files of the store, so that its hints would mislead."""
    return CacheError(f"{path}: {str(error.strerror).lower()}")


def _subject(error: OSError, root_dir: str) -> str:
    return os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else root_dir
