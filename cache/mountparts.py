"""A directory in parts, so that a change somewhere in it changes few of them.

A part is a run of entries in the order of their paths' bytes. Where one ends depends on the paths and sizes nearby
only: after an entry whose name's hash says so once the part is large enough, or when it is too large. The larger an
entry, the likelier it ends its part, so that a part is about two MiB whatever files there are. So the parts
before and after a change stay what they are, nothing has to say what was deleted, and unpacking all of them, one after
the other, gives the directory again. Knows no blob and no transport.
"""

from __future__ import annotations

import hashlib
import stat
import zlib
from collections.abc import Iterator, Sequence

from cache.changes import WHITEOUT_PREFIX, Change, tree_changes

_SMALLEST = 1 << 20
_LARGEST = 32 << 20
_ENDS = 64
"""At least one entry in so many may end a part."""
_PER_ENTRY = 1024
"""What an entry counts beside its bytes."""


def entries_of(tree_dir: str) -> Iterator[Change]:
    """The entries of a directory. Sockets, and names that mean deletions in a layer, are left out."""
    for change in tree_changes(tree_dir):
        if change.stat is not None and not stat.S_ISSOCK(change.stat.st_mode) and not _means_deletion(change.path):
            yield change


def parts_of(tree_dir: str) -> Iterator[list[Change]]:
    """The entries of a directory, part by part."""
    part: list[Change] = []
    size = 0
    for change in entries_of(tree_dir):
        assert change.stat is not None, "deletions are left out"
        part.append(change)
        weight = _PER_ENTRY + (change.stat.st_size if stat.S_ISREG(change.stat.st_mode) else 0)
        size += weight
        chance = max(weight, _SMALLEST // _ENDS)
        may_end = zlib.crc32(change.path.encode("utf-8", "surrogateescape")) % _SMALLEST < chance
        if size >= _LARGEST or (size >= _SMALLEST and may_end):
            yield part
            part, size = [], 0
    if part:
        yield part


def fingerprint(part: Sequence[Change]) -> str:
    """What a part's entries were when they were listed, without reading any; inodes and times of change are in it."""
    found = hashlib.sha256()
    for path, status in ((change.path, change.stat) for change in part):
        assert status is not None, "deletions are left out"
        fields = (status.st_mode, status.st_uid, status.st_gid, status.st_size, status.st_nlink, status.st_rdev)
        times = (status.st_ino, status.st_dev, status.st_mtime_ns, status.st_ctime_ns)
        found.update(f"{path}\0{fields}{times}\n".encode("utf-8", "surrogateescape"))
    return found.hexdigest()


def newest_ns(part: Sequence[Change]) -> int:
    """When an entry of the part was last changed, in nanoseconds since 1970."""
    return max(change.stat.st_ctime_ns for change in part if change.stat is not None)


def _means_deletion(path: str) -> bool:
    return path.rpartition("/")[2].startswith(WHITEOUT_PREFIX)
