"""take names away from images of the local store; the images stay

An image that has lost its last name is kept by its id, until `pybuild rmi` removes it. What a name meant before is
forgotten with the name.
"""

from __future__ import annotations

import argparse

from builder.commands import Environment
from builder.errors import BuildError
from builder.image.names import parse_names
from cache.images import ImageRecord


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `pybuild untag`."""
    parser.add_argument("name", nargs="+", metavar="NAME[:TAG]", help="a name of an image, not its id")


def run(args: argparse.Namespace, env: Environment) -> int:
    """Take the names away; an unknown one is an error, after the others."""
    unknown = []
    with env.open_store() as store:
        for name in parse_names(args.name):
            record = store.images.get(str(name))
            if record is None:
                unknown.append(repr(name.familiar))
                continue
            if not _has_another(list(store.images.walk()), record):
                store.images.tag("", record.manifest_digest, record.config_digest)
            store.images.untag(record.name)
            env.stdout.write(f"Untagged: {name.familiar}\n")
    if unknown:
        raise BuildError(f"no such image: {', '.join(unknown)}", hint="`pybuild images` lists what there is")
    return 0


def _has_another(records: list[ImageRecord], wanted: ImageRecord) -> bool:
    same = [record.name for record in records if record.manifest_digest == wanted.manifest_digest]
    return any(name != wanted.name for name in same)
