"""What the store has under one digest, an image or an index over several, as what can leave it.

An index stays what it is, with its platforms and annotations; where an image got another manifest, because its layers
were compressed, its entry names that.
"""

from __future__ import annotations

from collections.abc import Sequence

from builder.export.archiveplan import CREATED, Archive, plan_archive
from builder.export.pack import PackedImage
from builder.image.manifest import Index, encode_manifest, parse_manifest
from builder.image.names import ImageName
from cache.descriptor import Descriptor
from cache.digest import Digest, sha256_bytes
from cache.store import Store


def plan_stored(store: Store, digest: Digest, packed: Sequence[PackedImage], names: Sequence[ImageName]) -> Archive:
    """Return the layout of the image or index with this digest; `packed` are its images as `read_images` lists them."""
    raw = store.blobs.read(digest)
    index = parse_manifest(raw, f"index {digest}")
    if not isinstance(index, Index):
        return plan_archive(packed, names, docker=False)
    entries = tuple(
        entry._replace(media_type=image.manifest.media_type, digest=image.manifest_digest, size=len(image.manifest_raw))
        for entry, image in zip(index.manifests, packed, strict=True)
    )
    if entries != index.manifests:
        raw = encode_manifest(index._replace(manifests=entries))
    documents = {sha256_bytes(raw): raw}
    layers: dict[Digest, int] = {}
    for image in packed:
        documents[image.manifest.config.digest] = image.config_raw
        documents[image.manifest_digest] = image.manifest_raw
        layers.update({layer.digest: layer.size for layer in image.manifest.layers})
    marks = {CREATED: max(image.created for image in packed)} if packed else None
    top = Descriptor(index.media_type, sha256_bytes(raw), len(raw), marks)
    return Archive(top, documents, layers, tuple(names), None)
