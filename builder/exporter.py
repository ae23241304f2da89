"""The results of a build, written where `--output` says. The one door from the solver to images and files.

Types: `image` (the local store), `registry`, `oci` and `docker` (archives), `local` and `tar` (the flattened tree),
`cacheonly`.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from builder.errors import BuildError, UsageError
from builder.export.archiveplan import plan_archive
from builder.export.pack import Compression, ImageInput, OnLayer, PackedImage, pack, pack_local
from builder.export.spec import OutputSpec, parse_output, pick_annotations
from builder.image.config import diff_ids, parse_config
from builder.image.names import ImageName, parse_names
from builder.image.stored import chain_id_of, put_document, tag_image
from cache.descriptor import MEDIA_DOCKER_INDEX, MEDIA_INDEX, Descriptor
from cache.digest import Digest
from cache.errors import CacheError
from cache.namedtuple import NamedTuple
from cache.snapshot import EMPTY
from cache.store import Store

if TYPE_CHECKING:
    from builder.export.file import ByteOutput
    from builder.export.push import Registries
    from builder.registry.transfers import OnTransfer
else:  # evaluated by NamedTuple, for which text would have to be compiled: 2 ms
    ByteOutput = Registries = OnTransfer = object

__all__ = ["Exported", "ImageInput", "OutputSpec", "Remote", "export", "export_targets", "parse_output"]


IMAGE_CREATED = "org.opencontainers.image.created"


class Exported(NamedTuple):
    """What was made. `digest` names the manifest, or the index over several; "" for outputs that are no image.

    `image_ids` are the digests of the configs, one for each image. `target` is the stage where there are several.
    """

    digest: str = ""
    image_ids: tuple[Digest, ...] = ()
    names: tuple[str, ...] = ()
    descriptor: Descriptor | None = None
    target: str = ""

    @property
    def config_id(self) -> str:
        """The digest of the image's config; "" where the result is an index, or no image."""
        is_index = self.descriptor is not None and self.descriptor.media_type in (MEDIA_INDEX, MEDIA_DOCKER_INDEX)
        return "" if is_index or len(self.image_ids) != 1 else str(self.image_ids[0])


class Remote(NamedTuple):
    """What outputs that are pushed need: registries, and somebody who hears how far it is."""

    registries: Registries
    on_transfer: OnTransfer


def export_targets(
    store: Store, images: Sequence[ImageInput], output: OutputSpec, stdout: ByteOutput, *, remote: Remote | None = None
) -> list[Exported]:
    """Write one result of one or more targets, as `export` does for one.

    Of several every image is named by its target: `name` becomes `name:target`, `name:tag` `name:tag-target`. An
    archive has them all, a tree has a directory for each.
    """
    if output.epoch is not None:
        images = [image._replace(epoch=output.epoch) for image in images]
    groups: dict[str, list[ImageInput]] = {}
    for image in images:
        groups.setdefault(image.planned.target, []).append(image)
    if len(groups) <= 1:
        return [export(store, images, output, stdout, remote=remote)]
    outputs = {target: output._replace(names=_target_names(output.names, target)) for target in groups}
    with _store_errors(output):
        if output.type in ("oci", "docker"):
            return _to_archive(store, groups, outputs, stdout)
        if output.type == "tar":
            _to_tar(store, groups, output, stdout)
            return [Exported(target=target) for target in groups]
    found = []
    for target, group in groups.items():
        one = outputs[target]._replace(dest=f"{output.dest.rstrip('/')}/{target}" if output.dest else "")
        found.append(export(store, group, one, stdout, remote=remote)._replace(target=target))
    return found


def _target_names(names: Sequence[str], target: str) -> tuple[str, ...]:
    """A tag comes after the last slash: what is before that can have the colon of a port."""
    return tuple([f"{name}{'-' if ':' in name.rpartition('/')[2] else ':'}{target}" for name in names])


@contextmanager
def _store_errors(output: OutputSpec) -> Iterator[None]:
    try:
        yield
    except CacheError as error:
        raise BuildError(f"output {output.type}: {error}", hint=error.hint) from error


def export(
    store: Store, images: Sequence[ImageInput], output: OutputSpec, stdout: ByteOutput, *, remote: Remote | None = None
) -> Exported:
    """Write one result; `images` has one for each platform. BuildError or UsageError say what stood in the way.

    The same input gives the same bytes. A file is replaced as a whole or not at all.
    """
    if output.epoch is not None:
        images = [image._replace(epoch=output.epoch) for image in images]
    with _store_errors(output):
        names = parse_names(output.names)
        exported = _to_store(store, images, output, names) if output.type == "image" else Exported()
        if output.push:
            return _to_registry(store, images, output, remote)
        if output.type == "image":
            return exported
        if output.type in ("oci", "docker"):
            return _to_archive(store, {"": images}, {"": output}, stdout)[0]
        if output.type == "local":
            _to_directory(store, images, output)
        elif output.type == "tar":
            _to_tar(store, {"": images}, output, stdout)
    return Exported()


def _to_store(store: Store, images: Sequence[ImageInput], output: OutputSpec, names: Sequence[ImageName]) -> Exported:
    """Nothing is compressed unless the output asks for it; documents that are there already are not written again.

    Several platforms are several images under one index.
    """
    packed = [_pack_for_store(store, image, output) for image in images]
    planned = plan_archive(packed, names, output.annotations, docker=False, index=output.needs_index)
    for raw in planned.documents.values():
        put_document(store, raw)
    digest = planned.descriptor.digest
    is_index = planned.descriptor.media_type in (MEDIA_INDEX, MEDIA_DOCKER_INDEX)
    tag_image(store, digest, digest if is_index else packed[0].manifest.config.digest, names)
    return _exported(planned.descriptor, packed, names)


def _pack_for_store(store: Store, image: ImageInput, output: OutputSpec) -> PackedImage:
    if not (output.compression or output.force_compression or output.docker_types or _rewrites(image, output)):
        return pack_local(store, image, pick_annotations(output.annotations, "manifest", image.planned.platform))
    packed = _pack(store, image, output, default="none")
    _register_layers(store, image, packed)
    return packed


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
    store: Store, groups: Mapping[str, Sequence[ImageInput]], outputs: Mapping[str, OutputSpec], stdout: ByteOutput
) -> list[Exported]:
    """One archive of every target's image; `outputs` differ in their names only."""
    from builder.export.archive import write_archive, write_layout
    from builder.export.file import open_destination

    found, archives = [], []
    for target, output in outputs.items():
        names = parse_names(output.names)
        packed = [_pack(store, image, output, default="gzip") for image in groups[target]]
        archive = plan_archive(
            packed, names, output.annotations, docker=output.type == "docker", index=output.needs_index
        )
        archives.append(archive._replace(target=target))
        found.append(_exported(archive.descriptor, packed, names)._replace(target=target))
    if output.tar:
        with open_destination(output.dest, stdout) as sink:
            write_archive(archives, store.blobs, sink)
    else:
        for archive in archives:
            write_layout(archive, store.blobs, output.dest)
    return found


def _to_registry(store: Store, images: Sequence[ImageInput], output: OutputSpec, remote: Remote | None) -> Exported:
    from builder.export.push import ImagePush, destinations

    names = parse_names(output.names)
    places = destinations(names, by_digest=output.push_by_digest)
    assert remote is not None, "the command has registries to push to"
    client = remote.registries.connect(insecure=output.insecure)
    packed, archive = ImagePush(store, client, remote.on_transfer).push(
        places,
        lambda on_layer: [_pack(store, image, output, default="gzip", on_layer=on_layer) for image in images],
        lambda packed: plan_archive(packed, names, output.annotations, docker=False, index=output.needs_index),
    )
    return _exported(archive.descriptor, packed, names)


def _pack(
    store: Store, image: ImageInput, output: OutputSpec, *, default: str, on_layer: OnLayer = lambda _: None
) -> PackedImage:
    kind = {"": default, "uncompressed": "none"}.get(output.compression, output.compression)
    return pack(
        store,
        image,
        Compression(kind, output.compression_level, output.force_compression),
        rewrite_timestamp=_rewrites(image, output),
        docker_types=output.docker_types,
        annotations=pick_annotations(output.annotations, "manifest", image.planned.platform),
        on_layer=on_layer,
    )


def _rewrites(image: ImageInput, output: OutputSpec) -> bool:
    return image.epoch is not None if output.rewrite_timestamp is None else output.rewrite_timestamp


def _exported(descriptor: Descriptor, packed: Sequence[PackedImage], names: Sequence[ImageName]) -> Exported:
    ids = tuple([image.manifest.config.digest for image in packed])
    if descriptor.media_type not in (MEDIA_INDEX, MEDIA_DOCKER_INDEX):
        marks = {"config.digest": str(ids[0]), **(descriptor.annotations or {})}
        descriptor = descriptor._replace(annotations=marks)
    return Exported(str(descriptor.digest), ids, tuple([str(name) for name in names]), descriptor)


def _to_directory(store: Store, images: Sequence[ImageInput], output: OutputSpec) -> None:
    from builder.export.local import keep_only, write_tree
    from builder.export.walk import walk_merged

    kept: set[str] = set()
    for image, prefix in zip(images, _prefixes(images, output), strict=True):
        dest = f"{output.dest.rstrip('/')}/{prefix}" if prefix else output.dest
        write_tree(walk_merged(store.snapshots.lower_dirs(image.snapshot)), dest, delete=output.delete)
        kept.add(prefix.rstrip("/"))
    if output.delete and "" not in kept:
        keep_only(output.dest, kept)


def _to_tar(store: Store, groups: Mapping[str, Sequence[ImageInput]], output: OutputSpec, stdout: ByteOutput) -> None:
    from builder.export.file import open_destination
    from builder.export.tar import TreeTar
    from builder.export.walk import walk_merged

    trees = []
    for target, images in groups.items():
        for image, prefix in zip(images, _prefixes(images, output), strict=True):
            trees.append((f"{target}/{prefix}" if target else prefix, store.snapshots.lower_dirs(image.snapshot)))
    with open_destination(output.dest, stdout) as sink:
        writer = TreeTar(sink)
        for prefix, lower_dirs in trees:
            writer.add_tree(walk_merged(lower_dirs), prefix)
        writer.close()


def _prefixes(images: Sequence[ImageInput], output: OutputSpec) -> list[str]:
    """A directory for each platform (`linux_arm_v7/`) when there are several, or when the output says so."""
    split = output.needs_index or len(images) > 1 if output.platform_split is None else output.platform_split
    if not split and len(images) > 1:
        raise UsageError("several platforms cannot share one tree", hint="leave out platform-split=false")
    return [image.planned.platform.replace("/", "_") + "/" if split else "" for image in images]
