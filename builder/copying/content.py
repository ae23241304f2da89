"""What is copied: the documents of an image, from the bottom up, and the blobs that they refer to.

Knows neither where they come from nor where they go.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Protocol, Self, TypeAlias

from builder.errors import BuildError
from builder.image.manifest import Index, Manifest, parse_manifest
from builder.image.referrer import Referrer
from builder.image.select import MAX_INDEX_DEPTH, platforms_in, select_manifest
from cache.descriptor import Descriptor
from cache.digest import Digest
from cache.namedtuple import NamedTuple

MAX_REFERRERS = 1000
"""Their manifests are in memory all together."""
FindReferrers: TypeAlias = Callable[[Digest, str], Sequence[Referrer]]
"""Returns what refers to a manifest, of one artifact type ("": of any)."""


class Stream(Protocol):
    """A blob's bytes, verified by their end."""

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes, none at the end."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...


class ImageSource(NamedTuple):
    """Somewhere to copy from. `entries` are what was named: one manifest or index, or (of a layout) several."""

    entries: Sequence[Descriptor]
    read: Callable[[Descriptor], bytes]
    """The verified bytes of a document or a config."""
    open: Callable[[Descriptor], Stream]
    referrers: FindReferrers = lambda _digest, _artifact_type: ()
    on_blobs: Callable[[Sequence[Digest]], object] = lambda _: None
    """Hears of the blobs that are going to be copied, which are there."""


class Document(NamedTuple):
    """A manifest or an index with its bytes."""

    descriptor: Descriptor
    raw: bytes


class Content(NamedTuple):
    """An image, or an index with all its images. `documents` end with what has the name."""

    documents: tuple[Document, ...]
    manifests: tuple[Manifest, ...]
    open: Callable[[Descriptor], Stream]
    read: Callable[[Descriptor], bytes]
    referrers: tuple[Attached, ...] = ()

    @property
    def top(self) -> Document:
        """What has the name."""
        return self.documents[-1]

    def blobs(self) -> list[Descriptor]:
        """Configs and layers, each once; those of the referrers, too."""
        found = [blob for manifest in self.manifests for blob in (manifest.config, *manifest.layers)]
        found += [blob for each in self.referrers for blob in each.content.blobs()]
        return list({blob.digest: blob for blob in found}.values())


class Attached(NamedTuple):
    """Something that refers to an image: what it is, and how it is listed."""

    content: Content
    referrer: Referrer


def gather(source: ImageSource, what: str, platform: str, *, every_platform: bool) -> Content:
    """The image for a platform, or with `every_platform` all that was named. BuildError when there is none."""
    if every_platform:
        if len(source.entries) != 1:
            raise BuildError(f"{what} names {len(source.entries)} images", hint="name one, with a tag")
        return _whole(source, source.entries[0])
    selected = select_manifest(source.entries, source.read, platform) if source.entries else None
    if selected is None:
        raise BuildError(
            f"{what} has no image for platform {platform}, its platforms: {_platforms(source)}",
            hint="name one of them with --platform",
        )
    media_type = selected.manifest.media_type
    document = Document(Descriptor(media_type, selected.digest, len(selected.raw)), selected.raw)
    return Content((document,), (selected.manifest,), source.open, source.read)


def with_referrers(source: ImageSource, content: Content, artifact_type: str = "") -> Content:
    """The content with what refers to its documents, and to that again; of those that refer to the image itself the
    ones of an artifact type, if it is given."""
    found: dict[tuple[Digest, str], Attached] = {}
    subjects = [document.descriptor.digest for document in content.documents]
    for _ in range(MAX_INDEX_DEPTH + 1):
        listed = [each for subject in subjects for each in source.referrers(subject, artifact_type)]
        named = {(each.descriptor.digest, each.tag): each for each in listed}
        new = {key: each for key, each in named.items() if key not in found}
        if len(found) + len(new) > MAX_REFERRERS:
            raise BuildError(
                f"more than {MAX_REFERRERS} manifests refer to the image", hint="--referrers=TYPE takes some"
            )
        attached = {key: Attached(_whole(source, each.descriptor), each) for key, each in new.items()}
        if not attached:
            return content._replace(referrers=tuple(found.values()))
        found |= attached
        subjects, artifact_type = [digest for digest, _ in attached], ""
    raise BuildError(f"referrers of referrers are nested more than {MAX_INDEX_DEPTH} levels deep")


def _platforms(source: ImageSource) -> str:
    """What an error can offer instead: of a single index what it lists."""
    if len(source.entries) == 1:
        found = parse_manifest(source.read(source.entries[0]))
        if isinstance(found, Index):
            return platforms_in(found.manifests)
    return platforms_in(source.entries)


def _whole(source: ImageSource, top: Descriptor, depth: int = 0) -> Content:
    if depth > MAX_INDEX_DEPTH:
        raise BuildError(f"index {top.digest} is nested more than {MAX_INDEX_DEPTH} levels deep")
    raw = source.read(top)
    found = parse_manifest(raw, f"manifest {top.digest}")
    own = Document(Descriptor(found.media_type, top.digest, len(raw)), raw)
    if isinstance(found, Manifest):
        return Content((own,), (found,), source.open, source.read)
    below = [_whole(source, entry, depth + 1) for entry in found.manifests] if isinstance(found, Index) else []
    documents = dict.fromkeys([document for each in below for document in each.documents])
    manifests = tuple([manifest for each in below for manifest in each.manifests])
    return Content((*documents, own), manifests, source.open, source.read)
