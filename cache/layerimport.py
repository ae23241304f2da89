"""Turns a layer's blob into its tree, checking both names on the way: the blob's digest and the tar's diff_id."""

from __future__ import annotations

import hashlib

from cache.blobs import BlobStore, Readable
from cache.compression import open_decompressed
from cache.descriptor import Descriptor
from cache.digest import Digest
from cache.errors import LayerError
from cache.merged import Stack
from cache.namedtuple import NamedTuple
from cache.pipeline import ReadAhead
from cache.unpack import unpack_layer

_CHUNK = 1 << 20


class ImportedTree(NamedTuple):
    """What unpacking told: the tar's size in bytes, and the rest as in `Unpacked`."""

    size: int
    entries: int
    portable: bool
    left_out: tuple[str, ...]


class HashedStream:
    """A stream that hashes and counts what is read from it."""

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self._hash = hashlib.sha256()
        self.size = 0

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes, none at the end."""
        chunk = self._stream.read(size)
        self._hash.update(chunk)
        self.size += len(chunk)
        return chunk

    @property
    def digest(self) -> Digest:
        """The digest of what was read so far."""
        return Digest.of_hex(self._hash.hexdigest())


def unpack_blob(
    blobs: BlobStore, blob: Descriptor, diff_id: Digest, dest_dir: str, *, lower_dirs: Stack
) -> ImportedTree:
    """Unpack a layer blob into `dest_dir` over `lower_dirs` (top first). LayerError when the tar is not the one that
    the diff_id names or is unsafe, BlobCorruptError when the blob is not what it was; the directory is then to be
    removed."""
    with blobs.open(blob.digest) as reader:
        return unpack_stream(reader, diff_id, dest_dir, lower_dirs=lower_dirs)


def unpack_stream(reader: Readable, diff_id: Digest, dest_dir: str, *, lower_dirs: Stack) -> ImportedTree:
    """The same with a blob's bytes, which verify themselves: they are read to their end before anything is said."""
    stream = HashedStream(open_decompressed(reader))
    with ReadAhead(stream) as ahead:
        unpacked = unpack_layer(ahead, dest_dir, lower_dirs)
        while ahead.read(_CHUNK):
            pass
    while reader.read(_CHUNK):
        pass
    if stream.digest != diff_id:
        raise LayerError(f"layer does not match its diff_id: expected {diff_id}, got {stream.digest}")
    return ImportedTree(stream.size, *unpacked)
