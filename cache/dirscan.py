"""What lies in a directory of the machine that builds: names and metadata, no bytes of files.

`scan` runs for every file of every build, and most builds only ask whether anything changed. So what it finds stays in
rows per directory, whose fingerprint answers that, and becomes entries when they are asked for. Large trees are looked
at by several processes. Nothing is followed: a symlink is its target's text. Knows no ignore rules, `keep` has them.
"""

from __future__ import annotations

import _thread
import gc
import marshal
import os
import stat
from collections.abc import Iterable, Iterator, Mapping

from cache.dirlist import MARSHAL, TYPE, Judges, Keep, Listings, Pending, Row, list_directory, name_bytes
from cache.errors import CacheError
from cache.namedtuple import NamedTuple

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
_MANY = 4000
"""Members after which helpers are started: what they save of fewer would go into starting them."""
_FEWEST = 8
"""Directories that have to wait: a helper takes whole ones."""
_MOST_PROCESSES = 4
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


class Scan:
    """What one scan found below a directory."""

    def __init__(self, listings: Listings) -> None:
        self._members = listings.members
        self._brought_back: dict[str, list[Row]] = {}
        for path in sorted(_needed(listings)):
            above = path[: path.rfind("/") + 1]
            self._brought_back.setdefault(above, []).append(listings.left_out[path])
        self._entries: dict[str, FileEntry] | None = None

    def fingerprint(self) -> str:
        """One name for all that was found: trees with the same one hold the same files, unchanged since, by the same
        reasoning as the stat cache's. xxh3-128 in hex; for this machine only."""
        import xxhash

        state = xxhash.xxh3_128()
        for prefix in sorted(self._members):
            rows = self._members[prefix]
            state.update(f"{prefix}\0{len(rows)}\0".encode("utf-8", "surrogateescape"))
            state.update(rows)
        state.update(marshal.dumps(sorted(self._brought_back.items()), MARSHAL))
        return state.hexdigest()

    def entries(self) -> dict[str, FileEntry]:
        """Every entry by its path, in walk order: by the bytes of the names, a directory before what is in it. The
        root itself is not there."""
        if self._entries is None:
            with _Uncollected():
                self._entries = {entry.path: entry for entry in self._walk()}
        return self._entries

    def _walk(self) -> Iterator[FileEntry]:
        waiting = [iter(self._listed(""))]
        while waiting:
            for entry in waiting[-1]:
                yield entry
                if entry.kind == "d":
                    waiting.append(iter(self._listed(entry.path + "/")))
                    break
            else:
                waiting.pop()

    def _listed(self, prefix: str) -> list[FileEntry]:
        rows: list[Row]
        links: dict[str, str]
        devices: dict[str, int]
        known = self._members.get(prefix)
        rows, links, devices = marshal.loads(known) if known else ([], {}, {})  # noqa: S302 - made here
        if prefix in self._brought_back:
            rows = sorted(rows + self._brought_back[prefix], key=name_bytes)
        return [
            _new_tuple(
                FileEntry,
                (
                    prefix + name,
                    KIND_OF_TYPE[mode & TYPE],
                    mode & 0o7777,
                    uid,
                    gid,
                    size,
                    mtime_ns,
                    ino,
                    ctime_ns,
                    links.get(name, ""),
                    devices.get(name, 0),
                ),
            )
            for name, mode, uid, gid, size, mtime_ns, ino, ctime_ns in rows
        ]


def scan(root_dir: str, keep: Keep | None = None, *, inside: Mapping[str, Keep | None] | None = None) -> Scan:
    """Everything kept below `root_dir`. What lies in a directory that `inside` names is judged by the Keep that it has
    there (None keeps everything, for nothing) and no longer by `keep`. CacheError names what cannot be read."""
    try:
        with _Uncollected():
            return Scan(_seen(os.path.realpath(root_dir), ("", Judges(keep, inside or {}))))
    except OSError as error:
        raise unreadable(error, _subject(error, root_dir)) from error


def unreadable(error: OSError, path: str) -> CacheError:
    """The same as an error about `path`. Not the store's own, whose hints would mislead."""
    return CacheError(f"{path}: {str(error.strerror).lower()}")


class _Uncollected:
    """Without collecting garbage: rows are in no circle, and every collection would look at all of them again."""

    def __enter__(self) -> None:
        self._is_collecting = gc.isenabled()
        gc.disable()

    def __exit__(self, *_: object) -> None:
        if self._is_collecting:
            gc.enable()


def _seen(root: str, start: Pending) -> Listings:
    """The whole tree, breadth first, so that there is soon something to share."""
    listings, waiting, done = Listings(), [start], 0
    while done < len(waiting):
        if listings.count >= _MANY and len(waiting) - done >= _FEWEST and (helpers := _helpers()):
            _see_shared(root, waiting[done:], listings, helpers)
            break
        waiting += list_directory(root, waiting[done], listings)
        done += 1
    return listings


def _see_shared(root: str, waiting: list[Pending], listings: Listings, helpers: int) -> None:
    """List everything in and below the directories that wait, in several processes."""
    from cache.share import MOST_PARTS, share

    parts = [waiting[number::MOST_PARTS] for number in range(min(MOST_PARTS, len(waiting)))]

    def work(numbers: Iterable[int]) -> bytes:
        own = Listings()
        done = []
        for number in numbers:
            _see(root, parts[number], own)
            done.append(number)
        return marshal.dumps((own.members, own.left_out, done))

    left = set(range(len(parts)))
    for result in share(work, len(parts), helpers):
        members, left_out, done = marshal.loads(result)  # noqa: S302 - a helper made it
        listings.members.update(members)
        listings.left_out.update(left_out)
        left.difference_update(done)
    for number in left:  # of a helper that could not: what kept it from that is now an error here, or over
        _see(root, parts[number], listings)


def _see(root: str, waiting: list[Pending], listings: Listings) -> None:
    """List everything in and below some directories, in this process."""
    waiting = list(waiting)
    while waiting:
        waiting += list_directory(root, waiting.pop(), listings)


def _helpers() -> int:
    """How many processes can help. None where there are threads, of which a fork would take only this one along."""
    return min(len(os.sched_getaffinity(0)), _MOST_PROCESSES) - 1 if _thread._count() == 0 else 0


def _needed(listings: Listings) -> set[str]:
    """The directories that were left out, above what was kept."""
    needed: set[str] = set()
    for prefix in listings.members if listings.left_out else ():
        path = prefix[:-1]
        while path in listings.left_out and path not in needed:
            needed.add(path)
            path = path.rpartition("/")[0]
    return needed


def _subject(error: OSError, root_dir: str) -> str:
    return os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else root_dir
