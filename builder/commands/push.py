"""send an image of the local store to a registry"""

from __future__ import annotations

import argparse

from builder.commands import Environment, registry_options
from builder.errors import BuildError, UsageError
from builder.export.annotation import index_annotations
from builder.export.archive import plan_archive
from builder.export.pack import Compression, pack_stored
from builder.export.push import ImagePush, destinations
from builder.image.names import ImageName, parse_name, parse_names
from builder.image.stored import read_images, require_record
from builder.registry.client import RegistryClient
from cache.digest import Digest
from cache.store import Store

_COMPRESSIONS = {"gzip": "gzip", "zstd": "zstd", "uncompressed": "none"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `pybuild push`."""
    add = parser.add_argument
    add("image", metavar="IMAGE", help="a name, a digest, or the start of an id")
    add("dest", nargs="*", metavar="NAME[:TAG]", help="where to push it (default: where its name says)")
    add("-a", "--all-tags", action="store_true", help="push every tag of the repository IMAGE")
    add("--compression", choices=tuple(_COMPRESSIONS), help="of layers that are compressed for the push")
    add("--compression-level", type=int, metavar="N", help="0 to 9 for gzip, 0 to 22 for zstd")
    add("--force-compression", action="store_true", help="compress layers anew that came compressed in another way")
    registry_options.add_progress(parser)
    registry_options.add_tls_verify(parser)


def run(args: argparse.Namespace, env: Environment) -> int:
    """Push, and print the digest of each image."""
    kind = _COMPRESSIONS[args.compression or "gzip"]
    most = {"gzip": 9, "zstd": 22}.get(kind, 0)
    if args.compression_level is not None and not 0 <= args.compression_level <= most:
        raise UsageError(f"--compression-level {args.compression_level} is not a number from 0 to {most}")
    compression = Compression(kind, args.compression_level, args.force_compression)
    with env.open_store() as store, RegistryClient(env.environ, insecure=not args.tls_verify) as client:
        for image, names in _wanted(args, store):
            with registry_options.transfers(args, env) as transfers:
                digest = _push(ImagePush(store, client, transfers), store, image, names, compression=compression)
            lines = [f"{digest}\n"] if args.quiet else [f"{name.familiar}: digest: {digest}\n" for name in names]
            env.stdout.write("".join(lines))
    return 0


def _push(
    push: ImagePush, store: Store, text: str, names: tuple[ImageName, ...], *, compression: Compression
) -> Digest:
    digest = require_record(store, text).manifest_digest
    images = read_images(store, digest)
    is_index = digest not in [image.manifest_digest for image in images]
    annotations = index_annotations(store, digest) if is_index else ()
    _, archive = push.push(
        destinations(names, by_digest=False),
        lambda on_layer: [pack_stored(store, image, compression, on_layer) for image in images],
        lambda packed: plan_archive(packed, names, annotations, docker=False, index=is_index),
    )
    return archive.descriptor.digest


def _wanted(args: argparse.Namespace, store: Store) -> list[tuple[str, tuple[ImageName, ...]]]:
    """The images to push, each with the names that it gets."""
    if not args.all_tags:
        return [(args.image, parse_names(args.dest) if args.dest else (_own_name(args.image),))]
    if args.dest:
        raise UsageError("--all-tags pushes every tag where its name says", hint="leave out the other names")
    repository = parse_name(args.image).repository
    found = [record.name for record in store.images.walk() if record.name.rpartition(":")[0] == repository]
    if not found:
        raise BuildError(f"no such image: {args.image!r}", hint="`pybuild images` lists what there is")
    return [(name, (parse_name(name),)) for name in found]


def _own_name(text: str) -> ImageName:
    try:
        name = parse_name(text)
    except UsageError as error:
        raise UsageError(f"{text} is no name to push to", hint="name one: pybuild push IMAGE NAME") from error
    if name.digest:
        raise UsageError(f"{text} has a digest, expected name[:tag]", hint="name one: pybuild push IMAGE NAME")
    return name
