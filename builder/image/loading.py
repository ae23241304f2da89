"""Archives into the local store: from what a stream held to registered images."""

from __future__ import annotations

from builder.errors import BuildError
from builder.image.archive import Archive, read_archive
from builder.image.layout import INDEX_FILE, LAYOUT_FILE, check_layout_version, parse_index, verified
from builder.image.listing import Listed, docker_listed, docker_names, index_images, merge_names
from builder.image.names import ImageName
from builder.image.register import register
from builder.image.stored import StoredImage, with_config
from cache.blobs import Readable
from cache.compression import MAGIC_SIZE, detect
from cache.descriptor import Descriptor
from cache.digest import Digest
from cache.store import Store


def import_stream(
    store: Store, stream: Readable, name: str, platform: str
) -> list[tuple[tuple[ImageName, ...], StoredImage]]:
    """Import every image of an archive, with the names that it gives them; `name` stands for the stream in messages."""
    archive = read_archive(stream, store.blobs, name)
    images = []
    for listed in _listed(store, archive, platform):
        config_raw = _read_document(store, archive, listed.selected.manifest.config)
        image = with_config(listed.selected.digest, listed.selected.manifest, config_raw)
        images.append((listed.names, register(store, image, listed.selected.raw, config_raw)))
    return images


def _listed(store: Store, archive: Archive, platform: str) -> list[Listed]:
    """What the index lists; Docker's list adds names to that, or stands for itself in an archive without an index."""
    if INDEX_FILE not in archive.documents:
        return [
            docker_listed(image, archive, lambda digest: _detect(store, digest)) for image in archive.docker_images()
        ]
    if LAYOUT_FILE in archive.documents:
        check_layout_version(archive.documents[LAYOUT_FILE], f"{archive.source}: {LAYOUT_FILE}")
    index = parse_index(archive.documents[INDEX_FILE], f"{archive.source}: {INDEX_FILE}")
    found = index_images(index, lambda entry: _read_document(store, archive, entry), platform, archive.source)
    names = docker_names(archive)
    return [
        image._replace(names=merge_names(image.names, names.get(image.selected.manifest.config.digest, ())))
        for image in found
    ]


def _detect(store: Store, digest: Digest) -> str:
    with store.blobs.open(digest) as reader:
        return detect(reader.read(MAGIC_SIZE))


def _read_document(store: Store, archive: Archive, descriptor: Descriptor) -> bytes:
    if not archive.has_document(descriptor.digest):
        raise BuildError(f"{archive.source} lacks blob {descriptor.digest}", hint="the archive is incomplete")
    return verified(store.blobs.read(descriptor.digest), descriptor, archive.source)
