"""load images from an archive or an image layout into the local store

Reads what `docker save`, `podman save`, `skopeo copy` and `pybuild save` write, compressed or not, from a file, a
directory or standard input.
"""

from __future__ import annotations

import argparse
import os
import sys

from builder.commands import Environment
from builder.errors import UsageError
from builder.image.importer import load_image


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `pybuild load`."""
    parser.add_argument("file", nargs="?", metavar="FILE", help="archive or layout directory, - for standard input")
    parser.add_argument("-i", "--input", metavar="FILE", help="the same, as docker load spells it")
    parser.add_argument(
        "--platform", default="", metavar="OS/ARCH", help="which image of several (default: this machine's)"
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="print image ids only")


def run(args: argparse.Namespace, env: Environment) -> int:
    """Load, and print a line for each name or id."""
    if args.file and args.input:
        raise UsageError("load: FILE is given twice", hint="give it as an argument or with -i, not both")
    source = args.file or args.input or "-"
    with env.open_store() as store:
        if source == "-":
            if sys.stdin.isatty():
                raise UsageError("load: standard input is a terminal", hint="give a file: pybuild load -i image.tar")
            loaded = load_image(store, sys.stdin.buffer, args.platform)
        else:
            loaded = load_image(store, os.path.join(env.cwd, source), args.platform)
    for names, image in loaded:
        if args.quiet:
            env.stdout.write(f"{image.config_digest}\n")
            continue
        lines = [f"Loaded image: {name}\n" for name in names] or [f"Loaded image ID: {image.config_digest}\n"]
        env.stdout.write("".join(lines))
    return 0
