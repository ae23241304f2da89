"""Images of the local store: two documents in its blobs, a row for each name, and a chain of snapshots.

A name may mean an index over images for several platforms instead, whose row has the index's digest as id, too. Finding
images by name or id, naming them. What is not in the store is None here; fetching it is somebody else's business.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from builder.errors import BuildError
from builder.image.config import diff_ids, parse_config
from builder.image.manifest import Manifest, parse_manifest
from builder.image.names import ImageName, parse_name
from builder.image.platform import choose, host_platform, platform_of
from cache.digest import Digest, sha256_bytes
from cache.errors import CacheError
from cache.images import ImageRecord
from cache.namedtuple import NamedTuple
from cache.snapshot import chain_id
from cache.store import Store


class StoredImage(NamedTuple):
    """An image whose documents and layers the store has. The config digest is the image's id."""

    manifest_digest: Digest
    config_digest: Digest
    config: dict[str, Any]
    manifest: Manifest
    chain_id: str


def chain_id_of(layers: Iterable[Digest]) -> str:
    """Return the ChainID of uncompressed layers, bottom first; "" for none."""
    chain = ""
    for diff_id in layers:
        chain = chain_id(chain, diff_id)
    return chain


def read_image(store: Store, manifest_digest: Digest) -> StoredImage:
    """Return the image with this manifest; CacheError when a document of it is missing or damaged."""
    manifest = parse_manifest(store.blobs.read(manifest_digest), f"manifest {manifest_digest}")
    if not isinstance(manifest, Manifest):
        raise BuildError(f"manifest {manifest_digest} is an index, expected an image")
    return with_config(manifest_digest, manifest, store.blobs.read(manifest.config.digest))


def with_config(manifest_digest: Digest, manifest: Manifest, config_raw: bytes) -> StoredImage:
    """Return the image that a manifest and the bytes of its config make; BuildError when the two disagree."""
    config = parse_config(config_raw)
    layers = diff_ids(config)
    if len(layers) != len(manifest.layers):
        raise BuildError(
            f"image {manifest_digest} is malformed: its config has {len(layers)} diff_ids, "
            f"its manifest {len(manifest.layers)} layers"
        )
    return StoredImage(manifest_digest, manifest.config.digest, config, manifest, chain_id_of(layers))


def read_images(store: Store, digest: Digest) -> list[StoredImage]:
    """Return the image with this manifest, or all that an index with this digest lists; CacheError as `read_image`."""
    return [image for _, image in read_listed(store, digest)]


def read_listed(store: Store, digest: Digest) -> list[tuple[str, StoredImage]]:
    """Return the same, each with its platform: what an index says counts more than the image's config."""
    document = parse_manifest(store.blobs.read(digest), f"manifest {digest}")
    if isinstance(document, Manifest):
        image = with_config(digest, document, store.blobs.read(document.config.digest))
        return [(platform_of(image.config), image)]
    images = [(entry, read_image(store, entry.digest)) for entry in document.manifests]
    return [(platform_of(entry.platform or {}) or platform_of(image.config), image) for entry, image in images]


def resolve_image(store: Store, text: str, platform: str = "") -> StoredImage | None:
    """Return the image that `name[:tag][@digest]` or an id (`sha256:<hex>`, or the start of it) names, None if none.

    An image that does not run on `platform` ("" for any) is None as well. Of several under one name the one for the
    platform is taken, without one that for this machine, or else the first. Names come before ids.
    """
    record = find_record(store, text)
    if record is None:
        return None
    listed = read_listed(store, Digest(record.manifest_digest))
    if len(listed) == 1 and not platform:
        return listed[0][1]
    chosen = choose([each for each, _ in listed], platform or host_platform())
    if chosen is None:
        return None if platform or not listed else listed[0][1]
    return listed[chosen][1]


def find_record(store: Store, text: str) -> ImageRecord | None:
    """Return the row of the image that a name or an id names, None if there is none; BuildError for an ambiguous id."""
    try:
        name = parse_name(text)
    except BuildError:
        return _find_id(store, text)
    if name.digest:
        return _find_id(store, name.digest)
    return store.images.get(str(name)) or _find_id(store, text)


def _find_id(store: Store, text: str) -> ImageRecord | None:
    """An id may belong to several manifests: the same image with layers compressed in another way. What a name meant
    before has no name."""
    start = text if text.startswith("sha256:") else f"sha256:{text}"
    if start == "sha256:":
        return None
    found = [
        record
        for record in store.images.walk()
        if record.manifest_digest.startswith(start) or record.config_digest.startswith(start)
    ]
    found = found or [
        ImageRecord("", version.manifest_digest, version.config_digest, version.since_ns)
        for version in store.images.versions.walk()
        if version.manifest_digest.startswith(start) or version.config_digest.startswith(start)
    ]
    if len({record.config_digest for record in found}) > 1:
        raise BuildError(f"image {text!r} is ambiguous: several ids start so", hint="give more digits")
    return found[0] if found else None


def require_image(store: Store, text: str, platform: str = "") -> StoredImage:
    """Return the image that a name or an id names, for a platform; BuildError when the store has none."""
    try:
        image = resolve_image(store, text, platform)
        others = platforms_of(store, text) if image is None and platform else ()
    except CacheError as error:
        raise BuildError(f"image {text!r} is damaged: {error}", hint=error.hint) from error
    if others:
        raise BuildError(f"image {text!r} is not for {platform}", hint=f"it is for {', '.join(others)}")
    if image is None:
        raise BuildError(f"no such image: {text!r}", hint="`pybuild images` lists what there is")
    return image


def platforms_of(store: Store, text: str) -> tuple[str, ...]:
    """Return the platforms of all images that a name or an id names; CacheError as `read_image`."""
    record = find_record(store, text)
    if record is None:
        return ()
    return tuple([platform for platform, _ in read_listed(store, Digest(record.manifest_digest))])


def require_record(store: Store, text: str) -> ImageRecord:
    """Return the row of the image or index that a name or an id names; BuildError when the store has none."""
    record = find_record(store, text)
    if record is None:
        raise BuildError(f"no such image: {text!r}", hint="`pybuild images` lists what there is")
    return record


def put_document(store: Store, raw: bytes) -> Digest:
    """Put a document of an image into the store, unless it is there; its digest. Idempotent."""
    digest = sha256_bytes(raw)
    if store.blobs.size(digest) != len(raw):
        store.blobs.put_bytes(raw)
    return digest


def tag_image(store: Store, manifest_digest: Digest, config_digest: Digest, names: Sequence[ImageName]) -> None:
    """Let the names (none: the image is kept without one) mean an image of the store. Idempotent."""
    for name in [str(name) for name in names] or [""]:
        record = store.images.get(name) if name else None
        if record is None or record.manifest_digest != manifest_digest:
            store.images.tag(name, manifest_digest, config_digest)
