"""Small values that are worth keeping between runs and may be lost at any time. Knows nothing of what they mean."""

from __future__ import annotations

from collections.abc import Iterator

from cache.database import Database

_KEPT = 1000


class Memo:
    """The memo of one store: it keeps the newest thousand values. Any thread and process may use it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, key: str) -> bytes | None:
        """The value of a key."""
        row = self._database.row("SELECT value FROM memo WHERE key = ?", (key,))
        return bytes(row[0]) if row else None

    def put(self, key: str, value: bytes) -> None:
        """Keep a value, in place of an older one; it counts as the newest. A read-only store keeps none."""
        if self._database.is_read_only:
            return
        with self._database.transaction():
            self._database.write("INSERT OR REPLACE INTO memo (key, value) VALUES (?, ?)", (key, value))
            newest = "SELECT id FROM memo ORDER BY id DESC LIMIT ?"
            self._database.write(f"DELETE FROM memo WHERE id NOT IN ({newest})", (_KEPT,))  # noqa: S608

    def walk(self, prefix: str) -> Iterator[tuple[str, bytes]]:
        """The keys that start so, with their values."""
        sql = "SELECT key, value FROM memo WHERE key >= ? AND key < ?"
        for key, value in self._database.rows(sql, (prefix, prefix + "\x7f")):
            yield key, bytes(value)
