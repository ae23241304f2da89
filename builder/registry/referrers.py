"""What refers to a manifest: signatures, attestations and the like (distribution-spec 1.1, Referrers).

Registries that do not know such lists have them under a tag named by the digest; both are read, and what is pushed is
listed there when the registry does not do it itself.
"""

from __future__ import annotations

from typing import Any, NamedTuple
from urllib.parse import quote

from builder.image.document import encode_document, parse_document
from builder.registry.errors import NotFoundError
from builder.registry.repository import Repository
from cache.descriptor import MEDIA_INDEX, Descriptor
from cache.digest import Digest
from cache.errors import CacheError


class Referrer(NamedTuple):
    """One manifest whose subject is another one."""

    descriptor: Descriptor
    artifact_type: str


def referrers_tag(digest: Digest) -> str:
    """The tag of the list for registries without one of their own: `sha256-<hex>`."""
    return digest.replace(":", "-")


def list_referrers(repository: Repository, digest: Digest, artifact_type: str = "") -> list[Referrer]:
    """The manifests that have `digest` as their subject, those of one artifact type when it is given."""
    target = f"{repository.endpoint.repository}/referrers/{digest}"
    if artifact_type:
        target += f"?artifactType={quote(artifact_type, safe='')}"
    try:
        documents = list(repository.pages(target, "referrers"))
    except NotFoundError:
        documents = _tagged(repository, digest)
    found = [referrer for document in documents for referrer in _referrers(document)]
    return [referrer for referrer in found if artifact_type in ("", referrer.artifact_type)]


def push_referrer(repository: Repository, raw: bytes, media_type: str) -> Digest:
    """Push a manifest that has a subject, by its digest, and see that it is listed among the subject's referrers."""
    digest, is_listed = repository.push_manifest(raw, media_type)
    document = parse_document(raw, "manifest")
    subject = document.get("subject")
    if not is_listed and isinstance(subject, dict):
        _list_by_tag(
            repository, Digest.parse(str(subject.get("digest", ""))), _entry(document, raw, digest, media_type)
        )
    return digest


def _entry(document: dict[str, Any], raw: bytes, digest: Digest, media_type: str) -> dict[str, Any]:
    config = document.get("config")
    kind = document.get("artifactType") or (config.get("mediaType") if isinstance(config, dict) else None)
    entry = {"mediaType": media_type, "digest": str(digest), "size": len(raw)}
    marks = {"annotations": document["annotations"]} if document.get("annotations") else {}
    return {**entry, **({"artifactType": kind} if kind else {}), **marks}


def _list_by_tag(repository: Repository, subject: Digest, entry: dict[str, Any]) -> None:
    known = [each for document in _tagged(repository, subject) for each in _listed(document)]
    if entry["digest"] in [each.get("digest") for each in known]:
        return
    index = {"schemaVersion": 2, "mediaType": MEDIA_INDEX, "manifests": [*known, entry]}
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


def _referrers(document: dict[str, Any]) -> list[Referrer]:
    found = []
    for entry in _listed(document):
        try:
            found.append(Referrer(Descriptor.from_json(entry), str(entry.get("artifactType") or "")))
        except CacheError:
            continue
    return found
