"""What refers to a manifest at a registry: signatures, attestations and the like (distribution-spec 1.1, Referrers).

Registries that do not know such lists have them under a tag named by the digest; both are read, and what is pushed is
listed there when the registry does not do it itself.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from builder.image.document import encode_document, parse_document
from builder.image.referrer import Referrer, cosign_tags, listed_as, referrers_tag, subject_of
from builder.registry.errors import NotFoundError, RegistryError
from builder.registry.repository import Repository
from cache.descriptor import MEDIA_INDEX, Descriptor
from cache.digest import Digest
from cache.errors import CacheError

_NO_LIST = frozenset((400, 404, 405, 406, 501))
"""What registries that know no lists of referrers say to the question."""


def list_referrers(repository: Repository, digest: Digest, artifact_type: str = "") -> list[Descriptor]:
    """The manifests that have `digest` as their subject, those of one artifact type when it is given."""
    target = f"{repository.endpoint.repository}/referrers/{digest}"
    if artifact_type:
        target += f"?artifactType={quote(artifact_type, safe='')}"
    try:
        documents = list(repository.pages(target, "referrers"))
    except RegistryError as error:
        if error.status not in _NO_LIST:
            raise
        documents = _tagged(repository, digest)
    found = [referrer for document in documents for referrer in _referrers(document)]
    return [referrer for referrer in found if artifact_type in ("", referrer.artifact_type)]


def find_referrers(repository: Repository, digest: Digest, artifact_type: str = "") -> list[Referrer]:
    """The same, and what cosign keeps beside them under tags, of which nobody knows the artifact type before it is
    there."""
    found = [Referrer(descriptor) for descriptor in list_referrers(repository, digest, artifact_type)]
    if artifact_type:
        return found
    for tag in cosign_tags(digest):
        descriptor = repository.find_manifest(tag)
        if descriptor is not None:
            found.append(Referrer(descriptor, tag))
    return found


def push_referrer(repository: Repository, raw: bytes, media_type: str) -> Digest:
    """Push a manifest that has a subject, by its digest, and see that it is listed among the subject's referrers."""
    digest, is_listed = repository.push_manifest(raw, media_type)
    document = parse_document(raw, "manifest")
    subject = subject_of(document)
    if not is_listed and subject is not None:
        _list_by_tag(repository, subject, listed_as(document, raw, media_type))
    return digest


def _list_by_tag(repository: Repository, subject: Digest, entry: Descriptor) -> None:
    known = [each for document in _tagged(repository, subject) for each in _listed(document)]
    if entry.digest in [each.get("digest") for each in known]:
        return
    index = {"schemaVersion": 2, "mediaType": MEDIA_INDEX, "manifests": [*known, entry.to_json()]}
    repository.put_manifest(encode_document(index), MEDIA_INDEX, referrers_tag(subject))


def _tagged(repository: Repository, digest: Digest) -> list[dict[str, Any]]:
    try:
        fetched = repository.manifest(referrers_tag(digest))
    except NotFoundError:
        return []
    return [parse_document(fetched.raw, f"{repository}: referrers")]


def _listed(document: dict[str, Any]) -> list[dict[str, Any]]:
    entries = document.get("manifests")
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []


def _referrers(document: dict[str, Any]) -> list[Descriptor]:
    found = []
    for entry in _listed(document):
        try:
            found.append(Descriptor.from_json(entry))
        except CacheError:
            continue
    return found
