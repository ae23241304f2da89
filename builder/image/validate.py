"""Is an image what it says it is? Collects everything that is wrong with one, not only the first thing.

Reads what lies in a blob store; repairs and fetches nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

from builder.errors import BuildError
from builder.image.config import diff_ids
from builder.image.manifest import Manifest
from cache.blobs import BlobStore
from cache.compression import open_decompressed
from cache.descriptor import MEDIA_CONFIG, MEDIA_DOCKER_CONFIG, Descriptor
from cache.digest import Digest
from cache.errors import CacheError

_CONFIG_TYPES = (MEDIA_CONFIG, MEDIA_DOCKER_CONFIG)
_LAYER_PREFIXES = ("application/vnd.oci.image.layer.", "application/vnd.docker.image.rootfs.")
_CHUNK = 1 << 20


def find_problems(
    manifest: Manifest,
    config: dict[str, Any],
    blobs: BlobStore,
    is_verified: Callable[[int], bool] = lambda _: False,
) -> list[str]:
    """Return what is wrong with an image whose blobs are in the store, one sentence each; nothing for a good one.

    Every layer is decompressed and compared with its diff_id, except those (by number, from the bottom) that
    `is_verified` vouches for.
    """
    return list(_problems(manifest, config, blobs, is_verified))


def _problems(
    manifest: Manifest, config: dict[str, Any], blobs: BlobStore, is_verified: Callable[[int], bool]
) -> Iterator[str]:
    if manifest.config.media_type not in _CONFIG_TYPES:
        yield f"its config is {manifest.config.media_type!r}, so it is no image but another kind of artifact"
    yield from _blob_problems("config", manifest.config, blobs)
    layers = diff_ids(config)
    if len(layers) != len(manifest.layers):
        yield f"its config has {len(layers)} diff_ids, its manifest {len(manifest.layers)} layers"
    for number, blob in enumerate(manifest.layers):
        what = f"layer {number}"
        if not blob.media_type.startswith(_LAYER_PREFIXES):
            yield f"{what} is {blob.media_type!r}, which is no layer"
        found = list(_blob_problems(what, blob, blobs))
        yield from found
        if not found and number < len(layers) and not is_verified(number):
            yield from _layer_problems(what, blob, layers[number], blobs)


def _blob_problems(what: str, blob: Descriptor, blobs: BlobStore) -> Iterator[str]:
    size = blobs.size(blob.digest)
    if size is None:
        yield f"{what} {blob.digest} is missing"
    elif size != blob.size:
        yield f"{what} {blob.digest} has {size} bytes, its descriptor says {blob.size}"


def _layer_problems(what: str, blob: Descriptor, diff_id: Digest, blobs: BlobStore) -> Iterator[str]:
    try:
        actual = content_digest(blobs, blob.digest)
    except CacheError as error:
        yield f"{what} {blob.digest}: {error}"
        return
    if actual != diff_id:
        yield f"{what} {blob.digest} has the diff_id {actual}, its config says {diff_id}"


def content_digest(blobs: BlobStore, digest: Digest) -> Digest:
    """Return the digest of what a blob holds once it is decompressed; CacheError for a broken stream or blob."""
    content = hashlib.sha256()
    with blobs.open(digest) as reader:
        stream = open_decompressed(reader)
        while chunk := stream.read(_CHUNK):
            content.update(chunk)
        while reader.read(_CHUNK):  # what follows the compressed stream: the blob is verified at its end only
            continue
    return Digest.of_hex(content.hexdigest())


def require_valid(problems: list[str], what: str) -> None:
    """Raise a BuildError that lists all `problems` of an image; nothing for none."""
    if problems:
        raise BuildError(f"{what} is not valid: " + "; ".join(problems), hint="get the image again from where it came")
