"""From what a place holds to an index: the documents of a cache, or of an image that has one in its config."""

from __future__ import annotations

from builder.cachestore.place import Found
from builder.image.manifest import Manifest, encode_manifest
from cache.descriptor import MEDIA_CONFIG, MEDIA_DOCKER_CONFIG, Descriptor
from cache.digest import sha256_bytes
from cache.errors import CacheError
from cache.exchange import MEDIA_CACHE_CONFIG, CacheIndex, decode, encode

_BUILDKIT = "application/vnd.buildkit.cacheconfig.v0"


def read_index(found: Found) -> CacheIndex:
    """The index of a cache or of an image. BuildError or CacheError when it is malformed, or another program's."""
    media_type = found.manifest.config.media_type
    if media_type == MEDIA_CACHE_CONFIG:
        return decode(found.config_raw, found.manifest.layers)
    if media_type in (MEDIA_CONFIG, MEDIA_DOCKER_CONFIG):
        from builder.cachestore.inline import read_inline

        return read_inline(found)
    if media_type == _BUILDKIT:
        hint = "its keys are digests of BuildKit's own protocol; give the cache a name of its own"
        raise CacheError("it is a cache of BuildKit", hint=hint)
    raise CacheError(f"it is neither a cache nor an image but {media_type!r}")


def write_index(index: CacheIndex) -> tuple[bytes, bytes]:
    """The manifest and the config of a cache. The manifest names every blob, so that a registry keeps them."""
    config_raw = encode(index)
    config = Descriptor(MEDIA_CACHE_CONFIG, sha256_bytes(config_raw), len(config_raw))
    return encode_manifest(Manifest(config, tuple(index.blobs()))), config_raw
