"""Manifests and indexes (OCI image-spec, manifest.md and image-index.md; Docker schema 2 is read as the same thing).

Values, how they are read and how they are written. Where their bytes lie is the business of layout, archive and store.
"""

from typing import Any, TypeAlias

from builder.errors import BuildError
from builder.image.document import encode_document, expect, parse_document
from cache.descriptor import (
    MEDIA_CONFIG,
    MEDIA_DOCKER_CONFIG,
    MEDIA_DOCKER_INDEX,
    MEDIA_DOCKER_MANIFEST,
    MEDIA_INDEX,
    MEDIA_MANIFEST,
    Descriptor,
    docker_layer_type,
)
from cache.errors import CacheError
from cache.namedtuple import NamedTuple

_MANIFEST_TYPES = (MEDIA_MANIFEST, MEDIA_DOCKER_MANIFEST)
_INDEX_TYPES = (MEDIA_INDEX, MEDIA_DOCKER_INDEX)
CONFIG_TYPES = (MEDIA_CONFIG, MEDIA_DOCKER_CONFIG)
_PLATFORM_KEYS = ("os", "architecture", "variant")


class Manifest(NamedTuple):
    """One image for one platform: its config and its layers, bottom first."""

    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: dict[str, str] | None = None
    media_type: str = MEDIA_MANIFEST


class Index(NamedTuple):
    """Several manifests: of one image for several platforms, or whatever a layout holds."""

    manifests: tuple[Descriptor, ...]
    annotations: dict[str, str] | None = None
    media_type: str = MEDIA_INDEX


Document: TypeAlias = Manifest | Index


def parse_manifest(raw: bytes, what: str = "manifest") -> Document:
    """Return the manifest or index in `raw`; BuildError for what is neither, or could be taken for both.

    A document with the fields of both kinds means different images to different programs and is refused, as is one
    whose `mediaType` contradicts its fields (CVE-2021-41190).
    """
    document = parse_document(raw, what)
    if document.get("schemaVersion") != 2:
        raise BuildError(
            f"{what}: schemaVersion is {document.get('schemaVersion')!r}, expected 2",
            hint="images of Docker's schema 1 have to be converted, for example with skopeo copy --format oci",
        )
    is_index, is_manifest = "manifests" in document, "layers" in document or "config" in document
    if is_index and is_manifest:
        raise BuildError(f"{what} is ambiguous: it has both manifests and layers or config")
    media_type = expect(document, "mediaType", str, what)
    if is_index:
        return _index(document, media_type, what)
    if is_manifest:
        return _manifest(document, media_type, what)
    raise BuildError(f"{what} is neither an image manifest nor an index: no layers and no manifests")


def _manifest(document: dict[str, Any], media_type: str | None, what: str) -> Manifest:
    _check_type(media_type, _MANIFEST_TYPES, what)
    if document.get("config") is None or document.get("layers") is None:
        raise BuildError(f"{what} lacks {'config' if document.get('config') is None else 'layers'}")
    return Manifest(
        config=_descriptors([expect(document, "config", dict, what)], f"{what} config")[0],
        layers=_descriptors(expect(document, "layers", list, what), f"{what} layers"),
        annotations=_annotations(document, what),
        media_type=media_type or MEDIA_MANIFEST,
    )


def require_image_type(manifest: Manifest, name: str) -> None:
    """BuildError for a manifest whose config is that of something else than an image; `name` stands for it."""
    if manifest.config.media_type not in CONFIG_TYPES:
        raise BuildError(f"{name} is no image but another kind of artifact: {manifest.config.media_type!r}")


def _index(document: dict[str, Any], media_type: str | None, what: str) -> Index:
    _check_type(media_type, _INDEX_TYPES, what)
    manifests = _descriptors(expect(document, "manifests", list, what) or [], f"{what} manifests")
    return Index(manifests, _annotations(document, what), media_type or MEDIA_INDEX)


def _check_type(media_type: str | None, allowed: tuple[str, ...], what: str) -> None:
    if media_type is not None and media_type not in allowed:
        raise BuildError(f"{what}: mediaType is {media_type!r}, its fields say {allowed[0]!r}")


def _descriptors(documents: list[Any], what: str) -> tuple[Descriptor, ...]:
    try:
        descriptors = tuple([Descriptor.from_json(document) for document in documents])
    except CacheError as error:
        raise BuildError(f"{what}: {error}") from error
    for descriptor in descriptors:
        _check_text(descriptor.annotations, f"{what}: an annotation")
        platform = descriptor.platform or {}
        _check_text({key: platform.get(key) or "" for key in _PLATFORM_KEYS}, f"{what}: a field of a platform")
    return descriptors


def _annotations(document: dict[str, Any], what: str) -> dict[str, str] | None:
    annotations: dict[str, str] | None = expect(document, "annotations", dict, what)
    _check_text(annotations, f"{what}: an annotation")
    return annotations


def _check_text(fields: dict[str, Any] | None, what: str) -> None:
    if fields and not all(isinstance(value, str) for value in fields.values()):
        raise BuildError(f"{what} is not text")


def encode_manifest(document: Document) -> bytes:
    """Return the canonical bytes of a manifest (indented) or an index, keys in the order of Go's structures."""
    fields: dict[str, Any] = {"schemaVersion": 2, "mediaType": document.media_type}
    if isinstance(document, Manifest):
        fields["config"] = document.config.to_json()
        fields["layers"] = [layer.to_json() for layer in document.layers]
    else:
        fields["manifests"] = [manifest.to_json() for manifest in document.manifests]
    if document.annotations:
        fields["annotations"] = dict(sorted(document.annotations.items()))
    return encode_document(fields, indent=2)


def with_docker_types(manifest: Manifest) -> Manifest:
    """Return the manifest with Docker's media types (Docker image manifest version 2, schema 2)."""
    return manifest._replace(
        media_type=MEDIA_DOCKER_MANIFEST,
        config=manifest.config._replace(media_type=MEDIA_DOCKER_CONFIG),
        layers=tuple([layer._replace(media_type=docker_layer_type(layer.media_type)) for layer in manifest.layers]),
    )
