"""What refers to an image: signatures, SBOMs, attestations, as manifests of their own (image-spec 1.1, subject).

Each names the manifest or index that it is about as its `subject`; cosign's older way is a tag made of that digest.
Where they lie is the business of layouts and registries.
"""

from __future__ import annotations

from typing import Any

from cache.descriptor import MEDIA_MANIFEST, Descriptor
from cache.digest import Digest, sha256_bytes
from cache.errors import CacheError
from cache.namedtuple import NamedTuple

MEDIA_EMPTY = "application/vnd.oci.empty.v1+json"
EMPTY_CONFIG = b"{}"
TITLE = "org.opencontainers.image.title"
_COSIGN = ("sig", "att", "sbom")


class Referrer(NamedTuple):
    """One manifest that is about another one; with a `tag` it is found by that alone."""

    descriptor: Descriptor
    tag: str = ""

    def to_json(self) -> dict[str, Any]:
        """The descriptor as JSON, with its artifact type even if that is not known, and the tag if there is one."""
        tag = {"tag": self.tag} if self.tag else {}
        return {**self.descriptor.to_json(), "artifactType": self.descriptor.artifact_type, **tag}


def referrers_tag(digest: Digest) -> str:
    """The tag of the list of referrers where nobody else keeps one: `sha256-<hex>` (distribution-spec, Referrers Tag
    Schema)."""
    return digest.replace(":", "-")


def cosign_tags(digest: Digest) -> tuple[str, ...]:
    """The tags under which cosign keeps what it says of a manifest."""
    return tuple([f"{referrers_tag(digest)}.{ending}" for ending in _COSIGN])


def subject_of(document: dict[str, Any]) -> Digest | None:
    """What a manifest is about, None if it does not say so in a way that can be understood."""
    subject = document.get("subject")
    try:
        return Digest.parse(str(subject.get("digest", ""))) if isinstance(subject, dict) else None
    except CacheError:
        return None


def listed_as(document: dict[str, Any], raw: bytes, media_type: str) -> Descriptor:
    """The entry of a list of referrers for a manifest (distribution-spec, Listing Referrers)."""
    config, annotations = document.get("config"), document.get("annotations")
    kind = document.get("artifactType") or (config.get("mediaType") if isinstance(config, dict) else None)
    marks = annotations if isinstance(annotations, dict) and annotations else None
    return Descriptor(media_type, sha256_bytes(raw), len(raw), marks, None, str(kind or ""))


def artifact(kind: str, blob: Descriptor, subject: Descriptor) -> dict[str, Any]:
    """The manifest of a single file that is about `subject` (image-spec, Guidelines for Artifact Usage). The empty
    config is to be there."""
    config = Descriptor(MEDIA_EMPTY, sha256_bytes(EMPTY_CONFIG), len(EMPTY_CONFIG))
    return {
        "schemaVersion": 2,
        "mediaType": MEDIA_MANIFEST,
        "artifactType": kind,
        "config": config.to_json(),
        "layers": [blob.to_json()],
        "subject": subject.to_json(),
    }
