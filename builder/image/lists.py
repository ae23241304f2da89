"""Indexes of the local store that are put together by hand: which images are in one, for which platforms."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from builder.errors import BuildError
from builder.image.manifest import Index, encode_manifest, parse_manifest
from builder.image.names import ImageName
from builder.image.platform import platform_document, platform_of
from builder.image.stored import find_record, put_document, read_image, require_record, tag_image
from cache.descriptor import Descriptor
from cache.digest import Digest
from cache.store import Store

_START = 12
"""Digits of a digest that name an entry."""


def entries_of(store: Store, text: str) -> tuple[Descriptor, ...]:
    """Return the entry for an image of the store, or all that an index lists; BuildError when the store has none."""
    digest = Digest(require_record(store, text).manifest_digest)
    raw = store.blobs.read(digest)
    document = parse_manifest(raw, f"manifest {digest}")
    if isinstance(document, Index):
        return document.manifests
    platform = platform_of(read_image(store, digest).config)
    if not platform:
        raise BuildError(f"image {text!r} does not say which platform it is for")
    return (Descriptor(document.media_type, digest, len(raw), None, platform_document(platform)),)


def require_index(store: Store, text: str) -> Index:
    """Return the index that a name or an id means; BuildError when that is an image, or nothing."""
    digest = Digest(require_record(store, text).manifest_digest)
    document = parse_manifest(store.blobs.read(digest), f"index {digest}")
    if not isinstance(document, Index):
        raise BuildError(
            f"{text!r} is an image, expected an index", hint="pybuild manifest create LIST IMAGE… makes one"
        )
    return document


def joined(entries: Iterable[Descriptor]) -> tuple[Descriptor, ...]:
    """Return the entries, each image once: what is said of it last counts, at its first place."""
    return tuple({entry.digest: entry for entry in entries}.values())


def put_index(store: Store, name: ImageName, index: Index) -> Digest:
    """Let a name mean an index, whose images are in the store; its digest. Idempotent."""
    digest = put_document(store, encode_manifest(index))
    tag_image(store, digest, digest, [name])
    return digest


def find_entry(store: Store, index: Index, text: str) -> int:
    """Return which entry of an index a name, an id or a digest of an image means; BuildError when it is none."""
    record = find_record(store, text)
    wanted = record.manifest_digest if record is not None else text
    start = wanted if wanted.startswith("sha256:") else f"sha256:{wanted}"
    found = [
        number
        for number, entry in enumerate(index.manifests)
        if entry.digest == wanted or (len(start) >= _START + 7 and entry.digest.startswith(start))
    ]
    if len(found) != 1:
        listed = ", ".join(f"{platform_of(entry.platform or {})} {entry.digest[:19]}" for entry in index.manifests)
        raise BuildError(f"{text!r} is not in the index", hint=f"it has {listed}")
    return found[0]


def annotated(
    index: Index, number: int, platform: Mapping[str, str | Sequence[str]], annotations: Mapping[str, str]
) -> Index:
    """Return the index with some fields of one entry's platform, and some of its annotations, replaced."""
    entry = index.manifests[number]
    fields: dict[str, Any] = {**(entry.platform or {}), **platform}
    changed = entry._replace(
        platform={key: value for key, value in fields.items() if value},
        annotations={**(entry.annotations or {}), **annotations} or None,
    )
    manifests = (*index.manifests[:number], changed, *index.manifests[number + 1 :])
    return index._replace(manifests=manifests)
