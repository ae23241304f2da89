"""Digests of files that need not be read again, because size, mtime, ctime and inode are what they were.

A table per context directory, kept as one row that loads fast: paths, numbers and digests as three flat arrays.
A file that changed less than two seconds before it was read may change again within the same time stamp, so its digest
is never kept (the "racy" entries of git's index). Knows nothing of what the files are for.
"""

from __future__ import annotations

import os
import sys
from array import array
from collections.abc import Callable, Container
from typing import TypeAlias

from cache.database import Database

_FORMAT = b"1" + sys.byteorder[0].encode()
RACY_NS = 2 * 10**9
"""How much older than its reading a file has to be."""
_DIGEST_SIZE = 32
_KEPT_ROOTS = 50


KnownFile: TypeAlias = tuple[int, int, int, int, str]
"""Size, mtime_ns, ctime_ns and inode of a file as it was when its digest (xxh3-128, hex), the last member, was taken.
A plain tuple: ten thousand of them are made in every build."""


class FileDigests(dict[str, KnownFile]):
    """Path relative to the context -> KnownFile. `is_changed` tells whether it is worth saving."""

    is_changed = False

    def remember(self, path: str, file: KnownFile, now_ns: int) -> None:
        """Add a digest that was taken at `now_ns`, unless the file is too young to be trusted."""
        self.is_changed = True
        if max(file[1], file[2]) < now_ns - RACY_NS:
            self[path] = file
        else:
            self.pop(path, None)


class StatCache:
    """The tables of one store. Any thread and process may use it; the last writer wins."""

    def __init__(self, database: Database, *, clock: Callable[[], int]) -> None:
        self._database = database
        self._clock = clock

    def load(self, root_key: str) -> FileDigests:
        """The table of a context; empty when there is none, or none that can be read."""
        row = self._database.row("SELECT content FROM file_digests WHERE root = ?", (root_key,))
        return _decode(bytes(row[0])) if row else FileDigests()

    def save(self, root_key: str, digests: FileDigests, present: Container[str] | None = None) -> None:
        """Keep the table if it changed, without paths that are not in `present`. Only the newest tables are kept."""
        if not digests.is_changed or self._database.is_read_only:
            return
        if present is not None:
            for path in [path for path in digests if path not in present]:
                del digests[path]
        with self._database.transaction():
            self._database.write(
                "INSERT OR REPLACE INTO file_digests (root, used_ns, content) VALUES (?, ?, ?)",
                (root_key, self._clock(), _encode(digests)),
            )
            self._database.write(
                "DELETE FROM file_digests WHERE root NOT IN"
                " (SELECT root FROM file_digests ORDER BY used_ns DESC LIMIT ?)",
                (_KEPT_ROOTS,),
            )
        digests.is_changed = False


def _encode(digests: FileDigests) -> bytes:
    numbers = array("q")
    for file in digests.values():
        numbers.extend(file[:4])
    names = os.fsencode("\0".join(digests))
    hexes = "".join(file[4] for file in digests.values()).encode("ascii")
    return b"%b%012d%b%b%b" % (_FORMAT, len(digests), numbers.tobytes(), hexes, names)


def _decode(content: bytes) -> FileDigests:
    head = len(_FORMAT) + 12
    if not content.startswith(_FORMAT) or not content[len(_FORMAT) : head].isdigit():
        return FileDigests()
    count = int(content[len(_FORMAT) : head])
    hexes_at = head + 32 * count
    names_at = hexes_at + _DIGEST_SIZE * count
    names = os.fsdecode(content[names_at:]).split("\0") if count else []
    if len(content) < names_at or len(names) != count:
        return FileDigests()
    numbers = array("q", content[head:hexes_at])
    hexes = content[hexes_at:names_at].decode("ascii", "replace")
    digests = [hexes[at : at + _DIGEST_SIZE] for at in range(0, len(hexes), _DIGEST_SIZE)]
    return FileDigests(
        zip(names, zip(numbers[0::4], numbers[1::4], numbers[2::4], numbers[3::4], digests, strict=True), strict=True)
    )
