"""What the results of operations are: cache key -> chain id, with the manifest that the key was made of.

Knows no operation. A record does not keep its snapshot alive, so a reader asks the snapshot store for it too.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator

from cache.database import Database
from cache.errors import CacheError
from cache.namedtuple import NamedTuple

_TOUCH_NS = 3600 * 10**9
"""How coarse "last used" is: a warm build then writes nothing most of the time."""

_COLUMNS = "key, chain_id, manifest, created_ns, seconds"


class CacheRecord(NamedTuple):
    """One result. `manifest` is the readable JSON that `key` names, `seconds` how long the operation took."""

    key: str
    chain_id: str
    manifest: bytes
    created_ns: int
    seconds: float


class RecordStore:
    """The records of one store. Any thread and process may use it."""

    def __init__(self, database: Database, *, clock: Callable[[], int]) -> None:
        self._database = database
        self._clock = clock
        self._stale: set[str] = set()
        """Of the records that were read: those whose last use is to be noted anew."""

    def get(self, key: str) -> CacheRecord | None:
        """The record of a key."""
        return self.get_many((key,)).get(key)

    def get_many(self, keys: Iterable[str]) -> dict[str, CacheRecord]:
        """The records of those keys that have one."""
        sql = f"SELECT {_COLUMNS}, used_ns FROM records WHERE key IN (*)"  # noqa: S608
        rows = self._database.rows_in(sql, keys)
        stale = self._clock() - _TOUCH_NS
        self._stale.update(row[0] for row in rows if row[5] < stale)
        return {row[0]: CacheRecord(*row[:5]) for row in rows}

    def of_chains(self, chains: Iterable[str]) -> dict[str, list[CacheRecord]]:
        """The records that lead to these chains, by chain."""
        found: dict[str, list[CacheRecord]] = {}
        sql = f"SELECT {_COLUMNS} FROM records WHERE chain_id IN (*) ORDER BY key"  # noqa: S608
        for row in self._database.rows_in(sql, chains):
            found.setdefault(row[1], []).append(CacheRecord(*row))
        return found

    def put(self, record: CacheRecord, *, replace: bool = False) -> CacheRecord:
        """Keep a record and return the one that holds now: the first writer's, unless `replace`. Atomic."""
        conflict = "REPLACE" if replace else "IGNORE"
        with self._database.transaction():
            self._database.write(
                f"INSERT OR {conflict} INTO records ({_COLUMNS}, used_ns) VALUES (?, ?, ?, ?, ?, ?)",  # noqa: S608
                (*record, self._clock()),
            )
            return self.get(record.key) or record

    def find(self, keys: Iterable[str]) -> dict[str, CacheRecord]:
        """As `get_many`, but without the manifests, which can be large and which a build does not need."""
        rows = self._database.rows_in(
            "SELECT key, chain_id, x'', created_ns, seconds FROM records WHERE key IN (*)", keys
        )
        return {row[0]: CacheRecord(*row) for row in rows}

    def touch(self, keys: Iterable[str]) -> None:
        """Note that records were used now. Costs nothing unless one that was read here has not been used for an hour.

        What cannot be noted, on a full disk or in a read-only store, is not: the result does not depend on it.
        """
        old = sorted(self._stale.intersection(keys))
        if not old:
            return
        now = self._clock()
        with contextlib.suppress(CacheError), self._database.transaction():
            for key in old:
                self._database.write("UPDATE records SET used_ns = ? WHERE key = ?", (now, key))
        self._stale.difference_update(old)

    def remove(self, keys: Iterable[str]) -> None:
        """Forget records. Idempotent."""
        with self._database.transaction():
            for key in keys:
                self._database.write("DELETE FROM records WHERE key = ?", (key,))

    def walk(self) -> Iterator[tuple[CacheRecord, int]]:
        """Every record with the time of its last use in nanoseconds, the least recently used first."""
        for row in self._database.rows(f"SELECT {_COLUMNS}, used_ns FROM records ORDER BY used_ns, key"):  # noqa: S608
            yield CacheRecord(*row[:5]), row[5]
