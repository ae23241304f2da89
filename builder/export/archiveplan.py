"""What a layout of packed images is going to hold, before anything is written: documents, layers, names.

The local store keeps the documents of the same plan, so that an image is the same wherever it goes.
"""

from collections.abc import Sequence
from typing import Any

from builder.errors import BuildError
from builder.export.pack import PackedImage
from builder.export.spec import Annotation, pick_annotations
from builder.image.manifest import Index, encode_manifest
from builder.image.names import ImageName
from builder.image.platform import platform_document
from builder.image.select import IMAGE_NAME, REF_NAME
from cache.descriptor import MEDIA_DOCKER_INDEX, MEDIA_DOCKER_MANIFEST, MEDIA_INDEX, Descriptor
from cache.digest import Digest, sha256_bytes
from cache.namedtuple import NamedTuple

CREATED = "org.opencontainers.image.created"


class Archive(NamedTuple):
    """What a layout is going to hold: the documents, the layers (which lie in the store), and what to call it all."""

    descriptor: Descriptor
    documents: dict[Digest, bytes]
    layers: dict[Digest, int]
    names: tuple[ImageName, ...]
    docker: dict[str, Any] | None
    target: str = ""
    """Of several images the stage that this one is; the tag of one that has no name."""
    others: tuple[Descriptor, ...] = ()
    """What else `index.json` lists: referrers."""

    def index_entries(self, unnamed: str = "") -> tuple[Descriptor, ...]:
        """Return the entries of `index.json`: one for each name, or a single one tagged `unnamed` (not when ""), and
        the others."""
        base = self.descriptor.annotations or {}
        marks = [{IMAGE_NAME: str(name), REF_NAME: name.tag} for name in self.names]
        tag = self.target or unnamed
        marks = marks or [{REF_NAME: tag} if tag else {}]
        named = [self.descriptor._replace(annotations=dict(sorted({**base, **mark}.items()))) for mark in marks]
        return (*named, *self.others)


def plan_archive(
    images: Sequence[PackedImage],
    names: Sequence[ImageName],
    annotations: Sequence[Annotation] = (),
    *,
    docker: bool,
    index: bool = False,
) -> Archive:
    """Return the layout for one image, or for one image per platform under an index; `index` wants one in any case.

    `docker` adds the `manifest.json` that `docker load` reads, which needs a single image (BuildError).
    """
    _check_platforms(images, annotations)
    if _has_docker_types(images) and any(annotation.place != "manifest" for annotation in annotations):
        raise BuildError('annotations of indexes and descriptors cannot be written with "oci-mediatypes=false"')
    documents: dict[Digest, bytes] = {}
    layers: dict[Digest, int] = {}
    for image in images:
        documents[image.manifest.config.digest] = image.config_raw
        documents[image.manifest_digest] = image.manifest_raw
        layers.update({layer.digest: layer.size for layer in image.manifest.layers})
    entries = [_manifest_entry(image, annotations) for image in images]
    if docker and len(images) > 1:
        raise BuildError(
            "a docker archive holds an image for one platform", hint="use type=oci, or give one --platform"
        )
    if len(entries) == 1 and not index:
        if any(annotation.place.startswith("index") for annotation in annotations):
            raise BuildError("an image for one platform has no index to annotate", hint="use annotation.KEY=VALUE")
        return Archive(entries[0], documents, layers, tuple(names), _docker_entry(images[0], names) if docker else None)
    media_type = MEDIA_DOCKER_INDEX if _has_docker_types(images) else MEDIA_INDEX
    raw = encode_manifest(Index(tuple(entries), pick_annotations(annotations, "index") or None, media_type))
    digest = sha256_bytes(raw)
    documents[digest] = raw
    marks = {CREATED: max(image.created for image in images), **pick_annotations(annotations, "index-descriptor")}
    return Archive(Descriptor(media_type, digest, len(raw), marks), documents, layers, tuple(names), None)


def _has_docker_types(images: Sequence[PackedImage]) -> bool:
    return images[0].manifest.media_type == MEDIA_DOCKER_MANIFEST


def _check_platforms(images: Sequence[PackedImage], annotations: Sequence[Annotation]) -> None:
    """Of several images; with a single one BuildKit lets what is for another platform pass."""
    if len(images) == 1:
        return
    found = {image.platform for image in images}
    for annotation in annotations:
        if annotation.platform and annotation.platform not in found:
            raise BuildError(
                f"invalid annotation: no platform {annotation.platform} found in source",
                hint=f"the image is for {', '.join(sorted(found))}",
            )


def _manifest_entry(image: PackedImage, annotations: Sequence[Annotation]) -> Descriptor:
    marks = {CREATED: image.created, **pick_annotations(annotations, "manifest-descriptor", image.platform)}
    platform = platform_document(image.platform)
    return Descriptor(image.manifest.media_type, image.manifest_digest, len(image.manifest_raw), marks, platform)


def _docker_entry(image: PackedImage, names: Sequence[ImageName]) -> dict[str, Any]:
    return {
        "Config": blob_path(image.manifest.config.digest),
        "RepoTags": [name.familiar for name in names] or None,
        "Layers": [blob_path(layer.digest) for layer in image.manifest.layers],
    }


def blob_path(digest: Digest) -> str:
    """Where a layout has a blob."""
    return f"blobs/{digest.algorithm}/{digest.hex}"
