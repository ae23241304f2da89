"""remove names of images, and images without names, from the local store

What a name meant before is forgotten with it. What an image occupies on the disk is given back by `pybuild prune`.
"""

from __future__ import annotations

import argparse

from builder.commands import Environment
from builder.errors import BuildError
from builder.image.names import familiar_parts, parse_name
from builder.image.stored import find_record
from cache.store import Store


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `pybuild rmi`."""
    parser.add_argument("image", nargs="+", metavar="IMAGE", help="a name, or an id: then all names of the image")
    parser.add_argument("-f", "--force", action="store_true", help="an image that is not there is no error")


def run(args: argparse.Namespace, env: Environment) -> int:
    """Remove, and print what is gone; an unknown image is an error after the others were removed."""
    unknown = []
    with env.open_store() as store:
        for text in args.image:
            removed = _remove(store, text)
            env.stdout.write("".join(f"{line}\n" for line in removed))
            if not removed:
                unknown.append(text)
    if unknown and not args.force:
        missing = ", ".join(repr(text) for text in unknown)
        raise BuildError(f"no such image: {missing}", hint="`pybuild images` lists what there is")
    return 0


def _remove(store: Store, text: str) -> list[str]:
    record = find_record(store, text)
    if record is None:
        return []
    if record.name and _is_name(text, record.name):
        store.images.untag(record.name)
        return ["Untagged: " + ":".join(familiar_parts(record.name))]
    removed = []
    for other in list(store.images.walk()):
        if other.config_digest == record.config_digest:
            store.images.forget(other.manifest_digest)
            removed += ["Untagged: " + ":".join(familiar_parts(other.name))] if other.name else []
    store.images.forget(record.manifest_digest)  # of an image that a name only meant before
    return [*removed, f"Deleted: {record.config_digest}"]


def _is_name(text: str, name: str) -> bool:
    try:
        return str(parse_name(text)) == name
    except BuildError:
        return False
