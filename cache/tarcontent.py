"""The content digest of a tar that was made elsewhere: what `layer` computes from a directory, from the stream itself.

Two layers with the same one put the same into a root; times are no part of it. Knows no blob and no store.
"""

from __future__ import annotations

from collections.abc import Iterator

from cache import tarwriter
from cache.blobs import Readable
from cache.tarreader import TarMember, read_tar
from cache.tarwriter import TarEntry


def content_digest(stream: Readable) -> str:
    """The content digest, 32 hex digits, of a plain tar stream, read to its end. LayerError for a broken tar."""
    import xxhash

    content = xxhash.xxh3_128()
    for member in read_tar(stream):
        entry = entry_of(member)
        for part in tarwriter.timeless(entry, tarwriter.encode(entry)):
            content.update(part)
        for chunk in member.chunks():
            content.update(chunk)
    return content.hexdigest()


def entry_of(member: TarMember, latest: int | None = None) -> TarEntry:
    """A member as it would be written here, no later than `latest` seconds; fractions of a second are dropped."""
    mtime = member.mtime_ns // 10**9
    return TarEntry(
        _bytes(member.name),
        _bytes(member.type),
        member.mode,
        member.uid,
        member.gid,
        member.size,
        mtime if latest is None else min(mtime, latest),
        _bytes(member.linkname),
        member.devmajor,
        member.devminor,
        tuple((_bytes(key), value) for key, value in sorted(member.xattrs.items())),
    )


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def describe(chunks: Iterator[bytes]) -> tuple[str, int]:
    """Content digest and size in bytes of a tar in pieces."""
    stream = _Joined(chunks)
    digest = content_digest(stream)
    return digest, stream.size


class _Joined:
    """Pieces as a stream that counts."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = memoryview(b"")
        self.size = 0

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes, none at the end."""
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return b""
            self._rest = memoryview(chunk)
        taken = bytes(self._rest if size < 0 else self._rest[:size])
        self._rest = self._rest[len(taken) :]
        self.size += len(taken)
        return taken
