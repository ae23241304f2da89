"""Where images are copied to. What is there already is not written again; what has the name comes last."""

from __future__ import annotations

import os
from functools import partial
from typing import BinaryIO

from builder.copying.content import Content, Stream
from builder.copying.referrers import layout_entry
from builder.copying.words import Place
from builder.errors import BuildError
from builder.export.archive import write_archive, write_layout
from builder.export.archiveplan import Archive, plan_archive
from builder.export.file import open_destination
from builder.export.pack import PackedImage
from builder.image.document import parse_document
from builder.image.manifest import Index, parse_manifest
from builder.image.names import ImageName, parse_name
from builder.image.platform import platform_of
from builder.image.register import register
from builder.image.select import is_image
from builder.image.stored import put_document, tag_image, with_config
from builder.registry.client import RegistryClient
from builder.registry.push import Document, Pusher, push_documents
from builder.registry.referrers import push_referrer
from builder.registry.repository import Repository
from builder.registry.transfers import OnTransfer
from cache.digest import Digest
from cache.namedtuple import NamedTuple
from cache.store import Store

_CHUNK = 1 << 20


class Tools(NamedTuple):
    """What destinations use."""

    store: Store
    client: RegistryClient
    on_transfer: OnTransfer
    stdout: BinaryIO
    cwd: str


def write_content(content: Content, place: Place, tools: Tools) -> None:
    """Write an image to a place that needs no other program. BuildError, CacheError."""
    if place.transport == "docker":
        _to_registry(content, parse_name(place.where), tools)
    elif place.transport == "store":
        _to_store(content, parse_name(place.where), tools.store)
    else:
        _to_files(content, place, tools)


def _to_registry(content: Content, name: ImageName, tools: Tools) -> None:
    *below, top = content.documents
    if name.digest and name.digest != top.descriptor.digest:
        raise BuildError(f"{name.familiar}: what is copied has the digest {top.descriptor.digest}")
    repository = tools.client.repository(name.repository, may_push=True)
    with Pusher(tools.store, repository, cancel=tools.client.cancel, on_transfer=tools.on_transfer) as pusher:
        pusher.open = content.open
        for blob in content.blobs():
            pusher.blob(blob)
    documents = [Document(document.descriptor.media_type, document.raw) for document in below]
    tags = () if name.digest else (name.tag,)
    _push_referrers(content, repository)  # whoever sees the tag finds the signatures
    push_documents(repository, [*documents, Document(top.descriptor.media_type, top.raw, tags)])


def _push_referrers(content: Content, repository: Repository) -> None:
    for attached in content.referrers:
        *below, top = attached.content.documents
        tags = (attached.referrer.tag,) if attached.referrer.tag else ()
        documents = [Document(document.descriptor.media_type, document.raw) for document in below]
        push_documents(repository, documents)
        if tags:
            push_documents(repository, [Document(top.descriptor.media_type, top.raw, tags)])
        else:
            push_referrer(repository, top.raw, top.descriptor.media_type)


def _to_store(content: Content, name: ImageName, store: Store) -> None:
    *below, top = content.documents
    index = parse_manifest(top.raw)
    entries = index.manifests if isinstance(index, Index) else ()
    if len(entries) != len(below) or not all(is_image(entry) for entry in entries):
        hint = "copy one platform, without --all"
        raise BuildError("the local store takes only images in an index, no attestations and no indexes", hint=hint)
    for document, manifest in zip(below or [top], content.manifests, strict=True):
        config_raw = content.read(manifest.config)
        image = with_config(document.descriptor.digest, manifest, config_raw)
        for layer in manifest.layers:
            if store.blobs.size(layer.digest) != layer.size:
                with content.open(layer) as stream:
                    store.blobs.put(iter(partial(stream.read, _CHUNK), b""), expected=layer.digest)
        register(store, image, document.raw, config_raw)
    if below:
        put_document(store, top.raw)
    digest = top.descriptor.digest
    tag_image(store, digest, digest if below else content.manifests[0].config.digest, [name])


class _ByDigest:
    """The layers of a content as an archive asks for them."""

    def __init__(self, content: Content) -> None:
        self._known = {blob.digest: blob for blob in content.blobs()}
        self._open = content.open

    def open(self, digest: Digest) -> Stream:
        """See BlobSource."""
        return self._open(self._known[digest])


def _to_files(content: Content, place: Place, tools: Tools) -> None:
    path = place.where if place.is_stream else os.path.join(tools.cwd, place.where)
    if place.transport == "docker-archive":
        archive = _docker_archive(content, place.tag)
    else:
        archive = _layout(content, place.tag)
    if place.transport == "oci":
        write_layout(archive, _ByDigest(content), path)
        return
    with open_destination(path, tools.stdout) as sink:
        write_archive([archive], _ByDigest(content), sink)


def _layout(content: Content, tag: str) -> Archive:
    configs = {manifest.config.digest: content.read(manifest.config) for manifest in content.manifests}
    attached = [document for each in content.referrers for document in each.content.documents]
    documents = {document.descriptor.digest: document.raw for document in (*content.documents, *attached)}
    layers = {blob.digest: blob.size for blob in content.blobs() if blob.digest not in configs}
    others = tuple([layout_entry(each.referrer) for each in content.referrers])
    return Archive(content.top.descriptor, {**configs, **documents}, layers, (), None, tag, others)


def _docker_archive(content: Content, name: str) -> Archive:
    if len(content.manifests) != 1:
        raise BuildError("a docker archive holds an image for one platform", hint="leave out --all")
    manifest, top = content.manifests[0], content.top
    config_raw = content.read(manifest.config)
    document = parse_document(config_raw, "image config")
    created = str(document.get("created") or "")
    packed = PackedImage(platform_of(document), created, manifest, top.descriptor.digest, top.raw, config_raw)
    return plan_archive([packed], [parse_name(name)] if name else [], docker=True)
