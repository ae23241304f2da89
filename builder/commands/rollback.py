"""let a name mean what it meant before

Without a version what the name meant before it last moved. Numbers are those of `pybuild images --versions NAME`; a
higher one goes forward again. A version that was pruned is an error.
"""

from __future__ import annotations

import argparse

from builder.commands import Environment
from builder.image.describe import short_id
from builder.image.former import roll_back
from builder.image.names import parse_names


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `pybuild rollback`."""
    add = parser.add_argument
    add("name", metavar="NAME[:TAG]", help="the name to switch")
    add("version", nargs="?", default="", metavar="N|DIGEST", help="a number, or a digest or id, or the start of one")
    add("-q", "--quiet", action="store_true", help="print the id alone")


def run(args: argparse.Namespace, env: Environment) -> int:
    """Switch the name, and print what it means now."""
    [name] = parse_names([args.name])
    with env.open_store() as store:
        version = roll_back(store, name, args.version)
    said = f"{name.familiar} is version {version.number} again: {short_id(version.config_digest)}"
    env.stdout.write(f"{version.config_digest if args.quiet else said}\n")
    return 0
