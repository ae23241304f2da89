"""copy an image between registries, layouts, archives and stores

Manifests and blobs go over as they are, so digests stay what they were. Places are spelt as skopeo spells them:
docker://NAME, oci:DIR[:TAG], oci-archive:FILE[:TAG], docker-archive:FILE[:NAME], store:NAME for the local store, and
through skopeo docker-daemon:NAME:TAG and containers-storage:NAME.
"""

from __future__ import annotations

import argparse
from contextlib import AbstractContextManager, nullcontext

from builder.commands import Environment, registry_options
from builder.copying import skopeo
from builder.copying.content import gather
from builder.copying.destinations import Tools, write_content
from builder.copying.sources import open_source
from builder.copying.words import FOREIGN, Place, parse_place
from builder.image.platform import host_platform
from builder.registry.client import RegistryClient


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
    registry_options.add_progress(parser)
    registry_options.add_tls_verify(parser)


def run(args: argparse.Namespace, env: Environment) -> int:
    """Copy, and print the digest of what was copied."""
    source, dest = parse_place(args.source), parse_place(args.dest)
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
        write_content(content, writable, Tools(store, client, transfers, env.stdout_bytes, env.cwd))
    env.stdout.write(f"{content.top.descriptor.digest}\n")
    return 0


def _readable(place: Place, env: Environment) -> AbstractContextManager[Place]:
    return skopeo.fetched(place, env.environ) if place.transport in FOREIGN else nullcontext(place)


def _writable(place: Place, env: Environment) -> AbstractContextManager[Place]:
    return skopeo.delivered(place, env.environ) if place.transport in FOREIGN else nullcontext(place)
