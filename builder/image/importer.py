"""Images from outside into the local store: layouts, archives, streams.

Bytes are verified before anything refers to them. Layers are registered as blobs; they are unpacked when somebody needs
their directory. Importing the same image again reads two small documents.
"""

from __future__ import annotations

import os

from builder.errors import BuildError
from builder.image.archive import Archive, read_archive
from builder.image.config import diff_ids
from builder.image.layout import INDEX_FILE, LAYOUT_FILE, Layout, check_layout_version, parse_index, verified
from builder.image.listing import Listed, docker_listed, docker_names, index_images, merge_names
from builder.image.names import ImageName
from builder.image.platform import host_platform
from builder.image.select import Selected
from builder.image.stored import StoredImage, put_document, tag_image, with_config
from builder.image.validate import find_problems, require_valid
from cache.blobs import Readable
from cache.compression import MAGIC_SIZE, detect
from cache.descriptor import Descriptor
from cache.digest import Digest
from cache.errors import CacheError
from cache.layerrows import LayerRows
from cache.snapshot import EMPTY, Snapshot, chain_id
from cache.store import Store

Loaded = list[tuple[tuple[ImageName, ...], StoredImage]]
"""Images with the names that their archive gives them."""


def load_image(store: Store, source: str | Readable, platform: str = "") -> Loaded:
    """Import every image of a layout directory, an archive file or a stream, and tag them; an image without a name is
    kept by its id. BuildError when it cannot be read or is not valid."""
    loaded = import_archive(store, source, platform)
    for names, image in loaded:
        tag_image(store, image.manifest_digest, image.config_digest, names)
    return loaded


def import_layout(store: Store, directory: str, wanted: str | None = None, platform: str = "") -> StoredImage:
    """Import one image of an OCI layout: the one that a tag or digest names (None: `latest`, or the only one).

    An image that the store has costs reading `index.json`, its manifest and its config, no layer is looked at.
    """
    layout = Layout(directory)
    selected = layout.find(wanted, platform or host_platform())
    try:
        return _import_selected(store, layout, selected)
    except CacheError as error:
        raise BuildError(f"{directory!r}: {error}", hint=error.hint) from error


def _import_selected(store: Store, layout: Layout, selected: Selected) -> StoredImage:
    config = selected.manifest.config
    has_config = store.blobs.size(config.digest) == config.size
    config_raw = store.blobs.read(config.digest) if has_config else layout.read(config)
    image = with_config(selected.digest, selected.manifest, config_raw)
    has_manifest = store.blobs.size(selected.digest) == len(selected.raw)
    if has_config and has_manifest and store.snapshots.get(image.chain_id) is not None:
        return image
    layout.check_version()
    for layer in selected.manifest.layers:
        if store.blobs.size(layer.digest) != layer.size:
            with layout.open_blob(layer.digest) as file:
                store.blobs.put(file, expected=layer.digest)
    return register(store, image, selected.raw, config_raw)


def import_archive(store: Store, source: str | Readable, platform: str = "") -> Loaded:
    """Import every image of a layout directory, an archive file (plain or compressed) or a stream, without tagging.

    Of an image for several platforms the one for `platform` (default: this machine's) is taken.
    """
    platform = platform or host_platform()
    name = repr(source) if isinstance(source, str) else "standard input"
    try:
        if not isinstance(source, str):
            return _import_stream(store, source, name, platform)
        if os.path.isdir(source):
            layout = Layout(source)
            listed = index_images(layout.index, layout.read, platform, name)
            return [(image.names, _import_selected(store, layout, image.selected)) for image in listed]
        with open(source, "rb", buffering=0) as file:
            return _import_stream(store, file, name, platform)
    except OSError as error:
        raise BuildError(f"{name} cannot be read: {(error.strerror or str(error)).lower()}") from error
    except CacheError as error:
        raise BuildError(f"{name}: {error}", hint=error.hint) from error


def _import_stream(store: Store, stream: Readable, name: str, platform: str) -> Loaded:
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


def register(store: Store, image: StoredImage, manifest_raw: bytes, config_raw: bytes) -> StoredImage:
    """Make an image whose layer blobs are in the store known to it, and return it. Idempotent.

    BuildError lists everything that is wrong with the image; nothing refers to its layers then.
    """
    put_document(store, config_raw)
    layers = diff_ids(image.config)
    known = _known_layers(store, image, layers)
    problems = find_problems(image.manifest, image.config, store.blobs, known.__contains__)
    require_valid(problems, f"image {image.manifest_digest}")
    put_document(store, manifest_raw)
    snapshot = EMPTY
    for diff_id, blob in zip(layers, image.manifest.layers, strict=True):
        snapshot = store.snapshots.add_layer_blob(snapshot, diff_id, blob)
    return image


def _known_layers(store: Store, image: StoredImage, layers: tuple[Digest, ...]) -> set[int]:
    """The layers, by number, that an earlier import verified: same chain, same blob."""
    rows = LayerRows(store.database)
    known: set[int] = set()
    chain = ""
    chains: list[str] = []
    for diff_id in layers:
        chain = chain_id(chain, diff_id)
        chains.append(chain)
    snapshots: dict[str, Snapshot] = store.snapshots.get_many(chains)
    for number, blob in enumerate(image.manifest.layers):
        snapshot = snapshots.get(chains[number])
        row = rows.get(snapshot.layers[-1].layer_id) if snapshot else None
        if row is not None and row.blob is not None and row.blob.digest == blob.digest:
            known.add(number)
    return known
