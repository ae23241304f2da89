"""The door to SQLite: one connection for all threads, and no sqlite3 exception leaves it.

WAL with synchronous=NORMAL: a killed process loses nothing that was committed, a power loss may lose the last commits
but never the database. Knows the tables' columns, not their meaning; `index.db` may be removed at any time, the store
then forgets what it had.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

from cache.errors import CacheError, StoreCorruptError, StoreFullError, StoreVersionError
from cache.migrations import SCHEMA_VERSION, steps
from cache.mutex import RLock

_BUSY_SECONDS = 60.0
_CHUNK = 500


Row = tuple[Any, ...]


class Database:
    """One SQLite file. Every method is safe to call from any thread."""

    def __init__(
        self,
        path: str,
        *,
        is_read_only: bool = False,
        upgrading: Callable[[], AbstractContextManager[object]] = contextlib.nullcontext,
    ) -> None:
        """Open the file, make it, or bring it to the present format while `upgrading()` is held.

        A read-only one is never written; StoreVersionError when it would have to be.
        """
        self.path = path
        self.is_read_only = is_read_only
        self._lock = RLock()
        with self._errors():
            self._connection = sqlite3.connect(
                _address(path) if is_read_only else path,
                timeout=_BUSY_SECONDS,
                isolation_level=None,
                check_same_thread=False,
                cached_statements=64,
                uri=is_read_only,
            )
        try:
            with self._errors():
                self._connection.execute("PRAGMA synchronous=NORMAL")
            self._require_format(upgrading)
        except BaseException:
            self._connection.close()
            raise

    def _require_format(self, upgrading: Callable[[], AbstractContextManager[object]]) -> None:
        version = self._version()
        if version == SCHEMA_VERSION:
            return
        if version > SCHEMA_VERSION:
            hint = "a newer pybuild made it: use that one, or name another store with PYBUILD_ROOT"
            raise StoreVersionError(
                f"{self.path}: unknown format {version}: expected at most {SCHEMA_VERSION}", hint=hint
            )
        if self.is_read_only:
            hint = "open the store once where it can be written"
            raise StoreVersionError(f"{self.path}: format {version} is older than {SCHEMA_VERSION}", hint=hint)
        with upgrading():
            self._upgrade()

    def _version(self) -> int:
        return int(self.rows("PRAGMA user_version")[0][0])

    def _upgrade(self) -> None:
        if self._version() == 0:
            self.write("PRAGMA auto_vacuum=INCREMENTAL")  # has to come before the first page
            self.write("PRAGMA journal_mode=WAL")
        with self.transaction():
            for statement in steps(self._version()):  # none if another process was here in between
                self.write(statement)
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

    def shrink(self) -> None:
        """Give the pages of deleted rows back to the file system. Another process that is at work, or a full disk, may
        put it off to the next time."""
        with contextlib.suppress(CacheError):
            if self.rows("PRAGMA auto_vacuum")[0][0] == 0:  # a file of the first format
                self.write("PRAGMA auto_vacuum=INCREMENTAL")
                self.write("VACUUM")
            with self._lock, self._errors():
                # A page is freed with each step of this statement, and only a script is carried out to its end.
                self._connection.executescript("PRAGMA incremental_vacuum")
            self.rows("PRAGMA wal_checkpoint(TRUNCATE)")

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


def _address(path: str) -> str:
    """The file as a URI for reading. Nothing can change a database on a read-only file system, and without a journal
    there is nothing to be replayed: SQLite then needs no locks, and no files that it could not make."""
    from urllib.parse import quote

    has_journal = os.path.exists(path + "-wal") and os.path.getsize(path + "-wal") > 0
    return f"file:{quote(path)}?mode=ro" + ("" if has_journal else "&immutable=1")


def _cache_error(error: sqlite3.Error, path: str) -> CacheError:
    reason = str(error)
    if "full" in reason or ("disk I/O" in reason and not _has_space(path)):
        return StoreFullError(f"{path}: {reason}", hint="free some space on that file system (`pybuild prune`)")
    if "not a database" in reason or "malformed" in reason or "no such table" in reason or "no such column" in reason:
        hint = f"remove {path}, or `pybuild store check --repair`: the next build makes what is missing anew"
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
