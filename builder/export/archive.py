"""Packed images as an OCI image layout, in a tar or in a directory (OCI image-spec, image-layout.md).

    blobs/sha256/<hex>   index.json   oci-layout   and for `docker load`: manifest.json (docker image spec v1.2)

Members are sorted and carry neither owner nor time, so the archive depends on the images and their names only.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from builder.export.archiveplan import Archive, blob_path
from builder.export.file import ByteSink, output_error, replaced_file
from builder.export.tar import ArchiveWriter
from builder.image.document import encode_document
from builder.image.layout import INDEX_FILE, LAYOUT_CONTENT, LAYOUT_FILE, Layout
from builder.image.manifest import Index, encode_manifest
from builder.image.select import REF_NAME
from cache.blobs import Readable
from cache.descriptor import Descriptor
from cache.digest import Digest

DOCKER_FILE = "manifest.json"
_BLOB_DIRECTORIES = ("blobs/", "blobs/sha256/")
_CHUNK = 1 << 18


class BlobSource(Protocol):
    """Where layers are read from, e.g. a BlobStore."""

    def open(self, digest: Digest) -> AbstractContextManager[Readable]:
        """The blob's bytes, verified by their end."""


def write_archive(archives: Sequence[Archive], blobs: BlobSource, sink: ByteSink) -> None:
    """Write one layout of all images as a tar. Layers are read once, in chunks, and verified on the way."""
    documents = {digest: raw for archive in archives for digest, raw in archive.documents.items()}
    layers = {digest: size for archive in archives for digest, size in archive.layers.items()}
    writer = ArchiveWriter(sink)
    for directory in _BLOB_DIRECTORIES:
        writer.add_directory(directory)
    for digest in sorted({*documents, *layers}):
        if digest in documents:
            writer.add_bytes(blob_path(digest), documents[digest])
        else:
            writer.add_file(blob_path(digest), layers[digest], _chunks(blobs, digest))
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
    taken = {_place(entry) for entry in entries}
    return (*[old for old in Layout(directory).index.manifests if _place(old) not in taken], *entries)


def _place(entry: Descriptor) -> str:
    """What an entry of index.json replaces: one of the same tag, or the same one without a tag."""
    return (entry.annotations or {}).get(REF_NAME) or entry.digest


def _write_blob(blob_dir: str, digest: Digest, size: int, chunks: Iterable[bytes]) -> None:
    path = os.path.join(blob_dir, digest.hex)
    if not (os.path.isfile(path) and os.stat(path).st_size == size):
        _write_file(path, chunks)


def _write_file(path: str, chunks: Iterable[bytes]) -> None:
    with replaced_file(path) as sink:
        for chunk in chunks:
            sink.write(chunk)
