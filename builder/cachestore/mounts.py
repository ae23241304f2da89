"""Cache mounts on their way to other machines: parts of their directories as layers.

Out: a part that has not changed since it was sent is not read again, one that the place has is not sent. In: only for a
step that uses the id on a machine that has no directory for it; what cannot be had leaves the directory empty, as a new
one is.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack
from typing import Any

from builder.cachestore.imports import Cache, Imports
from builder.errors import BuildError
from cache import mountparts
from cache.blobs import BlobReader
from cache.cachemounts import digest_of
from cache.changes import Change
from cache.compression import compressor
from cache.descriptor import MEDIA_LAYER_ZSTD, Descriptor
from cache.digest import Digest
from cache.errors import CacheError
from cache.exchange import TravellingLayer
from cache.layer import write_tar
from cache.layerimport import unpack_blob
from cache.removal import remove_tree
from cache.store import Store

_SETTLED_NS = 2 * 10**9
"""A file that was changed so shortly ago may change again unseen: clocks of file systems are coarse."""

Send = Callable[[TravellingLayer, Callable[[], BlobReader], Iterable[str]], None]


class MountExport:
    """The cache mounts of one export."""

    def __init__(self, store: Store, send: Send, say: Callable[[str], object], imports: Imports | None = None) -> None:
        self._store = store
        self._send = send
        self._say = say
        self._imports = imports

    def run(self, mounts: Sequence[str], pool: Executor) -> dict[str, tuple[TravellingLayer, ...]]:
        """Bring the mounts with these ids there; their parts. One that this machine has not got is passed on as the
        imports have it. CacheError or BuildError when a place does not take it."""
        found = {}
        for mount_id in sorted(set(mounts)):
            digest = digest_of(mount_id)
            if os.path.isdir(self._store.cache_mounts.path(digest, 0)):
                parts = self._own(mount_id, digest, pool)
            else:
                parts = self._passed_on(mount_id, pool)
            if parts:
                found[mount_id] = parts
        return found

    def _own(self, mount_id: str, digest: str, pool: Executor) -> tuple[TravellingLayer, ...]:
        directory = self._store.cache_mounts.path(digest, 0)

        def waiting(_name: str) -> None:
            self._say(f'waiting for a step with the cache mount "{mount_id}"')

        with ExitStack() as stack:
            self._store.cache_mounts.take(digest, "shared", stack, waiting)
            jobs = [pool.submit(self._part, directory, part) for part in mountparts.parts_of(directory)]
            return tuple([job.result() for job in jobs])

    def _part(self, directory: str, part: list[Change]) -> TravellingLayer:
        key = f"mount-part:{mountparts.fingerprint(part)}"
        known = _decoded(self._store.memo.get(key))
        if known is not None:
            self._send(known, lambda: self._reopened(directory, part, known), ())
            return known
        layer = self._packed(directory, part)
        try:
            self._send(layer, lambda: self._store.blobs.open(layer.blob.digest), ())
        finally:
            self._store.blobs.delete(layer.blob.digest)  # its content is here already, as files
        if mountparts.newest_ns(part) < time.time_ns() - _SETTLED_NS:
            self._store.memo.put(key, _encoded(layer))
        return layer

    def _reopened(self, directory: str, part: list[Change], known: TravellingLayer) -> BlobReader:
        """The bytes of a part that was sent before, for a place that has not got it."""
        layer = self._packed(directory, part)
        if layer != known:
            raise CacheError(f"cache mount: a part of {directory} changed while it was exported")
        return self._store.blobs.open(layer.blob.digest)

    def _packed(self, directory: str, part: list[Change]) -> TravellingLayer:
        packer = compressor("zstd")
        with self._store.blobs.writer() as writer:
            summary = write_tar(part, directory, lambda chunk: writer.write(packer.compress(chunk)))
            writer.write(packer.flush())
        blob = Descriptor(MEDIA_LAYER_ZSTD, writer.digest, writer.size)
        return TravellingLayer(summary.diff_id, blob, summary.content_digest, summary.size)

    def _passed_on(self, mount_id: str, pool: Executor) -> tuple[TravellingLayer, ...]:
        found = None if self._imports is None else self._imports.mount(mount_id)
        if found is None or self._imports is None:
            return ()
        imports, (cache, parts) = self._imports, found
        repositories = [cache.source.repository] if cache.source.repository else []

        def pass_on(part: TravellingLayer) -> None:
            def opening() -> BlobReader:
                imports.receive(cache, part)
                return self._store.blobs.open(part.blob.digest)

            self._send(part, opening, repositories)

        for job in [pool.submit(pass_on, part) for part in parts]:
            job.result()
        return parts


def fill_mount(imports: Imports, mount_id: str, directory: str) -> bool:
    """Fill a new cache mount's directory from the first cache that has it; whether it did."""
    found = imports.mount(mount_id)
    if found is None:
        return False
    cache, parts = found
    size = sum(part.blob.size for part in parts)
    imports.say(f'importing cache mount "{mount_id}", {size} bytes, from {cache.name}')
    try:
        _unpack(imports, cache, parts, directory)
    except (BuildError, CacheError) as error:
        imports.say(f'cache mount "{mount_id}" cannot be had, it starts empty: {error}')
        for name in os.listdir(directory):
            remove_tree(os.path.join(directory, name))
        return False
    return True


def _unpack(imports: Imports, cache: Cache, parts: Sequence[TravellingLayer], directory: str) -> None:
    blobs = imports.store.blobs
    imports.each(lambda part: imports.receive(cache, part), parts)
    for part in parts:
        unpack_blob(blobs, part.blob, part.diff_id, directory, lower_dirs=())
        blobs.delete(part.blob.digest)


def _encoded(layer: TravellingLayer) -> bytes:
    blob = [layer.blob.media_type, layer.blob.digest, layer.blob.size]
    return json.dumps([layer.diff_id, blob, layer.content_digest, layer.tar_size]).encode("ascii")


def _decoded(raw: bytes | None) -> TravellingLayer | None:
    if raw is None:
        return None
    fields: Any = json.loads(raw)
    diff_id, (media_type, digest, size), content, tar_size = fields
    return TravellingLayer(Digest(diff_id), Descriptor(media_type, Digest(digest), size), content, tar_size)
