"""Packed images as an OCI image layout, in a tar or in a directory (OCI image-spec, image-layout.md).

    blobs/sha256/<hex>   index.json   oci-layout   and for `docker load`: manifest.json (docker image spec v1.2)

Members are sorted and carry neither owner nor time, so the archive depends on the images and their names only.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol

from builder.errors import BuildError
from builder.export.file import ByteSink, output_error, replaced_file
from builder.export.pack import PackedImage
from builder.export.spec import Annotation, pick_annotations
from builder.export.tar import ArchiveWriter
from builder.image.document import encode_document
from builder.image.layout import INDEX_FILE, LAYOUT_CONTENT, LAYOUT_FILE, Layout
from builder.image.manifest import Index, encode_manifest
from builder.image.names import ImageName
from builder.image.platform import platform_document
from builder.image.select import IMAGE_NAME, REF_NAME
from cache.blobs import Readable
from cache.descriptor import MEDIA_DOCKER_INDEX, MEDIA_DOCKER_MANIFEST, MEDIA_INDEX, Descriptor
from cache.digest import Digest, sha256_bytes

DOCKER_FILE = "manifest.json"
CREATED = "org.opencontainers.image.created"
_BLOB_DIRECTORIES = ("blobs/", "blobs/sha256/")
_CHUNK = 1 << 18


class BlobSource(Protocol):
    """Where layers are read from, e.g. a BlobStore."""

    def open(self, digest: Digest) -> AbstractContextManager[Readable]:
        """The blob's bytes, verified by their end."""


class Archive(NamedTuple):
    """What a layout is going to hold: the documents, the layers (which lie in the store), and what to call it all."""

    descriptor: Descriptor
    documents: dict[Digest, bytes]
    layers: dict[Digest, int]
    names: tuple[ImageName, ...]
    docker: dict[str, Any] | None
    target: str = ""
    """Of several images the stage that this one is; the tag of one that has no name."""

    def index_entries(self, unnamed: str = "") -> tuple[Descriptor, ...]:
        """Return the entries of `index.json`: one for each name, or a single one tagged `unnamed` (not when "")."""
        base = self.descriptor.annotations or {}
        marks = [{IMAGE_NAME: str(name), REF_NAME: name.tag} for name in self.names]
        tag = self.target or unnamed
        marks = marks or [{REF_NAME: tag} if tag else {}]
        return tuple([self.descriptor._replace(annotations=dict(sorted({**base, **mark}.items()))) for mark in marks])


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
        "Config": _blob_path(image.manifest.config.digest),
        "RepoTags": [name.familiar for name in names] or None,
        "Layers": [_blob_path(layer.digest) for layer in image.manifest.layers],
    }


def _blob_path(digest: Digest) -> str:
    return f"blobs/{digest.algorithm}/{digest.hex}"


def write_archive(archives: Sequence[Archive], blobs: BlobSource, sink: ByteSink) -> None:
    """Write one layout of all images as a tar. Layers are read once, in chunks, and verified on the way."""
    documents = {digest: raw for archive in archives for digest, raw in archive.documents.items()}
    layers = {digest: size for archive in archives for digest, size in archive.layers.items()}
    writer = ArchiveWriter(sink)
    for directory in _BLOB_DIRECTORIES:
        writer.add_directory(directory)
    for digest in sorted({*documents, *layers}):
        if digest in documents:
            writer.add_bytes(_blob_path(digest), documents[digest])
        else:
            writer.add_file(_blob_path(digest), layers[digest], _chunks(blobs, digest))
    entries = [entry for archive in archives for entry in archive.index_entries()]
    writer.add_bytes(INDEX_FILE, encode_manifest(Index(tuple(entries))))
    docker = [archive.docker for archive in archives if archive.docker is not None]
    if docker:
        writer.add_bytes(DOCKER_FILE, encode_document(docker))
    writer.add_bytes(LAYOUT_FILE, LAYOUT_CONTENT)
    writer.close()


def _chunks(blobs: BlobSource, digest: Digest) -> Iterator[bytes]:
    with blobs.open(digest) as reader:
        while chunk := reader.read(_CHUNK):
            yield chunk


def write_layout(archive: Archive, blobs: BlobSource, directory: str) -> None:
    """Write the layout into `directory`, next to what it holds already; entries of the same name are replaced.

    Each file appears whole, `index.json` last. An image without a name is tagged `latest`, as BuildKit does it.
    """
    blob_dir = os.path.join(directory, "blobs", "sha256")
    try:
        os.makedirs(blob_dir, exist_ok=True)
    except OSError as error:
        raise output_error(directory, error) from error
    for digest, raw in archive.documents.items():
        _write_blob(blob_dir, digest, len(raw), (raw,))
    for digest, size in archive.layers.items():
        _write_blob(blob_dir, digest, size, _chunks(blobs, digest))
    _write_file(os.path.join(directory, LAYOUT_FILE), (LAYOUT_CONTENT,))
    index = Index(_merged_entries(directory, archive.index_entries("latest")))
    _write_file(os.path.join(directory, INDEX_FILE), (encode_manifest(index),))


def _merged_entries(directory: str, entries: tuple[Descriptor, ...]) -> tuple[Descriptor, ...]:
    if not os.path.exists(os.path.join(directory, INDEX_FILE)):
        return entries
    taken = {(entry.annotations or {}).get(REF_NAME) for entry in entries}
    kept = [old for old in Layout(directory).index.manifests if (old.annotations or {}).get(REF_NAME) not in taken]
    return (*kept, *entries)


def _write_blob(blob_dir: str, digest: Digest, size: int, chunks: Iterable[bytes]) -> None:
    path = os.path.join(blob_dir, digest.hex)
    if not (os.path.isfile(path) and os.stat(path).st_size == size):
        _write_file(path, chunks)


def _write_file(path: str, chunks: Iterable[bytes]) -> None:
    with replaced_file(path) as sink:
        for chunk in chunks:
            sink.write(chunk)
