"""copy an image between registries, layouts, archives and stores

Manifests and blobs go over as they are, so digests stay what they were. Places are spelt as skopeo spells them:
docker://NAME, oci:DIR[:TAG], oci-archive:FILE[:TAG], docker-archive:FILE[:NAME], store:NAME for the local store, and
through skopeo docker-daemon:NAME:TAG and containers-storage:NAME; FILE may be - for standard input and output.
Registries and OCI layouts have signatures, SBOMs and whatever else refers to an image, which `--referrers` takes along.
"""

from __future__ import annotations

import argparse
from contextlib import AbstractContextManager, nullcontext

from builder.commands import Environment, registry_options
from builder.copying import skopeo
from builder.copying.content import gather, with_referrers
from builder.copying.destinations import Tools, write_content
from builder.copying.sources import open_source
from builder.copying.words import FOREIGN, Place, parse_place
from builder.errors import UsageError
from builder.image.platform import host_platform
from builder.registry.client import RegistryClient

BARE = {"--referrers": "--referrers="}
_WITH_REFERRERS = ("docker", "oci", "oci-archive")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `pybuild copy`."""
    add = parser.add_argument
    add(
        "source",
        metavar="SOURCE",
        help="docker://NAME, oci:DIR[:TAG], oci-archive:FILE, docker-archive:FILE, store:NAME",
    )
    add("dest", metavar="DEST", help="the same; docker-daemon: and containers-storage: through skopeo")
    add("-a", "--all", action="store_true", help="copy every platform of an index, not only one")
    add("--platform", default="", metavar="OS/ARCH", help="which of several (default: this machine's)")
    which = "take along what refers to the image, of any artifact type or of this one"
    add("--referrers", metavar="=TYPE", help=f"{which} (--referrers alone: of any)")
    registry_options.add_progress(parser)
    registry_options.add_tls_verify(parser)


def run(args: argparse.Namespace, env: Environment) -> int:
    """Copy, and print the digest of what was copied."""
    source, dest = parse_place(args.source), parse_place(args.dest)
    for place in (source, dest):
        if args.referrers is not None and place.transport not in _WITH_REFERRERS:
            hint = f"{', '.join(_WITH_REFERRERS)} have one"
            raise UsageError(f"--referrers: {place.transport} has no place for referrers", hint=hint)
    with (
        env.open_store() as store,
        RegistryClient(env.environ, insecure=not args.tls_verify) as client,
        _readable(source, env) as readable,
        _writable(dest, env) as writable,
        registry_options.transfers(args, env) as transfers,
    ):
        opened = open_source(readable, store, client, env.cwd)
        platform = args.platform or host_platform()
        content = gather(opened, str(source), platform, every_platform=args.all)
        if args.referrers is not None:
            content = with_referrers(opened, content, args.referrers)
        opened.on_blobs([blob.digest for blob in content.blobs()])
        write_content(content, writable, Tools(store, client, transfers, env.stdout_bytes, env.cwd))
    told = env.stderr if dest.is_stream else env.stdout
    told.write(f"{content.top.descriptor.digest}\n")
    return 0


def _readable(place: Place, env: Environment) -> AbstractContextManager[Place]:
    return skopeo.fetched(place, env.environ) if place.transport in FOREIGN else nullcontext(place)


def _writable(place: Place, env: Environment) -> AbstractContextManager[Place]:
    return skopeo.delivered(place, env.environ) if place.transport in FOREIGN else nullcontext(place)
