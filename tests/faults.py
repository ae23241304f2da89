"""Errors of the disk at a chosen point: the n-th call that writes, syncs, renames, makes or removes fails.

Calls of `os` and statements of SQLite are counted together, in the order in which they come.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

CALLS = ("write", "pwrite", "fsync", "rename", "mkdir", "makedirs", "unlink", "rmdir", "chmod", "link", "symlink")
_READING = ("SELECT", "PRAGMA user_version", "PRAGMA synchronous", "ROLLBACK", "WITH")
_SQLITE = {errno.EIO: "disk I/O error", errno.ENOSPC: "database or disk is full"}


class Faults:
    """Counts down; the call at which it gets to zero fails, and with `for_good` all that follow."""

    def __init__(self, point: int, number: int, *, for_good: bool) -> None:
        self.left = point
        self.number = number
        self.for_good = for_good
        self.where = ""

    def strikes(self, what: str) -> bool:
        """Whether this call fails."""
        self.left -= 1
        if self.left == -1 or (self.for_good and self.left < 0):
            self.where = self.where or what
            return True
        return False


class _Connection:
    """A connection to SQLite some of whose statements fail."""

    def __init__(self, connection: sqlite3.Connection, faults: Faults) -> None:
        self._connection = connection
        self._faults = faults

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        if not sql.lstrip().startswith(_READING) and self._faults.strikes(sql):
            raise sqlite3.OperationalError(_SQLITE[self._faults.number])
        return self._connection.execute(sql, *parameters)


@contextmanager
def disk_errors(point: int, number: int, *, for_good: bool = False) -> Iterator[Faults]:
    """Inside the block the call number `point` fails with the error `number` (EIO or ENOSPC)."""
    faults = Faults(point, number, for_good=for_good)
    connect = sqlite3.connect

    def failing(name: str) -> Any:
        function = getattr(os, name)

        def call(*arguments: Any, **options: Any) -> Any:
            if faults.strikes(name):
                raise OSError(number, os.strerror(number))
            return function(*arguments, **options)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in CALLS:
            patch.setattr(os, name, failing(name))
        patch.setattr(sqlite3, "connect", lambda *words, **options: _Connection(connect(*words, **options), faults))
        yield faults
