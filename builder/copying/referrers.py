"""Referrers in layouts: entries of index.json, without a name or under the tags that registries would have.

Source: image-spec 1.1, image-layout; ORAS writes entries without a name, others the tag schema of registries.
"""

from __future__ import annotations

from builder.image.document import parse_document
from builder.image.manifest import Index, parse_manifest
from builder.image.referrer import Referrer, cosign_tags, listed_as, referrers_tag, subject_of
from builder.image.select import IMAGE_NAME, REF_NAME, ReadDocument, names_of
from cache.descriptor import MEDIA_DOCKER_MANIFEST, MEDIA_INDEX, MEDIA_MANIFEST, Descriptor
from cache.digest import Digest

_NAMES = (IMAGE_NAME, REF_NAME)
_DOCUMENTS = (MEDIA_MANIFEST, MEDIA_DOCKER_MANIFEST, MEDIA_INDEX)


def referrers_in(index: Index, read: ReadDocument, digest: Digest, artifact_type: str = "") -> list[Referrer]:
    """What refers to a manifest in a layout, of one artifact type ("": of any). `read` gives the verified bytes of a
    document."""
    found = []
    for entry in index.manifests:
        names = names_of(entry)
        if referrers_tag(digest) in names:
            listed = parse_manifest(read(entry), f"index {entry.digest}")
            found += [Referrer(each) for each in listed.manifests] if isinstance(listed, Index) else []
        elif tags := [tag for tag in cosign_tags(digest) if tag in names]:
            found.append(Referrer(entry, tags[0]))
        elif entry.media_type in _DOCUMENTS:
            raw = read(entry)
            document = parse_document(raw, f"manifest {entry.digest}")
            if subject_of(document) == digest:
                found.append(Referrer(listed_as(document, raw, entry.media_type)))
    return [each for each in found if artifact_type in ("", each.descriptor.artifact_type)]


def layout_entry(referrer: Referrer) -> Descriptor:
    """The entry of index.json for a referrer; annotations of its own do not name it."""
    marks = {key: value for key, value in (referrer.descriptor.annotations or {}).items() if key not in _NAMES}
    return referrer.descriptor._replace(annotations={**marks, **({REF_NAME: referrer.tag} if referrer.tag else {})})
