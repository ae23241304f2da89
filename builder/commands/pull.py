"""bring an image from its registry into the local store"""

from __future__ import annotations

import argparse

from builder.commands import Environment, registry_options
from builder.image.names import at_registry, parse_name
from builder.image.platform import host_platform
from builder.image.stored import find_record
from builder.pulling import pull_named
from builder.registry.client import RegistryClient
from builder.registry.resolve import Resolved


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `pybuild pull`."""
    parser.add_argument("name", nargs="+", metavar="NAME[:TAG|@DIGEST]", help="an image at a registry")
    parser.add_argument("--platform", default="", metavar="OS/ARCH", help="of several images (default: this machine's)")
    registry_options.add_progress(parser)
    registry_options.add_tls_verify(parser)


def run(args: argparse.Namespace, env: Environment) -> int:
    """Pull, name, and print what each name means."""
    platform = args.platform or host_platform()
    with env.open_store() as store, RegistryClient(env.environ, insecure=not args.tls_verify) as client:
        for name in [at_registry(text) for text in args.name]:
            before = find_record(store, name)
            with registry_options.transfers(args, env) as transfers:
                resolved = pull_named(store, client, name, platform, on_transfer=transfers)
            is_new = before is None or before.manifest_digest != resolved.image.manifest_digest
            env.stdout.write(f"{resolved.top}\n" if args.quiet else _described(name, resolved, is_new=is_new))
    return 0


def _described(name: str, resolved: Resolved, *, is_new: bool) -> str:
    """As `docker pull` says it."""
    state = "Downloaded newer image" if is_new else "Image is up to date"
    return f"Digest: {resolved.top}\nStatus: {state} for {parse_name(name).familiar}\n{parse_name(name)}\n"
