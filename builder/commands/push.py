"""send an image of the local store to a registry"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from builder.commands import Environment, registry_options
from builder.copying.attach import Attachment, attach, parse_attachments
from builder.errors import BuildError, UsageError
from builder.export.pack import Compression, pack_stored
from builder.export.push import ImagePush, destinations
from builder.export.stored import plan_stored
from builder.image.names import ImageName, at_registry, parse_name, parse_names
from builder.image.stored import read_images, require_record
from builder.registry.client import RegistryClient
from builder.registry.transfers import OnTransfer
from cache.descriptor import Descriptor
from cache.digest import Digest
from cache.store import Store

_COMPRESSIONS = {"gzip": "gzip", "zstd": "zstd", "uncompressed": "none"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `pybuild push`."""
    add = parser.add_argument
    add("image", metavar="IMAGE", help="a name, a digest, or the start of an id")
    add("dest", nargs="*", metavar="NAME[:TAG]", help="where to push it (default: where its name says)")
    add("-a", "--all-tags", action="store_true", help="push every tag of the repository IMAGE")
    add_push_arguments(parser)


def add_push_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what says how an image is pushed."""
    add = parser.add_argument
    add("--compression", choices=tuple(_COMPRESSIONS), help="of layers that are compressed for the push")
    add("--compression-level", type=int, metavar="N", help="0 to 9 for gzip, 0 to 22 for zstd")
    add("--force-compression", action="store_true", help="compress layers anew that came compressed in another way")
    what = "push a file, such as an SBOM, that refers to the image (may be repeated)"
    add("--attach", action="append", default=[], metavar="TYPE=FILE", help=what)
    registry_options.add_progress(parser)
    registry_options.add_tls_verify(parser)


def run(args: argparse.Namespace, env: Environment) -> int:
    """Push, and print the digest of each image."""
    with env.open_store() as store:
        push_images(store, args, env, _wanted(args, store))
    return 0


def push_images(
    store: Store, args: argparse.Namespace, env: Environment, wanted: Sequence[tuple[str, tuple[ImageName, ...]]]
) -> None:
    """Push images of the store under the names that each has, and print their digests. BuildError, CacheError."""
    kind = _COMPRESSIONS[args.compression or "gzip"]
    most = {"gzip": 9, "zstd": 22}.get(kind, 0)
    if args.compression_level is not None and not 0 <= args.compression_level <= most:
        raise UsageError(f"--compression-level {args.compression_level} is not a number from 0 to {most}")
    compression = Compression(kind, args.compression_level, args.force_compression)
    files = parse_attachments(args.attach, env.cwd)
    with RegistryClient(env.environ, insecure=not args.tls_verify) as client:
        for image, names in wanted:
            with registry_options.transfers(args, env) as transfers:
                pushed = _push(ImagePush(store, client, transfers), store, image, names, compression=compression)
                attached = _attach(client, names, pushed, files, on_transfer=transfers) if files else []
            lines = [f"{name.familiar}: digest: {pushed.digest}" for name in names] + attached
            env.stdout.write("".join(f"{line}\n" for line in ([pushed.digest] if args.quiet else lines)))


def _push(
    push: ImagePush, store: Store, text: str, names: tuple[ImageName, ...], *, compression: Compression
) -> Descriptor:
    """Push one image; what its names mean now."""
    digest = Digest(require_record(store, text).manifest_digest)
    images = read_images(store, digest)
    _, archive = push.push(
        destinations(names, by_digest=False),
        lambda on_layer: [pack_stored(store, image, compression, on_layer) for image in images],
        lambda packed: plan_stored(store, digest, packed, names),
    )
    return Descriptor(*archive.descriptor[:3])


def _attach(
    client: RegistryClient,
    names: tuple[ImageName, ...],
    subject: Descriptor,
    files: Sequence[Attachment],
    *,
    on_transfer: OnTransfer,
) -> list[str]:
    """Push files that refer to an image, to each of its repositories; a line for each."""
    lines = []
    for place in destinations(names, by_digest=True):
        repository = client.repository(place.repository, may_push=True)
        for file in files:
            digest = attach(repository, subject, file, on_transfer)
            lines.append(f"{repository}: {file.blob.media_type}: digest: {digest}")
    return lines


def _wanted(args: argparse.Namespace, store: Store) -> list[tuple[str, tuple[ImageName, ...]]]:
    """The images to push, each with the names that it gets."""
    if not args.all_tags:
        names = parse_names([at_registry(dest) for dest in args.dest])
        return [(args.image, names or (own_name(args.image),))]
    if args.dest:
        raise UsageError("--all-tags pushes every tag where its name says", hint="leave out the other names")
    repository = parse_name(args.image).repository
    found = [record.name for record in store.images.walk() if record.name.rpartition(":")[0] == repository]
    if not found:
        raise BuildError(f"no such image: {args.image!r}", hint="`pybuild images` lists what there is")
    return [(name, (parse_name(name),)) for name in found]


def own_name(text: str) -> ImageName:
    """The name that an image is pushed to when none is given: its own. UsageError when it is called by an id."""
    try:
        name = parse_name(text)
    except UsageError as error:
        raise UsageError(f"{text} is no name to push to", hint="name one: pybuild push IMAGE NAME") from error
    if name.digest:
        raise UsageError(f"{text} has a digest, expected name[:tag]", hint="name one: pybuild push IMAGE NAME")
    return name
