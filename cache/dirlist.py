"""One directory of the machine that builds: the names in it and their metadata, as rows.

In one piece and by descriptor, since this runs for every file of every build.
"""

from __future__ import annotations

import marshal
import os
import stat
from collections.abc import Callable, Iterable, Mapping
from operator import itemgetter
from typing import TypeAlias

from cache.dirfds import OPEN_DIRECTORY
from cache.namedtuple import NamedTuple

Keep: TypeAlias = Callable[[str, bool], bool | None]
"""(path, is it a directory) -> True: it belongs to the result. False: it does not, but what is below it may (then the
directories above that do as well). None: neither it nor anything below does, and it is not walked."""

Row: TypeAlias = tuple[str, int, int, int, int, int, int, int]
"""Name, mode with type, uid, gid, size, mtime_ns, inode, ctime_ns."""

MARSHAL = 2
"""The version of marshal's format in which equal values are the same bytes: later ones tell shared objects apart."""
TYPE = 0o170000
"""The bits of a mode that stat.S_IFMT gives, which takes a call for every file."""
_name = itemgetter(0)


class Judges(NamedTuple):
    """What decides on the entries of one directory, and which directories have another judge for theirs."""

    keep: Keep | None
    inside: Mapping[str, Keep | None]

    def below(self, path: str) -> Judges:
        """The judges of what is in the directory at `path`."""
        return Judges(self.inside[path], {}) if path in self.inside else self


Pending: TypeAlias = tuple[str, Judges]
"""A directory that is to be listed, by the prefix that its members' paths have ("" or "a/b/"), and who judges them."""


class Listings:
    """What was seen of a tree, or of a part of it."""

    def __init__(self) -> None:
        self.members: dict[str, bytes] = {}
        """The prefix of a directory in which something is kept -> (list of its Row by the bytes of their names,
        symlinks' targets by name, devices' numbers by name) in marshal's format: hashed as it is, and smaller."""
        self.left_out: dict[str, Row] = {}
        """Directories that belong to the tree only if something below them does, by path."""
        self.count = 0


def list_directory(root: str, pending: Pending, listings: Listings) -> list[Pending]:
    """Add what is in one directory to `listings`; returned are the directories in it. Raises OSError."""
    prefix, judges = pending
    fd = os.open(f"{root}/{prefix}"[:-1], OPEN_DIRECTORY)
    try:
        with os.scandir(fd) as entries:
            kept, left_out = (entries, []) if judges.keep is None else _judged(entries, prefix, judges.keep)
            rows = _rows(kept)
            others = [row for row in rows if row[1] & TYPE != stat.S_IFREG]
            links = {row[0]: os.readlink(row[0], dir_fd=fd) for row in others if stat.S_ISLNK(row[1])}
            devices = {row[0]: _rdev(row[0], fd) for row in others if stat.S_ISCHR(row[1]) or stat.S_ISBLK(row[1])}
            passed = _rows(left_out)
    finally:
        os.close(fd)
    if rows:
        rows.sort(key=_name if "".join([row[0] for row in rows]).isascii() else name_bytes)
        listings.members[prefix] = marshal.dumps((rows, links, devices), MARSHAL)
        listings.count += len(rows)
    for row in passed:
        listings.left_out[prefix + row[0]] = row
    paths = [prefix + row[0] for row in others + passed if stat.S_ISDIR(row[1])]
    return [(path + "/", judges.below(path)) for path in paths]


def _judged(
    entries: Iterable[os.DirEntry[str]], prefix: str, keep: Keep
) -> tuple[list[os.DirEntry[str]], list[os.DirEntry[str]]]:
    """What belongs to the tree, and the directories that do if anything below them does."""
    kept, left_out = [], []
    for entry in entries:
        is_dir = entry.is_dir(follow_symlinks=False)
        if verdict := keep(prefix + entry.name, is_dir):
            kept.append(entry)
        elif verdict is False and is_dir:
            left_out.append(entry)
    return kept, left_out


def _rows(entries: Iterable[os.DirEntry[str]]) -> list[Row]:
    return [
        (
            entry.name,
            (status := entry.stat(follow_symlinks=False)).st_mode,
            status.st_uid,
            status.st_gid,
            status.st_size,
            status.st_mtime_ns,
            status.st_ino,
            status.st_ctime_ns,
        )
        for entry in entries
    ]


def _rdev(name: str, fd: int) -> int:
    return os.stat(name, dir_fd=fd, follow_symlinks=False).st_rdev


def name_bytes(row: Row) -> bytes:
    """What rows are sorted by."""
    return os.fsencode(row[0])
