"""Finished images to registries: every name's repository gets the blobs, the manifests, and last what the name means.

Layers are compressed once, whatever the number of names, and go as soon as each is ready.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from builder.errors import UsageError
from builder.export.archiveplan import Archive
from builder.export.pack import PackedImage
from builder.image.manifest import parse_manifest
from builder.image.names import ImageName
from builder.registry.client import RegistryClient
from builder.registry.push import Document, Pusher, push_documents
from builder.registry.transfers import OnTransfer, silent
from cache.descriptor import MEDIA_CONFIG, Descriptor
from cache.namedtuple import NamedTuple
from cache.store import Store


class Registries(Protocol):
    """Opens connections to registries."""

    def connect(self, *, insecure: bool) -> RegistryClient:
        """A client, the same for each call."""


class Destination(NamedTuple):
    """One repository, and the tags that the image gets there."""

    repository: str
    tags: tuple[str, ...]


def destinations(names: Sequence[ImageName], *, by_digest: bool) -> list[Destination]:
    """The repositories of these names, each once with all its tags; with `by_digest` none is tagged. UsageError when
    there is no name."""
    if not names:
        raise UsageError("an image is pushed under a name", hint="give one with -t, or with name= in --output")
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(name.repository, []).append(name.tag)
    return [Destination(repository, () if by_digest else tuple(tags)) for repository, tags in found.items()]


class ImagePush:
    """One image, perhaps for several platforms, to one destination after the other."""

    def __init__(self, store: Store, client: RegistryClient, on_transfer: OnTransfer = silent) -> None:
        self._store = store
        self._client = client
        self._on_transfer = on_transfer

    def push(
        self,
        places: Sequence[Destination],
        pack: Callable[[Callable[[Descriptor], object]], Sequence[PackedImage]],
        plan: Callable[[Sequence[PackedImage]], Archive],
    ) -> tuple[list[PackedImage], Archive]:
        """`pack` makes the images and tells of each layer as it is ready, `plan` says what goes on top of them. What
        was pushed. RegistryError, CacheError."""
        packed: list[PackedImage] = []
        archive: Archive | None = None
        for place in places:
            repository = self._client.repository(place.repository, may_push=True)
            cancel, on_transfer = self._client.cancel, self._on_transfer
            with Pusher(self._store, repository, cancel=cancel, on_transfer=on_transfer) as pusher:
                packed = list(pack(pusher.blob))
                archive = plan(packed)
                for image in packed:
                    pusher.bytes(image.config_raw, image.manifest.config.media_type or MEDIA_CONFIG)
            push_documents(repository, _documents(archive, packed, place.tags))
        assert archive is not None, "there is a destination"
        return packed, archive


def _documents(archive: Archive, packed: Sequence[PackedImage], tags: tuple[str, ...]) -> list[Document]:
    """The manifests, and what the tags mean after all that it refers to."""
    top = archive.descriptor.digest
    below = [
        Document(image.manifest.media_type, image.manifest_raw) for image in packed if image.manifest_digest != top
    ]
    raw = archive.documents[top]
    return [*dict.fromkeys(below), Document(parse_manifest(raw).media_type, raw, tags)]
