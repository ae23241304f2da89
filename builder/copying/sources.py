"""Where images are copied from. Every source verifies what it gives."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from typing import cast

from builder.copying.content import ImageSource, Stream
from builder.copying.referrers import referrers_in
from builder.copying.words import Place
from builder.errors import BuildError
from builder.export.pack import Compression, pack_stored
from builder.export.stored import plan_stored
from builder.image.archive import read_archive
from builder.image.layout import INDEX_FILE, Layout, parse_index, verified
from builder.image.listing import docker_listed
from builder.image.manifest import Index
from builder.image.names import parse_name
from builder.image.select import ReadDocument, find_entry, names_of
from builder.image.stored import read_images, require_record
from builder.registry.client import RegistryClient
from builder.registry.errors import RegistryError
from builder.registry.neighbours import remember
from builder.registry.referrers import find_referrers
from builder.registry.repository import Repository
from cache.blobs import BlobReader
from cache.compression import MAGIC_SIZE, detect
from cache.descriptor import (
    MEDIA_DOCKER_INDEX,
    MEDIA_DOCKER_MANIFEST,
    MEDIA_INDEX,
    MEDIA_MANIFEST,
    Descriptor,
)
from cache.digest import Digest
from cache.store import Store

_DOCUMENTS = (MEDIA_INDEX, MEDIA_MANIFEST, MEDIA_DOCKER_INDEX, MEDIA_DOCKER_MANIFEST)


def open_source(place: Place, store: Store, client: RegistryClient, cwd: str) -> ImageSource:
    """What is at a place that needs no other program. BuildError, CacheError."""
    if place.transport == "docker":
        return _registry(place, client, store)
    if place.transport == "store":
        return _stored(place, store)
    path = os.path.join(cwd, place.where)
    return _layout(place, path) if place.transport == "oci" else _archive(place, path, store)


def _registry(place: Place, client: RegistryClient, store: Store) -> ImageSource:
    """The first place of the configuration that has it. Its neighbours may borrow the blobs."""
    failure: RegistryError | None = None
    for repository, reference in client.places(place.where):
        try:
            top = repository.manifest(reference)
        except RegistryError as error:
            failure = error
            continue
        read = _reader(repository, top.descriptor, top.raw)
        referrers, on_blobs = partial(find_referrers, repository), partial(remember, store, repository.endpoint)
        return ImageSource([top.descriptor], read, repository.open_blob, referrers, on_blobs)
    assert failure is not None, "a name leads somewhere"
    raise failure


def _reader(repository: Repository, top: Descriptor, raw: bytes) -> ReadDocument:
    def read(descriptor: Descriptor) -> bytes:
        if descriptor.digest == top.digest:
            return raw
        if descriptor.media_type in _DOCUMENTS:
            return repository.manifest(descriptor.digest).raw
        return repository.read_blob(descriptor)

    return read


def _stored(place: Place, store: Store) -> ImageSource:
    """An image of the store, or all that it has under one name; what was built here is compressed first."""
    digest = Digest(require_record(store, place.where).manifest_digest)
    images = read_images(store, digest)
    packed = [pack_stored(store, image, Compression()) for image in images]
    archive = plan_stored(store, digest, packed, ())
    documents = {each.manifest.config.digest: each.config_raw for each in packed} | archive.documents

    def read(descriptor: Descriptor) -> bytes:
        return documents.get(descriptor.digest) or store.blobs.read(descriptor.digest)

    def open_blob(blob: Descriptor) -> Stream:
        raw = documents.get(blob.digest)
        return store.blobs.open(blob.digest) if raw is None else io.BytesIO(raw)

    top = archive.descriptor._replace(annotations=None)
    return ImageSource([top], read, open_blob)


def _layout(place: Place, path: str) -> ImageSource:
    layout = Layout(path)
    layout.check_version()
    entries = _entries(layout.index, place)

    def open_blob(blob: Descriptor) -> BlobReader:
        raw = cast(io.BufferedReader, layout.open_blob(blob.digest)).detach()
        return BlobReader(cast(io.FileIO, raw), blob.digest)

    return ImageSource(entries, layout.read, open_blob, partial(referrers_in, layout.index, layout.read))


def _entries(index: Index, place: Place) -> Sequence[Descriptor]:
    """What a tag means in a layout, or a name in an archive of docker's that is a layout, too."""
    found = find_entry(index, place.tag or None)
    if not found and place.transport == "docker-archive":
        found = find_entry(index, str(parse_name(place.tag)))
    if not found:
        tags = ", ".join(sorted({name for entry in index.manifests for name in names_of(entry)}))
        raise BuildError(f"{place}: no such image", hint=f"there is {tags}" if tags else "nothing there has a tag")
    return found


def _archive(place: Place, path: str, store: Store) -> ImageSource:
    """An archive is read once from the start to the end, so its blobs go through the store."""
    try:
        with nullcontext(sys.stdin.buffer) if place.is_stream else open(path, "rb", buffering=0) as file:
            archive = read_archive(file, store.blobs, str(place))
    except OSError as error:
        raise BuildError(f"{place} cannot be read: {(error.strerror or str(error)).lower()}") from error

    def read(descriptor: Descriptor) -> bytes:
        return verified(store.blobs.read(descriptor.digest), descriptor, str(place))

    def open_blob(blob: Descriptor) -> BlobReader:
        return store.blobs.open(blob.digest)

    if place.transport == "oci-archive" or INDEX_FILE in archive.documents:
        if INDEX_FILE not in archive.documents:
            raise BuildError(f"{place} is no OCI archive", hint=f"docker-archive:{place.where} may be right")
        index = parse_index(archive.documents[INDEX_FILE], str(place))
        entries = _entries(index, place)
        return ImageSource(entries, read, open_blob, partial(referrers_in, index, read))

    def kind(digest: Digest) -> str:
        with store.blobs.open(digest) as reader:
            return detect(reader.read(MAGIC_SIZE))

    listed = [docker_listed(image, archive, kind) for image in archive.docker_images()]
    if place.tag:
        listed = [each for each in listed if place.tag in [name.familiar for name in each.names]]
    if len(listed) != 1:
        raise BuildError(f"{place} has {len(listed)} images, expected one", hint="docker-archive:FILE:NAME names one")
    selected = listed[0].selected
    store.blobs.put_bytes(selected.raw)
    return ImageSource([Descriptor(MEDIA_MANIFEST, selected.digest, len(selected.raw))], read, open_blob)
