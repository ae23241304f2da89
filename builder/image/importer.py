"""Images from outside into the local store: layouts, archives, streams.

Bytes are verified before anything refers to them. Layers are registered as blobs; they are unpacked when somebody needs
their directory. Importing the same image again reads small documents only, and imports no more than that takes.
"""

from __future__ import annotations

import os

from builder.errors import BuildError
from builder.image.layout import Layout
from builder.image.names import ImageName
from builder.image.platform import host_platform
from builder.image.select import Selected
from builder.image.stored import StoredImage, tag_image, with_config
from cache.blobs import Readable
from cache.errors import CacheError
from cache.store import Store

Loaded = list[tuple[tuple[ImageName, ...], StoredImage]]
"""Images with the names that their archive gives them."""


def import_layout(store: Store, directory: str, wanted: str | None = None, platform: str = "") -> StoredImage:
    """Import one image of an OCI layout: the one that a tag or digest names (None: `latest`, or the only one).

    An image that the store has costs reading `index.json`, its manifest and its config, no layer is looked at.
    """
    layout = Layout(directory)
    try:
        return _import_selected(store, layout, layout.find(wanted, platform or host_platform()))
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
    from builder.image.register import register

    layout.check_version()
    for layer in selected.manifest.layers:
        if store.blobs.size(layer.digest) != layer.size:
            with layout.open_blob(layer.digest) as file:
                store.blobs.put(file, expected=layer.digest)
    return register(store, image, selected.raw, config_raw)


def load_image(store: Store, source: str | Readable, platform: str = "") -> Loaded:
    """Import every image of a layout directory, an archive file or a stream, and tag them; an image without a name is
    kept by its id. BuildError when it cannot be read or is not valid."""
    loaded = import_archive(store, source, platform)
    for names, image in loaded:
        tag_image(store, image.manifest_digest, image.config_digest, names)
    return loaded


def import_archive(store: Store, source: str | Readable, platform: str = "") -> Loaded:
    """Import every image of a layout directory, an archive file (plain or compressed) or a stream, without tagging.

    Of an image for several platforms the one for `platform` (default: this machine's) is taken.
    """
    from builder.image.listing import index_images
    from builder.image.loading import import_stream

    platform = platform or host_platform()
    name = repr(source) if isinstance(source, str) else "standard input"
    try:
        if not isinstance(source, str):
            return import_stream(store, source, name, platform)
        if os.path.isdir(source):
            layout = Layout(source)
            listed = index_images(layout.index, layout.read, platform, name)
            return [(image.names, _import_selected(store, layout, image.selected)) for image in listed]
        with open(source, "rb", buffering=0) as file:
            return import_stream(store, file, name, platform)
    except OSError as error:
        raise BuildError(f"{name} cannot be read: {(error.strerror or str(error)).lower()}") from error
    except CacheError as error:
        raise BuildError(f"{name}: {error}", hint=error.hint) from error
