"""What the names of images meant before: a numbered row for each meaning, written when a name moves.

A name that has always meant the same has no rows. Its first move writes two, the former meaning as version 1 and the
new one as version 2; after that one is added with each. Going back adds none: `images.version` says which of them the
name means (0: one that has no row yet). `parent` is the version that a version replaced. Only the latest few
are remembered. Knows no blob and no layer.
"""

from collections.abc import Iterable, Iterator

from cache.database import Database
from cache.digest import Digest
from cache.namedtuple import NamedTuple

REMEMBERED = 20
"""Versions of a name that have a row."""
_COLUMNS = "name, number, manifest_digest, config_digest, since_ns, parent"


class Version(NamedTuple):
    """One meaning that a name has, or had. `parent` is 0 for the first one that is known."""

    name: str
    number: int
    manifest_digest: Digest
    config_digest: Digest
    since_ns: int
    parent: int


class Versions:
    """The table `image_versions`. What is written belongs into the transaction that moves the name."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def of(self, name: str) -> list[Version]:
        """What a name meant and means, the newest first; none when it has never moved."""
        sql = f"SELECT {_COLUMNS} FROM image_versions WHERE name = ? ORDER BY number DESC"  # noqa: S608
        return [_version(row) for row in self._database.rows(sql, (name,))]

    def walk(self) -> Iterator[Version]:
        """All versions of all names, the newest of a name first."""
        sql = f"SELECT {_COLUMNS} FROM image_versions ORDER BY name, number DESC"  # noqa: S608
        for row in self._database.rows(sql):
            yield _version(row)

    def current(self, name: str) -> int:
        """The number of the version that a name means, 0 when that has none."""
        row = self._database.row("SELECT version FROM images WHERE name = ? AND name <> ''", (name,))
        return int(row[0]) if row else 0

    def settle(self, name: str, manifest_digest: Digest, config_digest: Digest, since_ns: int) -> int:
        """The number of what a name means now, which is written down if it has none."""
        return self.current(name) or self._add(name, (manifest_digest, config_digest), since_ns, self._newest(name))

    def add(self, name: str, images: tuple[Digest, Digest], since_ns: int, parent: int) -> int:
        """Write down that a name means a manifest and its config from now on instead of `parent`; the new number."""
        number = self._add(name, images, since_ns, parent)
        sql = "DELETE FROM image_versions WHERE name = ? AND number <= ?"
        self._database.write(sql, (name, number - REMEMBERED))
        return number

    def forget(self, names: Iterable[str]) -> None:
        """Forget what names meant."""
        for name in names:
            self._database.write("DELETE FROM image_versions WHERE name = ?", (name,))

    def forget_image(self, manifest_digest: Digest) -> None:
        """Forget that any name ever meant this image."""
        self._database.write("DELETE FROM image_versions WHERE manifest_digest = ?", (manifest_digest,))

    def _newest(self, name: str) -> int:
        row = self._database.row("SELECT max(number) FROM image_versions WHERE name = ?", (name,))
        return int(row[0] or 0) if row else 0

    def _add(self, name: str, images: tuple[Digest, Digest], since_ns: int, parent: int) -> int:
        number = self._newest(name) + 1
        self._database.write(
            f"INSERT INTO image_versions ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)",  # noqa: S608
            (name, number, *images, since_ns, parent),
        )
        return number


def former_of(versions: list[Version], current: int) -> Version | None:
    """Of the versions of a name, the newest first, what `current` replaced; where that is forgotten, the next older."""
    parents = {version.number: version.parent for version in versions}
    older = [version for version in versions if version.number < current or not current]
    exact = [version for version in older if version.number == parents.get(current)]
    return next(iter([*exact, *older]), None)


def _version(row: tuple[object, ...]) -> Version:
    name, number, manifest_digest, config_digest, since_ns, parent = row
    assert isinstance(number, int) and isinstance(since_ns, int) and isinstance(parent, int)
    return Version(str(name), number, Digest(manifest_digest), Digest(config_digest), since_ns, parent)
