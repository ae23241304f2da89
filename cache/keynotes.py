"""What is known of a key beyond its manifest, to find the nearest former record of a key that has none.

A note says where in which Dockerfile a record was made; three indices find those of the same operation, of the same
parent, and of the same place. File lists are kept once by their digest, the newest of them: an explanation may lose its
files, never a build. Knows nothing of what the notes say.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable

from cache.database import Database
from cache.namedtuple import NamedTuple

_FOUND_AT_MOST = 24
"""Of each index: the newest ones."""
_LISTS_SIZE = 256 << 20
_PRUNE_EVERY = 64
_COLUMNS = "n.key, n.kind, n.project, n.stage, n.keyword, n.operation, n.parent, n.made_ns, n.notes"
_JOINED = f"SELECT {_COLUMNS}, r.chain_id, r.manifest FROM key_notes n JOIN records r ON r.key = n.key"  # noqa: S608


class KeyNote(NamedTuple):
    """One note. `kind` tells definition keys from content keys; `operation` names the operation without its inputs,
    `parent` the key of its root."""

    key: str
    kind: str
    project: str
    stage: str
    keyword: str
    operation: str
    parent: str
    made_ns: int
    notes: bytes
    """What the maker of the note wants to know again."""


class FormerRecord(NamedTuple):
    """A record that is there, with its note."""

    note: KeyNote
    chain_id: str
    manifest: bytes


class KeyNotes:
    """The notes of one store. Any thread and process may use it. A note goes with its record."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def put(self, note: KeyNote, lists: Iterable[tuple[str, bytes]] = ()) -> None:
        """Keep a note, and file lists (digest, content) that are not there yet. Atomic."""
        with self._database.transaction():
            self._database.write("INSERT OR REPLACE INTO key_notes VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", note)
            for digest, content in lists:
                self._put_list(digest, content)

    def former(self, like: KeyNote) -> list[FormerRecord]:
        """Records of the same kind that were noted before `like`, whatever their keys: the newest with its operation,
        with its parent, and of its place."""
        found: dict[str, FormerRecord] = {}
        for condition, values in (
            ("n.operation = ?", (like.operation,)),
            ("n.parent = ?", (like.parent,)),
            ("n.project = ? AND n.stage = ? AND n.keyword = ?", (like.project, like.stage, like.keyword)),
        ):
            rows = self._database.rows(
                f"{_JOINED} WHERE {condition} AND n.kind = ? AND n.made_ns < ? ORDER BY n.made_ns DESC LIMIT ?",
                (*values, like.kind, like.made_ns, _FOUND_AT_MOST),
            )
            for row in rows:
                found.setdefault(row[0], FormerRecord(KeyNote(*row[:9]), row[9], row[10]))
        found.pop(like.key, None)
        return list(found.values())

    def get(self, keys: Iterable[str]) -> dict[str, KeyNote]:
        """The notes of those keys that have one."""
        rows = self._database.rows_in(f"SELECT {_COLUMNS} FROM key_notes n WHERE n.key IN (*)", keys)  # noqa: S608
        return {row[0]: KeyNote(*row) for row in rows}

    def file_list(self, digest: str) -> bytes | None:
        """The file list with that digest, None when it is not kept any more."""
        packed = self.packed_list(digest)
        return None if packed is None else zlib.decompress(packed)

    def packed_list(self, digest: str) -> bytes | None:
        """The same as it is kept."""
        row = self._database.row("SELECT content FROM file_lists WHERE digest = ?", (digest,))
        return bytes(row[0]) if row else None

    def _put_list(self, digest: str, content: bytes) -> None:
        if self._database.row("SELECT 1 FROM file_lists WHERE digest = ?", (digest,)):
            return
        packed = zlib.compress(content, 1)
        made = self._database.write(
            "INSERT INTO file_lists (digest, size, content) VALUES (?, ?, ?)", (digest, len(packed), packed)
        )
        if made % _PRUNE_EVERY == 0:
            self._database.write(
                "DELETE FROM file_lists WHERE id <= (SELECT max(id) FROM (SELECT id, sum(size) OVER (ORDER BY id DESC)"
                " AS total FROM file_lists) WHERE total > ?)",
                (_LISTS_SIZE,),
            )
