"""The results of a build, written where `--output` says. The one door from the solver to images and files.

Types: `image` (the local store), `oci` and `docker` (archives), `local` and `tar` (the flattened tree), `cacheonly`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from builder.errors import BuildError, UsageError
from builder.export.pack import Compression, ImageInput, PackedImage, pack, pack_local
from builder.export.spec import OutputSpec, parse_output, pick_annotations
from builder.image.config import diff_ids, parse_config
from builder.image.names import ImageName, parse_names
from builder.image.stored import chain_id_of, put_document, tag_image
from cache.digest import Digest
from cache.errors import CacheError
from cache.snapshot import EMPTY
from cache.store import Store

if TYPE_CHECKING:
    from builder.export.file import ByteOutput

__all__ = ["Exported", "ImageInput", "OutputSpec", "export", "parse_output"]


class Exported(NamedTuple):
    """What was made. `digest` names the manifest, or the index over several; "" for outputs that are no image.

    `image_ids` are the digests of the configs, one for each image.
    """

    digest: str = ""
    image_ids: tuple[Digest, ...] = ()
    names: tuple[str, ...] = ()


def export(store: Store, images: Sequence[ImageInput], output: OutputSpec, stdout: ByteOutput) -> Exported:
    """Write one result; `images` has one for each platform. BuildError or UsageError say what stood in the way.

    The same input gives the same bytes. A file is replaced as a whole or not at all.
    """
    names = parse_names(output.names)
    try:
        if output.type == "image":
            return _to_store(store, images, output, names)
        if output.type in ("oci", "docker"):
            return _to_archive(store, images, output, names, stdout)
        if output.type == "local":
            _to_directory(store, images, output)
        elif output.type == "tar":
            _to_tar(store, images, output, stdout)
    except CacheError as error:
        raise BuildError(f"output {output.type}: {error}", hint=error.hint) from error
    return Exported()


def _to_store(store: Store, images: Sequence[ImageInput], output: OutputSpec, names: Sequence[ImageName]) -> Exported:
    """Nothing is compressed unless the output asks for it; documents that are there already are not written again."""
    if len(images) != 1:
        raise UsageError("the local store keeps one platform of an image", hint="give one --platform, or use type=oci")
    image = images[0]
    annotations = pick_annotations(output.annotations, "manifest", image.planned.platform)
    if output.compression or output.force_compression or output.rewrite_timestamp:
        packed = _pack(store, image, output, default="none")
        _register_layers(store, image, packed)
    else:
        packed = pack_local(store, image, annotations)
    put_document(store, packed.config_raw)
    put_document(store, packed.manifest_raw)
    tag_image(store, packed.manifest_digest, packed.manifest.config.digest, names)
    return _exported(packed.manifest_digest, [packed], names)


def _register_layers(store: Store, image: ImageInput, packed: PackedImage) -> None:
    """Layers whose times were clamped are other layers than those that were built: the store has to know them."""
    layers = diff_ids(parse_config(packed.config_raw))
    if store.snapshots.get(chain_id_of(layers)) is not None:
        return
    snapshot = EMPTY
    for layer, diff_id, blob in zip(image.snapshot.layers, layers, packed.manifest.layers, strict=True):
        if layer.diff_id == diff_id:
            snapshot = store.snapshots.stack(snapshot, layer)
        else:
            snapshot = store.snapshots.add_layer_blob(snapshot, diff_id, blob)


def _to_archive(
    store: Store, images: Sequence[ImageInput], output: OutputSpec, names: Sequence[ImageName], stdout: ByteOutput
) -> Exported:
    from builder.export.archive import plan_archive, write_archive, write_layout
    from builder.export.file import open_destination

    packed = [_pack(store, image, output, default="gzip") for image in images]
    archive = plan_archive(packed, names, output.annotations, docker=output.type == "docker")
    if output.tar:
        with open_destination(output.dest, stdout) as sink:
            write_archive(archive, store.blobs, sink)
    else:
        write_layout(archive, store.blobs, output.dest)
    return _exported(archive.descriptor.digest, packed, names)


def _pack(store: Store, image: ImageInput, output: OutputSpec, *, default: str) -> PackedImage:
    kind = {"": default, "uncompressed": "none"}.get(output.compression, output.compression)
    return pack(
        store,
        image,
        Compression(kind, output.compression_level, output.force_compression),
        rewrite_timestamp=output.rewrite_timestamp,
        annotations=pick_annotations(output.annotations, "manifest", image.planned.platform),
    )


def _exported(digest: Digest, packed: Sequence[PackedImage], names: Sequence[ImageName]) -> Exported:
    ids = tuple([image.manifest.config.digest for image in packed])
    return Exported(str(digest), ids, tuple([str(name) for name in names]))


def _to_directory(store: Store, images: Sequence[ImageInput], output: OutputSpec) -> None:
    from builder.export.local import write_tree
    from builder.export.walk import walk_merged

    for image, prefix in zip(images, _prefixes(images, output), strict=True):
        dest = f"{output.dest.rstrip('/')}/{prefix}" if prefix else output.dest
        write_tree(walk_merged(store.snapshots.lower_dirs(image.snapshot)), dest)


def _to_tar(store: Store, images: Sequence[ImageInput], output: OutputSpec, stdout: ByteOutput) -> None:
    from builder.export.file import open_destination
    from builder.export.tar import TreeTar
    from builder.export.walk import walk_merged

    trees = [store.snapshots.lower_dirs(image.snapshot) for image in images]
    with open_destination(output.dest, stdout) as sink:
        writer = TreeTar(sink)
        for lower_dirs, prefix in zip(trees, _prefixes(images, output), strict=True):
            writer.add_tree(walk_merged(lower_dirs), prefix)
        writer.close()


def _prefixes(images: Sequence[ImageInput], output: OutputSpec) -> list[str]:
    """A directory for each platform (`linux_arm_v7/`) when there are several, or when the output says so."""
    split = len(images) > 1 if output.platform_split is None else output.platform_split
    if not split and len(images) > 1:
        raise UsageError("several platforms cannot share one tree", hint="leave out platform-split=false")
    return [image.planned.platform.replace("/", "_") + "/" if split else "" for image in images]
