"""Descriptors: what a piece of content is, how long it is, and its address (OCI image-spec, descriptor)."""

from typing import Any, Self

from cache.digest import Digest
from cache.errors import CacheError
from cache.namedtuple import NamedTuple

MEDIA_LAYER_TAR = "application/vnd.oci.image.layer.v1.tar"
MEDIA_LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
MEDIA_LAYER_ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"
MEDIA_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
MEDIA_CONFIG = "application/vnd.oci.image.config.v1+json"
MEDIA_INDEX = "application/vnd.oci.image.index.v1+json"
MEDIA_DOCKER_LAYER_TAR = "application/vnd.docker.image.rootfs.diff.tar"
MEDIA_DOCKER_LAYER_GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"
MEDIA_DOCKER_LAYER_ZSTD = "application/vnd.docker.image.rootfs.diff.tar.zstd"
MEDIA_DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
MEDIA_DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
MEDIA_DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"

_OCI_LAYER = {
    MEDIA_DOCKER_LAYER_TAR: MEDIA_LAYER_TAR,
    MEDIA_DOCKER_LAYER_GZIP: MEDIA_LAYER_GZIP,
    MEDIA_DOCKER_LAYER_ZSTD: MEDIA_LAYER_ZSTD,
}


class Descriptor(NamedTuple):
    """The address of some content; `size` is its length in bytes."""

    media_type: str
    digest: Digest
    size: int
    annotations: dict[str, str] | None = None
    platform: dict[str, Any] | None = None
    artifact_type: str = ""
    """What a manifest is when it is no image, "" when nobody says."""

    def to_json(self) -> dict[str, Any]:
        """The JSON document, in the order in which the specification lists the members."""
        document: dict[str, Any] = {"mediaType": self.media_type, "digest": str(self.digest), "size": self.size}
        if self.annotations:
            document["annotations"] = dict(self.annotations)
        if self.platform:
            document["platform"] = dict(self.platform)
        if self.artifact_type:
            document["artifactType"] = self.artifact_type
        return document

    @classmethod
    def from_json(cls, document: object) -> Self:
        """The descriptor that a JSON document describes; CacheError when it is not one."""
        if not isinstance(document, dict):
            raise CacheError(f"descriptor is not valid: expected an object, got {document!r}")
        size = document.get("size")
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise CacheError(f"descriptor is not valid: size is {size!r}")
        annotations, platform = document.get("annotations"), document.get("platform")
        artifact_type = document.get("artifactType")
        return cls(
            str(document.get("mediaType", "")),
            Digest.parse(str(document.get("digest", ""))),
            size,
            annotations if isinstance(annotations, dict) else None,
            platform if isinstance(platform, dict) else None,
            artifact_type if isinstance(artifact_type, str) else "",
        )


def oci_layer_type(media_type: str) -> str:
    """The OCI media type for the same bytes; types that Docker does not name its own way stay as they are."""
    return _OCI_LAYER.get(media_type, media_type)


def docker_layer_type(media_type: str) -> str:
    """Docker's media type for the same bytes."""
    return next((docker for docker, oci in _OCI_LAYER.items() if oci == media_type), media_type)
