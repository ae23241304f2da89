"""From a finished root to an image: its layers as blobs, its config document, its manifest.

Two forms. `pack_local` is for the store: layers that have no blob are listed by what their tar would be, nothing is
compressed. `pack` is for export: every layer is a blob of the wanted compression.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from builder.errors import BuildError
from builder.export.config import Times, image_config
from builder.image.document import parse_document
from builder.image.manifest import Manifest, encode_manifest, with_docker_types
from builder.image.platform import platform_of
from builder.image.stored import StoredImage
from builder.plan import PlannedImage
from cache.descriptor import MEDIA_CONFIG, MEDIA_LAYER_TAR, Descriptor, oci_layer_type
from cache.digest import Digest, sha256_bytes
from cache.layerrows import LayerRows
from cache.namedtuple import NamedTuple
from cache.snapshot import Layer, Snapshot
from cache.store import Store

OnLayer: TypeAlias = Callable[[Descriptor], object]


class ImageInput(NamedTuple):
    """One image to export. Times are nanoseconds since 1970, `entry_times` one for each entry of `planned.history`.

    `epoch` is SOURCE_DATE_EPOCH in seconds, `vertex_name` what made a layer that no instruction accounts for.
    """

    planned: PlannedImage
    snapshot: Snapshot
    entry_times: tuple[int, ...]
    created_ns: int
    vertex_name: str = ""
    epoch: int | None = None


class Compression(NamedTuple):
    """How layers are written: `kind` is gzip, zstd or none; `force` is for the base image's layers too."""

    kind: str = "gzip"
    level: int | None = None
    force: bool = False


class PackedImage(NamedTuple):
    """An image whose documents are in memory and whose layers are (or could be) blobs of the store."""

    platform: str
    created: str
    manifest: Manifest
    manifest_digest: Digest
    manifest_raw: bytes
    config_raw: bytes


def pack(
    store: Store,
    image: ImageInput,
    compression: Compression,
    *,
    rewrite_timestamp: bool = False,
    docker_types: bool = False,
    annotations: Mapping[str, str] | None = None,
    on_layer: OnLayer = lambda _: None,
) -> PackedImage:
    """Return the image with every layer as a blob of the store, with OCI's media types or Docker's; `on_layer` hears of
    each as soon as it is there.

    `rewrite_timestamp` clamps the times in the layers of this build to the image's epoch, or else its creation; the
    base image's layers stay what they are, so that they are still shared with it.
    """
    created = image.created_ns // 1_000_000_000 if image.epoch is None else image.epoch
    layers: list[tuple[Descriptor, Digest]] = []
    for number, layer in enumerate(image.snapshot.layers):
        is_new = number >= image.planned.base_layers
        made = store.layers.blob(
            layer,
            compression=compression.kind,
            level=compression.level,
            clamp_epoch=created if rewrite_timestamp and is_new else None,
            force=compression.force,
        )
        layers.append(made)
        on_layer(made[0])
    return _assemble(image, layers, annotations, docker_types=docker_types)


def pack_local(store: Store, image: ImageInput, annotations: Mapping[str, str] | None = None) -> PackedImage:
    """Return the image as the local store keeps it; nothing is read or made.

    A layer that came as a blob is listed as that blob, one that was built as its plain tar, whether or not some export
    has compressed it meanwhile: the same build gives the same manifest.
    """
    layers = [(_local_descriptor(store, layer), layer.diff_id) for layer in image.snapshot.layers]
    return _assemble(image, layers, annotations)


def _local_descriptor(store: Store, layer: Layer) -> Descriptor:
    row = LayerRows(store.database).get(layer.layer_id)
    if row is not None and row.imported and row.blob is not None:
        return row.blob._replace(media_type=oci_layer_type(row.blob.media_type))
    return Descriptor(MEDIA_LAYER_TAR, layer.diff_id, layer.size)


def _assemble(
    image: ImageInput,
    layers: Sequence[tuple[Descriptor, Digest]],
    annotations: Mapping[str, str] | None,
    *,
    docker_types: bool = False,
) -> PackedImage:
    times = Times(image.entry_times, image.created_ns, image.epoch)
    config_raw = image_config(image.planned, [diff_id for _, diff_id in layers], times, image.vertex_name)
    manifest = Manifest(
        config=Descriptor(MEDIA_CONFIG, sha256_bytes(config_raw), len(config_raw)),
        layers=tuple([descriptor for descriptor, _ in layers]),
        annotations=dict(annotations) if annotations else None,
    )
    if docker_types:
        manifest = with_docker_types(manifest)
    return _packed(manifest, encode_manifest(manifest), config_raw, image.planned.platform)


def pack_stored(
    store: Store, image: StoredImage, compression: Compression, on_layer: OnLayer = lambda _: None
) -> PackedImage:
    """Return an image of the store with every layer as a blob; its config, and so its id, stays the same. `on_layer`
    hears of each as soon as it is there.

    The manifest stays too when all blobs that it names are there and nothing else is forced.
    """
    config_raw = store.blobs.read(image.config_digest)
    platform = platform_of(image.config)
    has_blobs = all(store.blobs.size(blob.digest) == blob.size for blob in image.manifest.layers)
    if has_blobs and not compression.force:
        for blob in image.manifest.layers:
            on_layer(blob)
        return _packed(image.manifest, store.blobs.read(image.manifest_digest), config_raw, platform)
    snapshot = store.snapshots.get(image.chain_id)
    if snapshot is None:
        raise BuildError(f"layers of image {image.config_digest} are gone", hint="build or load it again")
    blobs = []
    for layer in snapshot.layers:
        blob, diff_id = store.layers.blob(
            layer, compression=compression.kind, level=compression.level, force=compression.force
        )
        if diff_id != layer.diff_id:
            raise BuildError(f"layer {layer.diff_id} of image {image.config_digest} is gone", hint="load it again")
        blobs.append(blob)
        on_layer(blob)
    manifest = image.manifest._replace(layers=tuple(blobs))
    return _packed(manifest, encode_manifest(manifest), config_raw, platform)


def _packed(manifest: Manifest, manifest_raw: bytes, config_raw: bytes, platform: str) -> PackedImage:
    created = parse_document(config_raw, "image config").get("created") or ""
    return PackedImage(platform, str(created), manifest, sha256_bytes(manifest_raw), manifest_raw, config_raw)
