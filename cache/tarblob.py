"""A tarball from outside as a layer's blob, in one pass and in constant memory.

gzip and zstd stay as they are, byte for byte; what OCI has no media type for, or is not compressed at all, is
compressed with gzip on the way. Knows no image.
"""

from __future__ import annotations

from collections.abc import Callable

from cache.blobs import BlobStore, Readable
from cache.compression import MAGIC_SIZE, PeekedStream, compressor, detect, open_decompressed
from cache.descriptor import MEDIA_LAYER_GZIP, MEDIA_LAYER_ZSTD, Descriptor
from cache.digest import Digest
from cache.layerimport import HashedStream
from cache.namedtuple import NamedTuple
from cache.tarcontent import content_digest

_CHUNK = 1 << 20
_KEPT = {"gzip": MEDIA_LAYER_GZIP, "zstd": MEDIA_LAYER_ZSTD}


class TarBlob(NamedTuple):
    """A blob of the store and the digest of the tar in it."""

    blob: Descriptor
    diff_id: Digest


def put_tar(blobs: BlobStore, stream: Readable) -> TarBlob:
    """Put a tarball, compressed in any way or not, into the store. LayerError when it is no whole tar; nothing is kept
    then. Whether its names are safe shows when it is unpacked."""
    peeked = PeekedStream(stream)
    kind = detect(peeked.peek(MAGIC_SIZE))
    with blobs.writer() as writer:
        if kind in _KEPT:
            source = _Tee(peeked, writer.write)
            plain = HashedStream(open_decompressed(source))
            _read_out(plain)
            _drain(source)
        else:
            packer = compressor("gzip")
            plain = HashedStream(_Tee(open_decompressed(peeked), lambda chunk: writer.write(packer.compress(chunk))))
            _read_out(plain)
            writer.write(packer.flush())
    media_type = _KEPT.get(kind, MEDIA_LAYER_GZIP)
    return TarBlob(Descriptor(media_type, writer.digest, writer.size), plain.digest)


def _read_out(plain: HashedStream) -> None:
    """To the end, as a tar: what follows the tar's own end belongs to its digest, too."""
    content_digest(plain)
    _drain(plain)


def _drain(stream: Readable) -> None:
    while stream.read(_CHUNK):
        pass


class _Tee:
    """A stream whose bytes are given to somebody else as well."""

    def __init__(self, stream: Readable, give: Callable[[bytes], object]) -> None:
        self._stream = stream
        self._give = give

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes, none at the end."""
        chunk = self._stream.read(min(size, _CHUNK) if size >= 0 else _CHUNK)
        if chunk:
            self._give(chunk)
        return chunk
