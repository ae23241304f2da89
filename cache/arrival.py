"""Layers from elsewhere into the store: one pass that believes nothing of what was promised.

The bytes are hashed as they come (the blob's digest), decompressed and hashed again (the diff_id), and read as a tar
(the content digest). More bytes than were promised end it at once, so that a small blob cannot become an endless tar.
Only a blob that kept every promise is in the store afterwards. Knows no transport.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from cache.blobs import BlobStore, BlobWriter, Readable
from cache.compression import open_decompressed
from cache.errors import LayerError
from cache.exchange import TravellingLayer
from cache.layerimport import HashedStream
from cache.snapshot import Snapshot
from cache.snapshots import SnapshotStore
from cache.tarcontent import content_digest

_CHUNK = 1 << 20


def receive(blobs: BlobStore, layer: TravellingLayer, stream: Readable, on_chunk: Callable[[int], object]) -> int:
    """Put a layer's blob into the store from a stream of its bytes; `on_chunk` hears of every piece's size. Returns
    how many bytes its tar has.

    LayerError or BlobCorruptError when it is not what `layer` promises; nothing is kept then. Idempotent.
    """
    _require_room(blobs, layer)
    with blobs.writer(layer.blob.digest) as writer:
        source = _Tee(stream, writer, layer, on_chunk)
        plain = HashedStream(_Limited(open_decompressed(source), layer))
        content = content_digest(plain)
        while source.read(_CHUNK):
            pass
        _compare(layer, "diff_id", layer.diff_id, plain.digest)
        _compare(layer, "content digest", layer.content_digest, content)
    return plain.size


def stack_received(snapshots: SnapshotStore, parent: Snapshot, layer: TravellingLayer) -> Snapshot:
    """A layer whose blob was received on top of `parent`. Idempotent."""
    return snapshots.add_layer_blob(parent, layer.diff_id, layer.blob, layer.content_digest, layer.tar_size)


class _Tee:
    """The incoming bytes, written down on the way; no more of them than were promised."""

    def __init__(
        self, stream: Readable, writer: BlobWriter, layer: TravellingLayer, on_chunk: Callable[[int], object]
    ) -> None:
        self._stream = stream
        self._writer = writer
        self._layer = layer
        self._on_chunk = on_chunk

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes, none at the end."""
        chunk = self._stream.read(min(size, _CHUNK) if size >= 0 else _CHUNK)
        if chunk:
            self._writer.write(chunk)
            self._on_chunk(len(chunk))
            if self._writer.size > self._layer.blob.size:
                raise LayerError(
                    f"blob {self._layer.blob.digest} is longer than the {self._layer.blob.size} bytes said"
                )
        return chunk


class _Limited:
    """A stream that ends in an error where more comes than the layer's tar is said to have."""

    def __init__(self, stream: Readable, layer: TravellingLayer) -> None:
        self._stream = stream
        self._layer = layer
        self._left = layer.tar_size

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes, none at the end."""
        chunk = self._stream.read(size)
        self._left -= len(chunk)
        if self._left < 0:
            raise LayerError(f"layer {self._layer.diff_id} is longer than the {self._layer.tar_size} bytes said")
        return chunk


def _compare(layer: TravellingLayer, what: str, expected: object, actual: object) -> None:
    if expected != actual:
        raise LayerError(f"layer blob {layer.blob.digest} does not match its {what}: expected {expected}, got {actual}")


def _require_room(blobs: BlobStore, layer: TravellingLayer) -> None:
    """A tar that could not be unpacked here is not worth fetching."""
    status = os.statvfs(os.path.dirname(blobs.path(layer.blob.digest)))
    room = status.f_bavail * status.f_frsize
    if layer.tar_size > room:
        raise LayerError(f"layer {layer.diff_id} has {layer.tar_size} bytes, and {room} are free in the store")
