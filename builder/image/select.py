"""Finding one image in an index: by tag, by digest, by platform, through nested indexes.

The bytes of a document come from a `read` function, so that directories, archives and the store look the same.
"""

from collections.abc import Callable, Sequence
from typing import TypeAlias

from builder.errors import BuildError
from builder.image.manifest import CONFIG_TYPES, Index, Manifest, parse_manifest
from builder.image.platform import choose, platform_of
from cache.descriptor import (
    MEDIA_DOCKER_INDEX,
    MEDIA_DOCKER_MANIFEST,
    MEDIA_INDEX,
    MEDIA_MANIFEST,
    Descriptor,
)
from cache.digest import Digest
from cache.namedtuple import NamedTuple

MAX_INDEX_DEPTH = 4
"""Indexes in indexes: deeper ones are refused, whatever points at what."""

REF_NAME = "org.opencontainers.image.ref.name"
IMAGE_NAME = "io.containerd.image.name"

_INDEX_TYPES = (MEDIA_INDEX, MEDIA_DOCKER_INDEX)
_KNOWN_TYPES = (MEDIA_MANIFEST, MEDIA_DOCKER_MANIFEST, *_INDEX_TYPES)
_IMAGE_KINDS = ("", *CONFIG_TYPES)
"""Artifact types of images: lists of referrers say what the config is."""

_HEX = frozenset("0123456789abcdef")

ReadDocument: TypeAlias = Callable[[Descriptor], bytes]
"""Returns the verified bytes of a document, raises BuildError when it is absent or damaged."""


class Selected(NamedTuple):
    """The manifest that was found, with its own bytes."""

    digest: Digest
    manifest: Manifest
    raw: bytes


def names_of(descriptor: Descriptor) -> tuple[str, ...]:
    """Return the names and tags that an entry of a layout's index carries."""
    annotations = descriptor.annotations or {}
    return tuple([annotations[key] for key in (IMAGE_NAME, REF_NAME) if annotations.get(key)])


def is_image(descriptor: Descriptor) -> bool:
    """Return whether an entry is an image, not an attestation, a signature or something else that shares the index."""
    platform = descriptor.platform or {}
    return (
        descriptor.media_type in _KNOWN_TYPES
        and descriptor.artifact_type in _IMAGE_KINDS
        and platform.get("architecture") != "unknown"
        and "vnd.docker.reference.type" not in (descriptor.annotations or {})
    )


def is_unnamed_image(descriptor: Descriptor) -> bool:
    """Return whether an entry of a layout's index is an image to somebody who names none: a signature under a tag made
    of a digest is not."""
    return is_image(descriptor) and not any(_is_made_of_digest(name) for name in names_of(descriptor))


def _is_made_of_digest(tag: str) -> bool:
    """What refers to an image is kept under `sha256-<hex>[.<kind>]`, for registries without lists and by cosign."""
    algorithm, _, digest = tag.partition(".")[0].partition("-")
    return algorithm == "sha256" and len(digest) == 64 and set(digest) <= _HEX


def find_entry(index: Index, wanted: str | None) -> tuple[Descriptor, ...]:
    """Return the entries that `wanted` names: a digest, a full reference, or a tag; None is `latest` or all there is.

    A tag matches `org.opencontainers.image.ref.name`, or what follows its last colon. No match: an empty tuple.
    """
    entries = tuple([entry for entry in index.manifests if is_image(entry)])
    if wanted is None:
        return find_entry(index, "latest") or tuple([entry for entry in entries if is_unnamed_image(entry)])
    if wanted.startswith("sha256:"):
        return tuple([entry for entry in index.manifests if entry.digest == wanted])[:1]
    exact = tuple([entry for entry in entries if wanted in names_of(entry)])
    return exact or tuple(
        [entry for entry in entries if wanted in [name.rpartition(":")[2] for name in names_of(entry)]]
    )


def select_manifest(entries: Sequence[Descriptor], read: ReadDocument, platform: str) -> Selected | None:
    """Return the manifest for `platform` among `entries`, None if there is none.

    The only manifest of a layout is taken whatever its platform is; what an index lists is chosen by platform.
    """
    for _ in range(MAX_INDEX_DEPTH + 1):
        entry = entries[0] if len(entries) == 1 else _choose(entries, platform)
        if entry is None:
            return None
        raw = read(entry)
        document = parse_manifest(raw, f"manifest {entry.digest}")
        _check_kind(entry, document)
        if isinstance(document, Manifest):
            return Selected(entry.digest, document, raw)
        entries = [manifest for manifest in document.manifests if is_image(manifest)]
        if not entries or (_choose(entries, platform) is None and any(entry.platform for entry in entries)):
            return None
    raise BuildError(f"index {entries[0].digest} is nested more than {MAX_INDEX_DEPTH} levels deep")


def _check_kind(entry: Descriptor, document: Index | Manifest) -> None:
    """BuildError when a descriptor calls an index a manifest, or the other way: others would read it so."""
    if entry.media_type in _KNOWN_TYPES and (entry.media_type in _INDEX_TYPES) != isinstance(document, Index):
        kind = "an index" if isinstance(document, Index) else "a manifest"
        raise BuildError(f"manifest {entry.digest} is {kind}, its descriptor says {entry.media_type!r}")


def _choose(entries: Sequence[Descriptor], platform: str) -> Descriptor | None:
    chosen = choose([platform_of(entry.platform or {}) for entry in entries], platform)
    return None if chosen is None else entries[chosen]


def platforms_in(entries: Sequence[Descriptor]) -> str:
    """Return the platforms of `entries` for an error message."""
    found = sorted({platform_of(entry.platform or {}) for entry in entries} - {""})
    return ", ".join(found) or "none stated"
