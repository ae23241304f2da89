"""give an image of the local store another name"""

from __future__ import annotations

import argparse

from builder.commands import Environment
from builder.image.names import parse_names
from builder.image.stored import require_record, tag_image


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `pybuild tag`."""
    parser.add_argument("image", metavar="IMAGE", help="a name, a digest, or the start of an id")
    parser.add_argument("name", nargs="+", metavar="NAME[:TAG]", help="what to call it; another image loses that name")


def run(args: argparse.Namespace, env: Environment) -> int:
    """Add the names."""
    names = parse_names(args.name)
    with env.open_store() as store:
        record = require_record(store, args.image)
        tag_image(store, record.manifest_digest, record.config_digest, names)
    return 0
