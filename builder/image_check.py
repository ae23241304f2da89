"""Whether the images of the store can still be used: their documents are there, and every layer."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from builder.errors import BuildError
from builder.image.manifest import Index, Manifest, parse_manifest
from builder.image.names import familiar_parts
from builder.image.stored import with_config
from cache.check import DAMAGE, Finding
from cache.digest import Digest
from cache.errors import CacheError
from cache.images import ImageRecord
from cache.store import Store


def check_images(store: Store) -> Iterator[Finding]:
    """A finding for each name of an image that cannot be used. Its repair forgets the name."""
    for record in list(store.images.walk()):
        problem = _problem(store, record)
        if problem:
            name = ":".join(familiar_parts(record.name)) if record.name else record.config_digest[7:19]
            yield Finding(DAMAGE, f"image {name}", problem, repair=partial(_forget, store, record))


def _problem(store: Store, record: ImageRecord) -> str:
    """What is wrong with an image, "" for nothing. Notes no use, so that a repair can remove what it was about."""
    digest = Digest(record.manifest_digest)
    try:
        document = parse_manifest(_document(store, digest), f"manifest {digest}")
        listed = [entry.digest for entry in document.manifests] if isinstance(document, Index) else [digest]
        chains = [_chain(store, each) for each in listed]
    except (BuildError, CacheError) as error:
        return str(error)
    return "" if all(map(store.snapshots.peek, chains)) else "has lost layers: build it or load it again"


def _chain(store: Store, manifest_digest: Digest) -> str:
    manifest = parse_manifest(_document(store, manifest_digest), f"manifest {manifest_digest}")
    if not isinstance(manifest, Manifest):
        raise BuildError(f"manifest {manifest_digest} is an index, expected an image")
    return with_config(manifest_digest, manifest, _document(store, manifest.config.digest)).chain_id


def _document(store: Store, digest: Digest) -> bytes:
    found = store.blobs.peek_bytes(digest)
    if found is None:
        raise BuildError(f"blob {digest} is not in the store")
    return found


def _forget(store: Store, record: ImageRecord) -> None:
    if record.name:
        store.images.untag(record.name)
    else:
        store.images.forget(record.manifest_digest)
