"""Lists of the files behind digests in keys' manifests, on their way to and from other places: they tell which file
changed, and only a build that has to explain a miss fetches one."""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Iterable
from concurrent.futures import Executor

from builder.cachestore.imports import Cache, Imports
from builder.errors import BuildError
from cache.blobs import Readable
from cache.descriptor import Descriptor
from cache.digest import sha256_bytes
from cache.errors import CacheError
from cache.exchange import MAX_SIZE, MEDIA_FILE_LIST, TravellingRecord
from cache.store import Store

SendBlob = Callable[[Descriptor, Callable[[], Readable]], object]


def send_lists(
    records: Iterable[TravellingRecord], store: Store, imports: Imports | None, send: SendBlob, *, pool: Executor
) -> dict[str, Descriptor]:
    """Have the lists of the files that these records' steps read at a place; where each is. What neither the store nor
    the imports know is left out. CacheError or BuildError when the place does not take them."""
    wanted = {digest for record in records for manifest in record.manifests.values() for digest in _digests(manifest)}

    def send_one(digest: str) -> tuple[str, Descriptor] | None:
        packed = store.notes.packed_list(digest)
        if packed is not None:
            blob = Descriptor(MEDIA_FILE_LIST, sha256_bytes(packed), len(packed))
            send(blob, lambda: io.BytesIO(packed))
            return digest, blob
        for cache in () if imports is None else imports.caches:
            if digest in cache.index.file_lists and _pass_on(cache, digest, send):
                return digest, cache.index.file_lists[digest]
        return None

    return dict([found for found in pool.map(send_one, sorted(wanted)) if found is not None])


def _pass_on(cache: Cache, digest: str, send: SendBlob) -> bool:
    """Have at the place what another cache has; whether it could be had."""

    def opening() -> Readable:
        packed = fetch(cache, digest)
        if packed is None:
            raise LookupError(digest)
        return io.BytesIO(packed)

    try:
        send(cache.index.file_lists[digest], opening)
    except LookupError:
        return False
    return True


def _digests(manifest: object) -> list[str]:
    """What a manifest calls lists of files by; one from a cache elsewhere may be anything."""
    inputs = manifest.get("inputs") if isinstance(manifest, dict) else None
    lists = [each.get("digests") for each in inputs if isinstance(each, dict)] if isinstance(inputs, list) else []
    digests = [digest for each in lists if isinstance(each, list) for digest in each]
    return [digest for digest in digests if isinstance(digest, str)]


def fetch(cache: Cache, digest: str) -> bytes | None:
    """A list as it travels, checked; None when a cache has not got it, or something else in its place."""
    blob = cache.index.file_lists.get(digest)
    if blob is None or not cache.is_usable:
        return None
    try:
        with cache.opened(blob) as stream:
            packed = _read(stream, blob.size)
        return packed if sha256_bytes(packed) == blob.digest and unpacked(packed, digest) is not None else None
    except (BuildError, CacheError):
        return None


def read_list(imports: Imports, digest: str) -> bytes | None:
    """The list of files with that digest out of the first cache that has it."""
    fetched = (fetch(cache, digest) for cache in imports.caches)
    packed = next((raw for raw in fetched if raw is not None), None)
    return None if packed is None else unpacked(packed, digest)


def _read(stream: Readable, size: int) -> bytes:
    chunks, left = [], size + 1
    while left and (chunk := stream.read(left)):
        chunks.append(chunk)
        left -= len(chunk)
    return b"".join(chunks)


def unpacked(packed: bytes, digest: str) -> bytes | None:
    """The list in `packed`, None when it is not the one with that digest."""
    unpacker = zlib.decompressobj()
    try:
        text = unpacker.decompress(packed, MAX_SIZE)
    except zlib.error:
        return None
    return text if unpacker.eof and sha256_bytes(text).hex == digest else None
