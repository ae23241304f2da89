"""The images of the local store: name -> manifest and config, which are blobs.

Knows no reference syntax: names are compared as they are, so callers give them in one normal form. An image without a
name ("") is kept as well, by its manifest digest.
"""

from collections.abc import Callable, Iterator

from cache.database import Database
from cache.digest import Digest
from cache.errors import CacheError
from cache.namedtuple import NamedTuple
from cache.versions import Version, Versions

_COLUMNS = "name, manifest_digest, config_digest, created_ns"


class ImageRecord(NamedTuple):
    """One named (or, with name "", unnamed) image."""

    name: str
    manifest_digest: Digest
    config_digest: Digest
    created_ns: int


class ImageStore:
    """The images of one store. Any thread and process may use it."""

    def __init__(self, database: Database, *, clock: Callable[[], int]) -> None:
        self._database = database
        self._clock = clock
        self.versions = Versions(database)
        """What the names meant before."""

    def tag(self, name: str, manifest_digest: Digest, config_digest: Digest) -> ImageRecord:
        """Let `name` mean this image from now on; what it meant is remembered. Idempotent: an unchanged meaning keeps
        its time."""
        record = ImageRecord(name, manifest_digest, config_digest, self._clock())
        with self._database.transaction():
            kept = self.get(name) if name else self._unnamed(manifest_digest)
            if kept is not None and kept[:3] == record[:3]:
                return kept
            version = 0
            if kept is not None and name:
                parent = self.versions.settle(*kept)
                version = self.versions.add(name, (manifest_digest, config_digest), record.created_ns, parent)
            self._write(record, version)
        return record

    def switch(self, version: Version) -> None:
        """Let a name mean one of its versions again. CacheError when the name is gone meanwhile."""
        with self._database.transaction():
            kept = self.get(version.name)
            if kept is None:
                raise CacheError(f"image {version.name!r} was removed meanwhile")
            self.versions.settle(*kept)
            record = ImageRecord(version.name, version.manifest_digest, version.config_digest, self._clock())
            self._write(record, version.number)

    def _write(self, record: ImageRecord, version: int) -> None:
        sql = f"INSERT OR REPLACE INTO images ({_COLUMNS}, version) VALUES (?, ?, ?, ?, ?)"  # noqa: S608
        self._database.write(sql, (*record, version))

    def get(self, name: str) -> ImageRecord | None:
        """The image of a name."""
        return self._one("name = ? AND name <> ''", name)

    def find(self, digest: str) -> ImageRecord | None:
        """The image whose manifest or config has that digest, or one that starts so ("sha256:" may be left out).

        CacheError when several images do.
        """
        digits = digest.removeprefix("sha256:")
        if not digits or not set(digits) <= set("0123456789abcdef"):
            return None
        start, end = f"sha256:{digits}", f"sha256:{digits}g"
        where = "(manifest_digest >= ? AND manifest_digest < ?) OR (config_digest >= ? AND config_digest < ?)"
        sql = f"SELECT {_COLUMNS} FROM images WHERE {where} ORDER BY name = '', name"  # noqa: S608
        found = [_record(row) for row in self._database.rows(sql, (start, end, start, end))]
        if len({record.manifest_digest for record in found}) > 1:
            raise CacheError(f"image {digest!r} is ambiguous: {len(found)} images start so", hint="give more digits")
        return found[0] if found else None

    def walk(self) -> Iterator[ImageRecord]:
        """Every image, by name."""
        for row in self._database.rows(f"SELECT {_COLUMNS} FROM images ORDER BY name, created_ns"):  # noqa: S608
            yield _record(row)

    def untag(self, name: str) -> ImageRecord | None:
        """Forget a name, and what it ever meant; what it meant last. The blobs stay."""
        with self._database.transaction():
            record = self.get(name)
            self.versions.forget([name])
            self._database.write("DELETE FROM images WHERE name = ? AND name <> ''", (name,))
        return record

    def forget(self, manifest_digest: Digest) -> None:
        """Forget an image under all its names, and that any name ever meant it. Idempotent; the blobs stay."""
        with self._database.transaction():
            rows = self._database.rows("SELECT name FROM images WHERE manifest_digest = ?", (manifest_digest,))
            self.versions.forget([str(row[0]) for row in rows])
            self.versions.forget_image(manifest_digest)
            self._database.write("DELETE FROM images WHERE manifest_digest = ?", (manifest_digest,))

    def _unnamed(self, manifest_digest: Digest) -> ImageRecord | None:
        return self._one("name = '' AND manifest_digest = ?", manifest_digest)

    def _one(self, where: str, value: str) -> ImageRecord | None:
        row = self._database.row(f"SELECT {_COLUMNS} FROM images WHERE {where}", (value,))  # noqa: S608
        return _record(row) if row else None


def _record(row: tuple[object, ...]) -> ImageRecord:
    name, manifest_digest, config_digest, created_ns = row
    assert isinstance(created_ns, int)
    return ImageRecord(str(name), Digest(manifest_digest), Digest(config_digest), created_ns)
