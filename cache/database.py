"""The door to SQLite: one connection for all threads, and no sqlite3 exception leaves it.

WAL with synchronous=NORMAL: a killed process loses nothing that was committed, a power loss may lose the last commits
but never the database. Knows the tables' columns, not their meaning; `index.db` may be removed at any time, the store
then forgets what it had.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from cache.errors import CacheError, StoreCorruptError, StoreFullError, StoreVersionError

_BUSY_SECONDS = 60.0
_CHUNK = 500

_SCHEMA = """
CREATE TABLE layers (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    state TEXT NOT NULL,
    lease TEXT NOT NULL DEFAULT '',
    diff_id TEXT NOT NULL DEFAULT '',
    content_digest TEXT NOT NULL DEFAULT '',
    size INTEGER NOT NULL DEFAULT 0,
    entries INTEGER NOT NULL DEFAULT 0,
    tree INTEGER NOT NULL DEFAULT 0,
    boot_id TEXT NOT NULL DEFAULT '',
    portable INTEGER NOT NULL DEFAULT 0,
    imported INTEGER NOT NULL DEFAULT 0,
    blob_digest TEXT NOT NULL DEFAULT '',
    blob_type TEXT NOT NULL DEFAULT '',
    blob_size INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX layers_diff_id ON layers (diff_id);
CREATE TABLE snapshots (
    chain_id TEXT PRIMARY KEY,
    parent TEXT NOT NULL,
    layer_id INTEGER NOT NULL,
    created_ns INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX snapshots_layer ON snapshots (layer_id);
CREATE INDEX snapshots_parent ON snapshots (parent);
CREATE TABLE layer_blobs (
    diff_id TEXT NOT NULL,
    compression TEXT NOT NULL,
    level INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    forced INTEGER NOT NULL,
    digest TEXT NOT NULL,
    size INTEGER NOT NULL,
    media_type TEXT NOT NULL,
    blob_diff_id TEXT NOT NULL,
    PRIMARY KEY (diff_id, compression, level, epoch, forced)
) WITHOUT ROWID;
CREATE TABLE records (
    key TEXT PRIMARY KEY,
    chain_id TEXT NOT NULL,
    manifest BLOB NOT NULL,
    created_ns INTEGER NOT NULL,
    seconds REAL NOT NULL,
    used_ns INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE images (
    name TEXT NOT NULL,
    manifest_digest TEXT NOT NULL,
    config_digest TEXT NOT NULL,
    created_ns INTEGER NOT NULL
);
CREATE UNIQUE INDEX images_name ON images (name) WHERE name <> '';
CREATE UNIQUE INDEX images_unnamed ON images (manifest_digest) WHERE name = '';
CREATE TABLE memo (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT NOT NULL UNIQUE,
    value BLOB NOT NULL
);
CREATE TABLE file_digests (
    root TEXT PRIMARY KEY,
    used_ns INTEGER NOT NULL,
    content BLOB NOT NULL
);
"""

_KEY_NOTES = (
    """
CREATE TABLE key_notes (
    key TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    project TEXT NOT NULL,
    stage TEXT NOT NULL,
    keyword TEXT NOT NULL,
    operation TEXT NOT NULL,
    parent TEXT NOT NULL,
    made_ns INTEGER NOT NULL,
    notes BLOB NOT NULL
) WITHOUT ROWID""",
    "CREATE INDEX key_notes_operation ON key_notes (operation, kind, made_ns)",
    "CREATE INDEX key_notes_parent ON key_notes (parent, kind, made_ns)",
    "CREATE INDEX key_notes_place ON key_notes (project, stage, keyword, kind, made_ns)",
    """
CREATE TRIGGER key_notes_go AFTER DELETE ON records BEGIN
    DELETE FROM key_notes WHERE key = OLD.key;
END""",
    """
CREATE TABLE file_lists (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    digest TEXT NOT NULL UNIQUE,
    size INTEGER NOT NULL,
    content BLOB NOT NULL
)""",
)

_UPGRADES: tuple[tuple[str, ...], ...] = (_KEY_NOTES,)
"""What each version has more than the one before, from version 2 on."""
SCHEMA_VERSION = 1 + len(_UPGRADES)

Row = tuple[Any, ...]


class Database:
    """One SQLite file. Every method is safe to call from any thread."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._lock = threading.RLock()
        with self._errors():
            self._connection = sqlite3.connect(
                path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False, cached_statements=64
            )
            self._connection.execute("PRAGMA synchronous=NORMAL")
            version = self._rows("PRAGMA user_version", ())[0][0]
        if version == 0:
            self._create()
        elif 0 < version < SCHEMA_VERSION:
            self._upgrade()
        elif version != SCHEMA_VERSION:
            self._connection.close()
            hint = "use the program that made it, or name another store with PYBUILD_ROOT"
            raise StoreVersionError(f"{path}: unknown format {version}: expected {SCHEMA_VERSION}", hint=hint)

    def _create(self) -> None:
        with self._errors():
            self._connection.execute("PRAGMA journal_mode=WAL")
        with self.transaction():
            version = self.rows("PRAGMA user_version")[0][0]
            if version == 0:  # else another process made the tables in between
                for statement in _SCHEMA.split(";"):
                    self.write(statement)
                self.write("PRAGMA user_version=1")
            self._upgrade()

    def _upgrade(self) -> None:
        """Add what this version has more. All of it or nothing; another process may do the same meanwhile."""
        with self.transaction():
            version = self.rows("PRAGMA user_version")[0][0]
            for statements in _UPGRADES[version - 1 :]:
                for statement in statements:
                    self.write(statement)
            if version < SCHEMA_VERSION:
                self.write(f"PRAGMA user_version={SCHEMA_VERSION}")

    def rows(self, sql: str, parameters: Sequence[object] = ()) -> list[Row]:
        """All rows of a query."""
        with self._lock, self._errors():
            return self._rows(sql, parameters)

    def row(self, sql: str, parameters: Sequence[object] = ()) -> Row | None:
        """The first row of a query, or None."""
        with self._lock, self._errors():
            found = self._connection.execute(sql, parameters).fetchone()
        return tuple(found) if found is not None else None

    def rows_in(self, sql: str, values: Iterable[str]) -> list[Row]:
        """All rows of a query with one `IN (*)`, where the star stands for any number of values."""
        wanted = list(values)
        found: list[Row] = []
        for start in range(0, len(wanted), _CHUNK):
            part = wanted[start : start + _CHUNK]
            found += self.rows(sql.replace("*", ",".join("?" * len(part))), part)
        return found

    def write(self, sql: str, parameters: Sequence[object] = ()) -> int:
        """Carry out one statement and return the new row's id; outside `transaction` it is committed at once."""
        with self._lock, self._errors():
            return self._connection.execute(sql, parameters).lastrowid or 0

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """All writes of the block happen or none; no other process writes meanwhile. A nested one joins the outer."""
        with self._lock:
            if self._connection.in_transaction:
                yield
                return
            with self._errors():
                self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                with self._errors():
                    self._connection.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    self._connection.execute("ROLLBACK")
                raise

    def close(self) -> None:
        """Close the connection. Idempotent."""
        with self._lock, self._errors():
            self._connection.close()

    def _rows(self, sql: str, parameters: Sequence[object]) -> list[Row]:
        return self._connection.execute(sql, parameters).fetchall()

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise _cache_error(error, self.path) from error


def _cache_error(error: sqlite3.Error, path: str) -> CacheError:
    reason = str(error)
    if "full" in reason or ("disk I/O" in reason and not _has_space(path)):
        return StoreFullError(f"{path}: {reason}", hint="free some space on that file system, or prune the store")
    if "not a database" in reason or "malformed" in reason or "no such table" in reason or "no such column" in reason:
        hint = f"remove {path} (the next build makes what is missing anew), or move the whole store away"
        return StoreCorruptError(f"{path}: {reason}", hint=hint)
    if "locked" in reason:
        return CacheError(
            f"{path}: {reason}", hint=f"another process keeps it for more than {_BUSY_SECONDS:.0f} seconds"
        )
    if "readonly" in reason or "unable to open" in reason:
        return CacheError(f"{path}: {reason}", hint="choose a store that you may write to with PYBUILD_ROOT")
    return CacheError(f"{path}: {reason}")


def _has_space(path: str) -> bool:
    try:
        return os.statvfs(os.path.dirname(path)).f_bavail > 0
    except OSError:
        return True
